"""Measurements of what genkit promises: each prints one JSON line and keeps it in results/.

    make bench        all of them, then one table        python -m benchmarks.sampling     one

A figure of another day or another machine is no baseline: each result carries its machine, the
load before and after, and the spread of its rounds.
"""

import json
import os
import platform
import time
from pathlib import Path

__all__ = ["RESULTS", "save"]

RESULTS = Path(__file__).parent / "results"
BUSY = os.getloadavg()[0]  # of the last minute, before the benchmark adds its own


def save(name: str, facts: dict[str, object]) -> None:
    """Prints the facts as one JSON line and writes them to results/<name>.json."""
    # Late, so that a benchmark of a cold start does not itself warm the files of torch.
    import torch

    from genkit.runtime import detect, probe

    machine, runtime = probe(), detect()
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": machine.cores,
        "simd": machine.simd,
        "bf16": machine.bf16,
        "gpus": machine.gpus,
        "device": str(runtime.device),
        "dtype": str(runtime.dtype),
        "threads": runtime.threads,
        "load before and after": [BUSY, os.getloadavg()[0]],
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(facts | {"machine": about}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(json.dumps({"benchmark": name} | facts), flush=True)
