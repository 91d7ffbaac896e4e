"""How long the page `compare` needs for one picture: there and back, and its bound, by all models.

total s      median of the rounds, warm: VAE, HVAE and diffusion model as the page asks them (25
             steps each way, 16 draws, 52 evaluations for the bound), with all figures drawn
slowest s    the longest round
first s      until the VAE's and the HVAE's answers are there, the median
vae s, …     what each model took in the last round
psnr …       of what came back in it, in dB
bits …       its bounds, in bits/dim, with the standard error of the diffusion model's
same         whether the same picture gave the same numbers again, to the last bit

Every round is another scene of the test split, after one that is not counted.

python -m benchmarks.compare [--rounds 9] [--model book32_ddpm]
"""

import statistics
import time
from typing import Any

import tyro

from apps.common import embedded
from apps.travel import STEPS, Travel
from benchmarks import save
from genkit.data.picturebook.scene import SPLITS
from genkit.runtime import apply, detect

SOLVER = "dpm++2m"


def timed(handlers: Travel, seed: int, model: str) -> tuple[float, float]:
    """(seconds until the first figures, until all of them) of a run of the page."""
    begun, first = time.perf_counter(), 0.0
    for index, _ in enumerate(handlers.run("en", None, seed, model, SOLVER, STEPS)):
        if index == 1:  # after the line that it has begun
            first = time.perf_counter() - begun
    return first, time.perf_counter() - begun


def numbers(handlers: Travel, seed: int, model: str) -> dict[str, Any]:
    """What an API client reads of the same run."""
    *_, last = handlers.compare(seed=seed, model=model, steps=STEPS, solver=SOLVER)
    return last


def main(rounds: int = 9, model: str = "book32_ddpm") -> None:
    """Measures the models of this checkout.

    Args:
        rounds: At least 2.
        model: The diffusion model, book32_ddpm or book32_guided.
    """
    apply(detect())
    handlers = Travel(embedded())
    seeds = SPLITS["test"][: rounds + 1]
    first, total = zip(*[timed(handlers, seed, model) for seed in seeds][1:])
    told = numbers(handlers, seeds[-1], model)
    again = numbers(handlers, seeds[-1], model)
    figures: dict[str, object] = {
        "total s": round(statistics.median(total), 3),
        "slowest s": round(max(total), 3),
        "first s": round(statistics.median(first), 3),
    }
    figures |= {f"{name} s": round(one, 3) for name, one in told["seconds"].items()}
    figures |= {f"psnr {name}": round(one, 2) for name, one in told["psnr"].items()}
    figures |= {f"bits {name}": round(one["bits"], 4) for name, one in told["bounds"].items()}
    figures["bits error"] = round(told["bounds"]["diffusion"]["error"], 4)
    figures["same"] = all(told[key] == again[key] for key in ("bounds", "psnr"))
    save("compare", figures | {"model": model, "steps": STEPS, "rounds": rounds})


if __name__ == "__main__":
    tyro.cli(main)
