"""All benchmarks one after the other, each in a process of its own, then one table.

python -m benchmarks [NAME ...]
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from benchmarks import RESULTS

__all__ = ["main"]

NAMES = (
    "batch",
    "sampling",
    "samplers",
    "latency",
    "slider",
    "live",
    "families",
    "pythae_vae",
    "compare",
    "adherence",
    "fewsteps",
)
WANTED: Mapping[tuple[str, str], str] = {
    ("batch", "float32 largest difference"): "≤ 1e-5",
    ("batch", "bfloat16 lowest PSNR dB"): "≥ 40",
    ("sampling", "overhead %"): "≤ 5",
    ("slider", "p95 ms"): "≤ 200",
    ("live", "p50 s"): "≤ 0.7",
    ("live", "p95 s"): "≤ 1.2",
    ("compare", "total s"): "≤ 3",
    ("compare", "same"): "True",
    ("pythae_vae", "bits/dim less than our network %"): "≥ 0",
    ("pythae_vae", "bits/dim less than the best %"): "≥ 0",
    ("pythae_vae", "frechet of the best's"): "≤ 1",
    ("pythae_vae", "times as fast as the best"): "≥ 1.2",
    ("latency", "preview p50 s"): "≤ 0.5",
    ("latency", "picture p50 s"): "≤ 2",
    ("latency", "start s"): "≤ 15",
    ("latency", "peak memory MB"): "≤ 2000",
}
"""What the project promises of a figure."""


def rows(names: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """(benchmark, figure, value, wanted) of the results that are kept."""
    for name in names:
        for path in (*RESULTS.glob(f"{name}.json"), *sorted(RESULTS.glob(f"{name}_*.json"))):
            facts = json.loads(path.read_bytes())
            for figure, value in flat({k: v for k, v in facts.items() if k != "machine"}):
                shown = f"{value:.4g}" if isinstance(value, float) else str(value)
                yield path.stem, figure, shown, WANTED.get((name, figure), "")


def flat(facts: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    """Figures of figures as one list: {"a": {"b": 1}} → ("a: b", 1)."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}: ")
        else:
            yield before + name, value


def main(names: Sequence[str]) -> int:
    """Runs the benchmarks; returns 1 if one of them failed."""
    if unknown := [name for name in names if name not in NAMES]:
        print(f"There is no benchmark {unknown[0]!r}; choose among {', '.join(NAMES)}.")
        return 2
    done = []
    for name in names or NAMES:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if subprocess.run(command, check=False).returncode == 0:
            done.append(name)
        else:
            print(f"{name} failed; the lines above say why.", flush=True)
    table = [("benchmark", "figure", "measured", "wanted"), *rows(done)]
    widths = [max(map(len, column)) for column in zip(*table)]
    for row in table:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    return int(len(done) < len(names or NAMES))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
