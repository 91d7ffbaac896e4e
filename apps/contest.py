"""The race: several ways to solve one and the same equation, from the same noise.

Sampling without fresh noise solves the probability-flow equation, in the plane of rectified flow

    dz/du = ε̂(x_t, t) − x̂_0(x_t, t),      z = x/(α + σ),  u = σ/(α + σ)

so every deterministic sampler goes from one x_T to one picture x_0, if only its steps are small.
The reference is that picture, by 1000 evaluations. The error of a sampler after n evaluations of
the network is the deviation over all D numbers of the picture, in grey levels of 255:

    e(n) = 127.5 √(Σ_i (x_i − x_i*)²/D)

A method of order p has e ~ n^(−p) where n is large: a line of slope −p on logarithmic axes. The
order that is measured is that slope by least squares for n ≥ 10. It is lower than in theory where
rounding or the reference's own error is reached, where a method has not yet left its start of
low order, and where x̂_0 is not smooth: it is clipped to [−1, 1], and the schedule is a chain.
"""

import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apps.classes import MODELS, check_label
from apps.forward import check_whole
from apps.settings import LIMITS, Refused, argument, check_choice, shown
from genkit.asked import SAMPLERS
from genkit.diffusion.grid import Grid, Karras, LogSNR, Trailing, Uniform
from genkit.diffusion.guide import Clipped
from genkit.diffusion.sample import DPMPP2M, Heun, noise
from genkit.models.diffusion import PixelDiffusion

__all__ = [
    "FLOOR",
    "GRIDS",
    "LARGEST",
    "LONGEST",
    "MOST",
    "REFERENCE",
    "THEORY",
    "WHOLE",
    "Board",
    "Request",
    "Result",
    "checked",
    "order",
    "run",
]

THEORY: Mapping[str, str] = {
    "euler": "1", "heun": "2", "dpm++2m": "2", "dpm++3m": "3", "unipc": "4", "deis": "3",
    "ipndm": "2–4",
}  # fmt: skip
"""Samplers that draw no noise, and their orders."""
GRIDS: Mapping[str, Grid] = {
    "logsnr": LogSNR(low=1e-4, high=1e4),
    "trailing": Trailing(),
    "uniform": Uniform(),
    "karras": Karras(low=1e-4, high=1e4),
}
"""From end to end of the schedule: else the first and the last step would never become small, and
each sampler would have a limit of its own."""
REFERENCE = 1000
MOST, LONGEST, LARGEST = 6, 20, 200
"""Samplers in a race, numbers of evaluations in a list, and the largest of them."""
WHOLE = 3000
"""Evaluations of all samplers together; one of them alone took 22 ms on two slow cores."""
FLOOR = 0.03
"""Errors below this are no longer the sampler's: the reference itself is 0.003 off, by the
difference of two samplers with 300 steps."""
LARGE = 10
"""Evaluations from which on the order is fitted."""


@dataclass(frozen=True)
class Request:
    """A race that has been checked."""

    seed: int
    model: str
    label: str | None
    samplers: tuple[str, ...]
    grid: str
    evaluations: tuple[int, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """What the reference depends on."""
        return self.model, self.label, self.seed, self.grid


@dataclass(frozen=True, eq=False)
class Result:
    """One run: what was asked for, evaluations that it took, seconds, and the picture."""

    sampler: str
    evaluations: int
    nfe: int
    seconds: float
    picture: Float[Tensor, "1 3 H W"]


@dataclass(frozen=True, eq=False)
class Board:
    """What is known after a part of the race; `results` by (sampler, evaluations)."""

    request: Request
    reference: Float[Tensor, "1 3 H W"] | None
    results: Mapping[tuple[str, int], Result]
    seconds: float | None = None

    def error(self, one: Result) -> float:
        """Deviation from the reference, in grey levels of 255."""
        assert self.reference is not None
        return 127.5 * (one.picture - self.reference).cpu().double().square().mean().sqrt().item()

    def points(self, sampler: str) -> list[tuple[int, float]]:
        """(evaluations that it took, error), rising, each number of evaluations once."""
        runs = (one for (name, _), one in self.results.items() if name == sampler)
        return sorted({one.nfe: self.error(one) for one in runs}.items())

    def fitted(self, sampler: str) -> float:
        """The order that was measured; NaN where it cannot be."""
        return order(self.points(sampler))

    def each(self, sampler: str) -> float:
        """Seconds per evaluation: the median of its runs."""
        runs = (one for (name, _), one in self.results.items() if name == sampler)
        return float(np.median([one.seconds / one.nfe for one in runs] or [math.nan]))


def checked(
    seed: Any, model: Any, label: Any, samplers: Any, grid: Any, evaluations: Any
) -> Request:
    """The race of these values.

    Raises:
        Refused: One of them is unknown, of the wrong type or out of its limits.
    """
    names = _several("samplers", samplers, MOST)
    counts = _several("evaluations", evaluations, LONGEST)
    chosen = {check_choice("sampler", name, tuple(THEORY)) for name in names}
    request = Request(
        seed=check_whole("seed", seed, *LIMITS["seed"]),
        model=check_choice("model", model, MODELS),
        label=check_label(label),
        samplers=tuple(sorted(chosen, key=list(THEORY).index)),
        grid=check_choice("grid", grid, tuple(GRIDS)),
        evaluations=tuple(
            sorted({check_whole("evaluations", count, 1, LARGEST) for count in counts})
        ),
    )
    if (whole := sum(request.evaluations) * len(request.samplers)) > WHOLE:
        raise Refused("race.whole", value=whole, limit=WHOLE)
    return request


def run(
    model: PixelDiffusion, request: Request, known: bool = False
) -> Generator[int | Tensor | Result | None]:
    """Evaluations of the reference that are done, the reference, then results as they come.

    None comes after every step of a sampler: a place to stop.

    Args:
        model: The denoiser.
        request: Checked.
        known: Whether the reference is, so that it need not be made.
    """
    cond = model.condition([request.label])
    denoiser, grid = Clipped(model.denoiser), GRIDS[request.grid]
    rngs = [torch.Generator().manual_seed(request.seed)]
    shape, device = (3, model.size, model.size), cond["label"].device
    x = noise(rngs, shape, device=device) * denoiser.schedule.level(1.0).sigma
    if not known:
        for state in DPMPP2M(grid=grid).trajectory(denoiser, x, REFERENCE, cond):
            if state.step % 20 == 0:
                yield state.step
        yield state.x.cpu()
    made: dict[tuple[str, int], Result] = {}
    for count in request.evaluations:
        for name in request.samplers:
            sampler = replace(SAMPLERS[name], grid=grid)
            steps = (count + 1) // 2 if isinstance(sampler, Heun) else count  # 2n − 1 evaluations
            if (name, steps) not in made:
                seconds, begun = 0.0, time.perf_counter()
                for state in sampler.trajectory(denoiser, x, steps, cond):
                    picture = state.x.cpu()  # waits for the device
                    seconds += time.perf_counter() - begun
                    yield None
                    begun = time.perf_counter()
                made[name, steps] = Result(name, count, state.nfe, seconds, picture)
            yield replace(made[name, steps], evaluations=count)


def order(points: Sequence[tuple[int, float]]) -> float:
    """−slope of ln e over ln n for n ≥ 10, by least squares; NaN for less than three points."""
    large = [(n, e) for n, e in points if n >= LARGE and e > FLOOR]
    if len(large) < 3:
        return math.nan
    n, e = np.log(np.array(large)).T
    return -float(np.polyfit(n, e, 1)[0])


def _several(name: str, values: Any, most: int) -> list[Any]:
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= most:
        raise Refused("race.list", name=argument(name), value=shown(values), most=most)
    return list(values)
