"""How well a control is followed at every strength, and what that costs the prompt.

value       at strengths 0 (the base alone) to 1.5, by `genkit.adherence`: F1 of lines of a sketch,
            mIoU of regions of a map; with precision, recall and distance, or each part
fidelity    share of what the captions ask for that is in the same pictures
ideal       what the real pictures of the scenes reach by the same ruler

The hints are of test scenes as a hand draws or paints them, the prompts are captions of the same
scenes: the two never contradict each other.

python -m benchmarks.adherence [--name book128_sketch] [--base book128_latent] [--n 500]
"""

import tyro

from benchmarks import save
from genkit import hub
from genkit.adherence import RULERS, followed, ideal
from genkit.drawing import drawing
from genkit.fidelity import prompts
from genkit.models.controlnet import Control

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def main(
    name: str = "book128_sketch",
    base: str = "book128_latent",
    n: int = 500,
    strengths: tuple[float, ...] = STRENGTHS,
) -> None:
    """Measures one control.

    Args:
        name: Of the control, book128_sketch or book128_map.
        base: What is controlled, book128_latent or book128_fast.
        n: Captions of test scenes.
        strengths: Of the control, 0 to 1.5.
    """
    control = hub.load(name)
    if not isinstance(control, Control) or control.name not in RULERS:
        raise SystemExit(f"{name} follows no hint: take book128_sketch or book128_map.")
    if n < 1:
        raise SystemExit(f"n = {n}: give at least 1.")
    asked, trace = list(prompts(n)), drawing(name, base)
    key = RULERS[control.name].value
    best = ideal(control.name, asked)
    print(f"{'strength':>8} {key:>8} {'fidelity':>8}")
    found = {}
    for strength in strengths:
        found[f"{strength:g}"] = led = followed(trace, control.name, asked, strength)
        print(f"{strength:8g} {led[key]:8.4f} {led['fidelity']:8.4f}", flush=True)
    print(f"{'ideal':>8} {best[key]:8.4f}")
    save(
        f"adherence_{name}_{base}",
        {"control": name, "base": base, "n": n, "value": key, "ideal": best, "strengths": found},
    )


if __name__ == "__main__":
    tyro.cli(main)
