"""The suite as a user starts it, `make demo`, on a free port; Linux (/proc) only.

with serving() as server:
    server.seconds, server.url, server.peak_mb()
"""

import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Server", "forget", "serving"]

ROOT = Path(__file__).parent.parent
PATIENCE = 180.0  # seconds until a page must be served


@dataclass(frozen=True)
class Server:
    """A running suite.

    Args:
        pid: Of `make`, the parent of all its processes.
        url: Address of the home page, without a slash at the end.
        seconds: From the start of the process to the first page served (GET / answers 200).
    """

    pid: int
    url: str
    seconds: float

    def peak_mb(self) -> float:
        """Largest resident memory so far in MB, summed over the processes (their VmHWM)."""
        return sum(map(_peak_kib, _family(self.pid))) * 1024 / 1e6


@contextmanager
def serving() -> Iterator[Server]:
    """Starts `make demo` and ends it with Ctrl-C.

    Raises:
        RuntimeError: It ends, or serves nothing within three minutes; its last words are told.
    """
    port = _free_port()
    # BROWSER=true: --open runs the program `true` instead of a browser.
    changes = {"GRADIO_SERVER_PORT": str(port), "BROWSER": "true"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    with tempfile.TemporaryFile() as words:
        begun = time.monotonic()
        process = subprocess.Popen(
            ["make", "demo"],
            cwd=ROOT,
            env=environment | changes,
            stdout=words,
            stderr=words,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            while not _answers(url):
                ended = process.poll() is not None
                if ended or time.monotonic() - begun > PATIENCE:
                    words.seek(0)
                    told = words.read()[-500:].decode(errors="replace").strip()
                    raise RuntimeError(f"make demo serves no page: {told or 'it said nothing'}")
                time.sleep(0.05)
            yield Server(process.pid, url, time.monotonic() - begun)
        finally:
            _end(process)


def forget(folders: tuple[Path, ...]) -> None:
    """Asks the system to drop the files of these folders from memory, as after a restart.

    Files that another process has mapped at the moment stay; on a quiet machine none is.
    """
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                handle = os.open(path, os.O_RDONLY)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(handle)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status == 200
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    for way in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, way)
            process.wait(15)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:  # it ended
        children = []
    for child in children:
        yield from _family(int(child))


def _peak_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
