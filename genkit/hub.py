"""hub: a name becomes a model.

    load("book128_latent")              a checkpoint of the repository: checkpoints/book128_latent
    load("runs/latent/export")          any checkpoint folder
    load("owner/repo@<40-hex>")         a repository of the Hugging Face Hub, pinned, or its newest

A checkpoint folder and a Hub repository are the same thing, and both are verified alike
(`genkit.model`): JSON and safetensors are all that is fetched, and no code ever. The environment
variable GENKIT_CHECKPOINTS names another folder of checkpoints; HF_HUB_OFFLINE=1 keeps to what was
fetched before.
"""

import difflib
import math
import os
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from genkit.model import Model, read_record

__all__ = ["card", "load", "locate", "names"]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
HUB_ID = re.compile(r"([A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)(?:@([0-9a-f]{40}))?", re.ASCII)


def load(name: str | Path) -> Model:
    """The verified model of a checkpoint name, a folder or a Hub id, in eval mode on the CPU.

    Raises:
        FileNotFoundError: Nothing has this name; near names are listed.
        ConnectionError: The Hub does not answer, or does not have it.
        ValueError: The checkpoint is damaged (see `Model.from_pretrained`).
    """
    return Model.from_pretrained(locate(name))


def names() -> tuple[str, ...]:
    """Names of the repository's own checkpoints."""
    folder = _checkpoints()
    if not folder.is_dir():
        return ()
    found = (path for path in folder.iterdir() if NAME.fullmatch(path.name))
    return tuple(sorted(path.name for path in found if (path / "config.json").is_file()))


def card(name: str | Path) -> dict[str, str | int]:
    """Facts about a checkpoint, from config.json and headers; no weights are read.

    Returns:
        name, family (module of its class), class, parameters (numbers in the weight files),
        bytes (of these files), dtype (in which they are stored), sha256 (of the whole), folder.
    """
    folder = locate(name)
    record = read_record(folder)
    module, _, kind = record["class"].partition(":")
    files = [folder / file for file in sorted(record["weights"])]
    return {
        "name": str(name),
        "family": module.rpartition(".")[2],
        "class": kind,
        "parameters": sum(map(_numbers, files)),
        "bytes": sum(file.stat().st_size for file in files),
        "dtype": str(record.get("dtype", "float32")),
        "sha256": record["sha256"],
        "folder": str(folder),
    }


def locate(name: str | Path) -> Path:
    """The folder that a name stands for; a Hub repository is fetched into its cache first.

    Raises:
        FileNotFoundError: Nothing has this name; near names are listed.
        ConnectionError: The Hub does not answer, or does not have it.
    """
    text = str(name)
    if isinstance(name, str) and NAME.fullmatch(text) and _is_folder(_checkpoints() / text):
        return _checkpoints() / text
    if _is_folder(Path(name)):
        return Path(name).expanduser()
    if isinstance(name, str) and (match := HUB_ID.fullmatch(text)):
        return _fetched(match[1], match[2])
    near = difflib.get_close_matches(text, names(), n=3, cutoff=0.4) or names()
    hint = f"choose one of {', '.join(near)}" if near else f"{_checkpoints()} has none"
    raise FileNotFoundError(
        f"there is no checkpoint {text[:80]!r}; {hint}, or name a folder or a Hub id owner/repo"
    )


def _checkpoints() -> Path:
    asked = os.environ.get("GENKIT_CHECKPOINTS", "").strip()
    return Path(asked).expanduser() if asked else Path(__file__).parent.parent / "checkpoints"


def _is_folder(path: Path) -> bool:
    """False also for what no path can be: too long a name, the home of an unknown user."""
    try:
        return path.expanduser().is_dir()
    except (OSError, RuntimeError):
        return False


def _fetched(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["config.json", "model*.safetensors", "model.safetensors.index.json"]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except OSError as error:  # every error of huggingface_hub about network or repository is one
        reason = str(error).strip().partition("\n")[0][:200]
        raise ConnectionError(
            f"{repo} is neither a folder nor could it be fetched from the Hub "
            f"({type(error).__name__}: {reason}); check the name, the network and HF_HUB_OFFLINE"
        ) from error


def _numbers(file: Path) -> int:
    """How many numbers a safetensors file holds, from its header."""
    try:
        with safe_open(file, framework="pt") as tensors:
            shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} is missing or damaged ({error}); fetch it again") from error
    return sum(math.prod(shape) for shape in shapes)
