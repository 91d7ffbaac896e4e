"""store: a folder is replaced whole or not at all.

    stage  = .folder.new     written file by file, each synced to the disk
    folder → .folder.old     first rename
    stage  → folder          second rename; .folder.old is then removed

A kill at any moment leaves the old content or the new; between the two renames the old one is
found as `.folder.old` (`existing`). Tensors are read only where their hash agrees. One writer
per folder at a time.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

__all__ = ["existing", "read_tensors", "replaced", "write_file"]


@contextmanager
def replaced(
    folder: Path, needed: int, keep: Callable[[str], bool] = lambda name: False
) -> Iterator[Path]:
    """A stage whose files, at the end of the block, replace a checkpoint folder at once.

    Args:
        folder: What is replaced or made.
        needed: Bytes about to be written, compared with the free ones before anything is touched.
        keep: Whether an old file or folder of this name is copied into the stage.

    Raises:
        OSError: Too little space; needed and free bytes are named, and the folder is as before.
    """
    folder = folder.absolute()
    stage, old = _sibling(folder, "new"), _sibling(folder, "old")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists() and old.exists():
        old.rename(folder)
    shutil.rmtree(stage, ignore_errors=True)
    _check_space(folder.parent, needed)
    try:
        stage.mkdir()
        if folder.exists():
            others = [path for path in folder.iterdir() if keep(path.name)]
            for path in others:
                copy = shutil.copytree if path.is_dir() else shutil.copy2
                copy(path, stage / path.name)
        yield stage
        _sync(stage)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        stage.rename(folder)
        folder.chmod(0o755)
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise _full(folder.parent, needed) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_file(path: Path, data: bytes) -> None:
    """Write, sync, and make readable for all: weights baked by root must open for uid 1000."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)


def read_tensors(path: Path, sha256: object) -> dict[str, Tensor]:
    """The tensors of a safetensors file, read once: the bytes that are hashed are those used.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The bytes have another hash, or are not safetensors (a pickle, for example).
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the folder is incomplete; fetch it again")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} is damaged or replaced: its SHA-256 is {found}, expected {sha256}; "
            "fetch it again"
        )
    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error})") from error


def existing(folder: Path) -> Path:
    """`folder`, or where a writer was killed between its two renames, the old one beside it."""
    folder = folder.absolute()
    if folder.is_dir():
        return folder
    if _sibling(folder, "old").is_dir():
        return _sibling(folder, "old")
    raise FileNotFoundError(f"there is no folder {folder}; name a checkpoint folder")


def _sibling(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}.{suffix}")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _full(folder: Path, needed: int) -> OSError:
    free = shutil.disk_usage(folder).free
    return OSError(
        f"{folder} has no room: {needed} bytes are needed, {free} are free (or a file-size limit "
        "is set); the old checkpoint is intact, make room and save again"
    )


def _check_space(folder: Path, needed: int) -> None:
    if needed > shutil.disk_usage(folder).free:
        raise _full(folder, needed)
