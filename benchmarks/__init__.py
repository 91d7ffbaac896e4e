"""Measurements of what genkit promises: each prints one JSON line and keeps it in results/."""

import json
import os
import platform
import time
from pathlib import Path

import torch

from genkit.runtime import detect, probe

__all__ = ["save"]

RESULTS = Path(__file__).parent / "results"


def save(name: str, facts: dict[str, object]) -> None:
    """Prints the facts as one JSON line and writes them to results/<name>.json."""
    machine = probe()
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": machine.cores,
        "amx": machine.amx,
        "dtype": str(detect().dtype),
        "load before and after": os.getloadavg()[0],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(facts | {"machine": about}, indent=1) + "\n")
    print(json.dumps({"benchmark": name} | facts))
