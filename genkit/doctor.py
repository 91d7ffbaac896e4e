"""What this machine has, and what was chosen for it: the facts behind `python -m genkit doctor`.

    examine(port) : dict of JSON values, in sections
    sentences(facts) : the same for people, one line each

Nothing is downloaded, no GPU work is started, and no checkpoint is changed.
"""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from genkit import hub, runtime

__all__ = ["examine", "sentences"]

PACKAGES = (
    "torch", "gradio", "diffusers", "transformers", "accelerate", "huggingface-hub",
    "safetensors", "tokenizers", "numpy", "pillow", "xformers", "openvino", "spaces",
)  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "bf16")


def examine(port: int = 7860) -> dict[str, object]:
    """All facts as JSON values; `port` is the one that is tried (1 to 65535)."""
    return {
        "system": _system(),
        "packages": {name: _version(name) for name in PACKAGES},
        "runtime": _runtime(),
        "checkpoints": list(_checkpoints()),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "port": {"number": port, "free": _is_free(port)},
    }


def sentences(facts: dict[str, object]) -> Iterator[str]:
    """The facts of `examine` for people, a line each."""
    system, chosen, port = facts["system"], facts["runtime"], facts["port"]
    yield f"{system['os']}, Python {system['python']} ({system['executable']})"
    yield f"processor: {system['processor']}, {system['cores']} cores usable, {chosen['simd']}"
    yield f"instructions: {', '.join(system['flags']) or 'unknown'}"
    yield f"memory: {system['memory_gb']} GB, disk: {facts['disk_free_gb']} GB free here"
    yield f"GPU: {', '.join(chosen['gpus']) or 'none'}"
    present = {name: number for name, number in facts["packages"].items() if number}
    yield "packages: " + ", ".join(f"{name} {number}" for name, number in present.items())
    yield from (f"chosen: {reason}" for reason in chosen["reasons"])
    for item in facts["checkpoints"]:
        yield f"checkpoint {item['name']}: {item['state']}"
    if not facts["checkpoints"]:
        yield "checkpoints: none; train one with `python -m genkit train book128_autoencoder`"
    state = "free" if port["free"] else "in use; start the pages with --port and another number"
    yield f"port {port['number']}: {state}"


def _system() -> dict[str, object]:
    return {
        "os": platform.platform(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "processor": _processor(),
        "cores": runtime.probe().cores,
        "flags": sorted(runtime.cpu_flags() & set(FLAGS)),
        "memory_gb": _memory_gb(),
    }


def _runtime() -> dict[str, object]:
    machine, chosen = runtime.probe(), runtime.detect()
    return asdict(machine) | {
        "device": str(chosen.device),
        "dtype": str(chosen.dtype).removeprefix("torch."),
        "threads": chosen.threads,
        "attention": chosen.attention,
        "reasons": list(chosen.reasons),
    }


def _checkpoints() -> Iterator[dict[str, str]]:
    """Each checkpoint is loaded, which verifies every byte of it."""
    for name in hub.names():
        try:
            fingerprint = hub.load(name).sha256 or ""
            yield {"name": name, "state": "verified", "sha256": fingerprint}
        except (OSError, TypeError, ValueError) as error:
            yield {"name": name, "state": " ".join(str(error).split()), "sha256": ""}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory_gb() -> float | None:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return None
    return round(pages * size / 1e9, 1)


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
