"""How much time a sampler adds to its denoiser, and how many pictures a second come out.

overhead      T(20 steps of the sampler)/T(20 guided calls of the denoiser) − 1, step and call by
              turns, median of the rounds; a guided call is one batch of two forward passes
steps/s       guided steps of one picture alone
pictures/s    whole calls as the page makes them: text, 20 steps, previews, decoding

python -m benchmarks.sampling [--rounds 9]
"""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
import tyro

from benchmarks import save
from genkit.asked import SAMPLERS
from genkit.diffusion.guide import Guided
from genkit.diffusion.sample import noise
from genkit.fidelity import prompts
from genkit.generate import TextToImage

NAME = "book128_latent"
STEPS, SAMPLER, GUIDANCE, SIZE = 20, "dpm++2m", 3.0, 128  # the page's defaults


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall clock of one call, with the device's queue empty before and after."""
    _wait(device)
    begun = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def loop(generator: TextToImage, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of whole samples, and of as many guided calls alone, step about."""
    model, device = generator.model, generator.runtime.device
    rngs = [torch.Generator().manual_seed(0)]
    guided = Guided(model.denoiser, GUIDANCE, model.condition([""]))
    cond = model.condition([next(prompts(1)).text])
    start = noise(rngs, model.latent_shape(SIZE, SIZE), device=device)
    sampler = SAMPLERS[SAMPLER]
    times = sampler.grid(guided.schedule, STEPS, 1.0, 0.0)[:-1, None].to(device, start.dtype)
    whole, alone = [], []
    for _ in range(rounds + 1):  # one to warm up
        states = sampler.trajectory(guided, start, STEPS, cond, rngs)
        steps, calls = 0.0, 0.0
        for t in times:  # a neighbour's burst of work meets both
            steps += seconds(partial(next, states), device)
            calls += seconds(partial(guided, start, t, cond), device)
        whole.append(steps)
        alone.append(calls)
    return whole[1:], alone[1:]


def drawing(generator: TextToImage, batch: int, rounds: int) -> list[float]:
    """Seconds of whole calls that draw `batch` pictures."""
    texts = [prompt.text for prompt in prompts(batch)]

    def draw() -> None:
        list(generator(texts, seeds=range(batch), steps=STEPS, guidance=GUIDANCE, size=SIZE))

    kept = [seconds(draw, generator.runtime.device) for _ in range(rounds + 1)]
    return kept[1:]


def spread(values: Sequence[float]) -> float:
    """Interquartile range over median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle


def main(rounds: int = 9) -> None:
    """Measures the shipped checkpoint.

    Args:
        rounds: Samples after the one that warms up, at least 3.
    """
    generator = TextToImage.from_pretrained(NAME)
    whole, alone = loop(generator, rounds)
    ratios = [a / b for a, b in zip(whole, alone)]
    one, eight = drawing(generator, 1, rounds), drawing(generator, 8, max(3, rounds // 3))
    save(
        "sampling",
        {
            "overhead %": 100 * (statistics.median(ratios) - 1),
            "overhead spread %": 100 * spread(ratios),
            "steps/s": STEPS / statistics.median(whole),
            "steps/s spread %": 100 * spread(whole),
            "pictures/s alone": 1 / statistics.median(one),
            "pictures/s in batches of 8": 8 / statistics.median(eight),
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
