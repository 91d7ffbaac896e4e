"""The suite: pages in which anyone can run the models, look inside and compare them.

    launch()             all pages behind one server and one queue
    launch("prompt")     one page alone; also python -m apps.prompt

A page is one file with a function `page(blocks, studio, pages)`; a new one is one more line in
`PAGES`, and its name and description in the locale files.
Nothing is loaded from the network: system fonts, local scripts, no analytics.
"""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import atexit
import contextlib
import errno
import importlib
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradio as gr

    from apps.common import Studio

__all__ = ["PAGES", "Page", "build", "launch", "options"]

PORT = 7860
KEPT = 3600.0
"""Seconds for which an uploaded or fetched file is kept."""
QUEUE = 24
"""Jobs that may wait; further visitors are asked to come back later."""


@dataclass(frozen=True)
class Page:
    """One page: its name (module apps.<name>) and its path under the suite."""

    name: str
    path: str


PAGES = (
    Page("home", ""),
    Page("prompt", "prompt"),
    Page("sketch", "sketch"),
    Page("noise", "noise"),
    Page("compare", "compare"),
    Page("latents", "latents"),
)


def build(studio: "Studio", only: str | None = None) -> "gr.Blocks":
    """The suite, or one page of it alone, ready to launch.

    Raises:
        ValueError: `only` is not the name of a page.
    """
    import gradio as gr

    names = [page.name for page in PAGES]
    if only is not None and only not in names:
        raise ValueError(f"there is no page {only!r}; choose one of {', '.join(names)}")
    blocks = gr.Blocks(title="genkit", analytics_enabled=False)
    shown = PAGES if only is None else (Page(only, ""),)
    for page in shown:
        fill = importlib.import_module(f"apps.{page.name}").page
        with blocks if page.path == "" else blocks.route(page.name, page.path):
            fill(blocks, studio, shown)
    return blocks.queue(api_open=False, max_size=QUEUE, default_concurrency_limit=8)


def options() -> dict[str, Any]:
    """What `Blocks.launch` is told in every case: look, limits and no side doors."""
    from starlette.middleware import Middleware

    from apps.gate import Gate
    from apps.look import CSS, HEAD, THEME

    return {
        "theme": THEME,
        "css": CSS,
        "head": HEAD,
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "app_kwargs": {"middleware": [Middleware(Gate)]},
        "max_file_size": "8mb",
        "show_error": False,
        "strict_cors": True,
        "state_session_capacity": 500,
        "ssr_mode": False,
        "quiet": True,
    }


def launch(
    page: str | None = None,
    share: bool = False,
    listen: bool = False,
    port: int | None = None,
    auth: str | None = None,
    open: bool = False,
    studio: "Studio | None" = None,
) -> None:
    """Serves the suite until it is interrupted; on this machine alone unless told otherwise.

    Args:
        page: One page alone (a name of `PAGES`), or None for all.
        share: Make a public link through Gradio's tunnel.
        listen: Answer other machines too (0.0.0.0).
        port: Port; None: 7860, or GRADIO_SERVER_PORT.
        auth: user:password that visitors must give.
        open: Open the page in this machine's browser.
        studio: The models; those of the repository where it is not told.

    Raises:
        ValueError: Unknown page, `auth` is not user:password, no such port, device or dtype.
        OSError: The port is in use.
    """
    port = _port(os.environ.get("GRADIO_SERVER_PORT", "")) if port is None else port
    host = "0.0.0.0" if listen else "127.0.0.1"
    login = _login(auth)
    _free(host, port)
    if (share or listen) and login is None:
        where = "on the internet" if share else "in your network"
        _say(
            f"warning: everyone {where} who knows the address can use this; "
            "--auth user:pass asks for a login"
        )
    _own_folder()
    from apps.common import embedded
    from genkit.runtime import apply, detect

    studio = studio or embedded()
    blocks = build(studio, page)
    # Here, because every thread of the server inherits how denormal numbers are rounded: a
    # picture is the same to the last bit whichever thread draws it.
    apply(detect())
    threading.Thread(target=_warm, args=(studio,), daemon=True).start()
    where = {"server_name": host, "server_port": port, "share": share, "auth": login}
    _, url, public = blocks.launch(**options(), **where, inbrowser=open, prevent_thread_lock=True)
    _say(f"genkit is on {public or url} (Ctrl-C ends it)")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # a host stops us: leave in order
    blocks.block_thread()


def _login(auth: str | None) -> tuple[str, str] | None:
    if auth is None:
        return None
    user, colon, password = auth.partition(":")
    if not (user and colon and password):
        raise ValueError("auth needs a name and a password as user:password, both not empty")
    return user, password


def _port(text: str) -> int:
    """The port of the environment variable GRADIO_SERVER_PORT; `PORT` where it is not set."""
    if not text:
        return PORT
    number = text.isascii() and text.isdecimal() and len(text) <= 5
    if not (number and 1 <= int(text) <= 65535):
        raise ValueError(
            f"GRADIO_SERVER_PORT is {text[:40]!r}, which is not a port from 1 to 65535; "
            "set such a number or unset the variable"
        )
    return int(text)


def _free(host: str, port: int) -> None:
    """Raises OSError with a remedy if the port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            other = port + 1 if port < 65535 else PORT
            remedy = f"choose another one with --port {other} (make demo PORT={other})"
            raise OSError(
                f"port {port} is in use or not allowed; stop the program that uses it, or {remedy}"
            ) from None


def _own_folder() -> None:
    """A folder for what visitors upload and fetch: of this process, swept, gone with it."""
    if "GRADIO_TEMP_DIR" in os.environ:  # the folder of somebody else: not ours to sweep
        return
    folder = Path(tempfile.mkdtemp(prefix="genkit-"))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    threading.Thread(target=_sweep, args=(folder,), daemon=True).start()


def _sweep(folder: Path) -> None:
    """Removes files older than `KEPT` seconds, for ever: Gradio's own sweeper dies under load."""
    while True:
        time.sleep(KEPT / 6)
        for path in sorted(folder.rglob("*"), reverse=True):  # files before their folders
            with contextlib.suppress(OSError):  # in use, not empty, or gone already
                if path.stat().st_mtime < time.time() - KEPT:
                    path.rmdir() if path.is_dir() else path.unlink()


def _warm(studio: "Studio") -> None:
    from apps.settings import CONTROLS, FAST, MODELS

    work = {name: partial(studio.warm, name) for name in MODELS}
    work |= {name: partial(studio.tracer, name, FAST) for name in CONTROLS.values()}
    for name, warm in work.items():
        try:
            warm()
        except Exception as error:  # the first request will say it to its visitor
            _say(f"warning: {name} could not be warmed up: {error}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
