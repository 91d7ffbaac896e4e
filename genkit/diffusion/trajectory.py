"""Trajectories: the one loop from noise to data that all samplers share.

A sampler is a pure step from (x_t, t) to an earlier s < t; `Sampler.trajectory` takes the steps
that its grid names and yields the state after each. The samplers themselves are in `sample`
(those that forget) and `multistep` (those that remember).

What remains of earlier steps is `Past`: the estimates x̂_0 of the denoiser, newest first, with the
times and, where a method asks for them, the states. It comes into a step and goes out of it, so
that any number of trajectories may share a sampler.

Conventions
    A step to s = 0 lands on data, (α_s, σ_s) = (1, 0), whatever the schedule has at t = 0; every
    sampler then returns x̂_0.
    Noise is drawn from one CPU generator per picture, in float32: a picture depends on its seed,
    not on its batch, dtype or device.
    Times and coefficients are float64 on the CPU; the state keeps its dtype and device.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from genkit.diffusion.denoise import NOTHING, Condition, Denoises
from genkit.diffusion.grid import Grid, Uniform
from genkit.diffusion.schedule import Level, Schedule
from genkit.distributions import Distribution

__all__ = [
    "Counted",
    "Estimate",
    "Past",
    "Rngs",
    "Sampler",
    "State",
    "levels",
    "noise",
    "predict",
    "stir",
    "transfer",
]


class Estimate(NamedTuple):
    """What the denoiser said at time t.

    Args:
        t: The time.
        x0: The mean x̂_0 of its answer.
        x: The state x_t from which the step went on, for the methods that look back at it; it is
            what was asked about, or the correction of that.
    """

    t: float
    x0: Tensor
    x: Tensor | None = None


Past = tuple[Estimate, ...]
"""The estimates that a step leaves for the next one, newest first."""

Rngs = Sequence[Generator] | None
"""One CPU generator per picture; None where a sampler draws nothing."""


@dataclass(frozen=True, eq=False)
class State:
    """Where a trajectory is after a step.

    Args:
        step: Number of steps done, 1 … steps.
        steps: Number of steps in all.
        t: The time of `x`.
        x: The state at t; data when t = 0.
        x0: The estimate x̂_0 that the step used, for previews.
        nfe: Forward passes of the network per picture so far (a guided one counts as two).
    """

    step: int
    steps: int
    t: float
    x: Float[Tensor, "B C H W"]
    x0: Float[Tensor, "B C H W"]
    nfe: int


@dataclass(frozen=True, kw_only=True)
class Sampler(ABC):
    """A way to step from noise to data.

    Args:
        grid: The times.
    """

    grid: Grid = Uniform()

    @abstractmethod
    def step(
        self,
        denoiser: Denoises,
        x: Float[Tensor, "B C H W"],
        t: float,
        s: float,
        past: Past,
        cond: Condition = NOTHING,
        rngs: Rngs = None,
    ) -> tuple[Float[Tensor, "B C H W"], Past]:
        """(x_s, past) from x_t and s < t; the newest estimate of the returned past is x̂_0(x_t).

        Args:
            past: What the previous step returned, () at the first.
        """

    def ending(self, left: int) -> "Sampler":
        """The sampler for a step after which `left` − 1 remain to clean data: itself.

        Near data x̂_0 turns fast on the scale of the steps; methods of high order then become
        methods of order `left` at most, where that is how they are published.
        """
        return self

    def trajectory(
        self,
        denoiser: Denoises,
        x: Float[Tensor, "B C H W"],
        steps: int,
        cond: Condition = NOTHING,
        rngs: Rngs = None,
        start: float = 1.0,
        stop: float = 0.0,
    ) -> Iterator[State]:
        """Step `x` from time `start` to time `stop`, yielding the state after every step.

        Args:
            x: The state at `start`: from start = 1, `noise(rngs, shape)` times σ_1; from an
                earlier one, a picture with noise, `schedule.diffuse(x0, t, noise)`.
            rngs: One generator per picture, for samplers that draw noise.

        Raises:
            ValueError: Bad steps or times, or the wrong number of generators.
        """
        if rngs is not None and len(rngs) != len(x):
            raise ValueError(f"{len(rngs)} generators for {len(x)} pictures; give one each")
        counted, past = Counted(denoiser), ()
        times = self.grid(denoiser.schedule, steps, start, stop).tolist()
        for i in range(steps):
            sampler = self if stop > 0 else self.ending(steps - i)
            with torch.no_grad():
                x, past = sampler.step(counted, x, times[i], times[i + 1], past, cond, rngs)
            yield State(i + 1, steps, times[i + 1], x, past[0].x0, counted.nfe)

    def __call__(
        self,
        denoiser: Denoises,
        x: Float[Tensor, "B C H W"],
        steps: int,
        cond: Condition = NOTHING,
        rngs: Rngs = None,
    ) -> Float[Tensor, "B C H W"]:
        """The data at the end of `trajectory`."""
        for state in self.trajectory(denoiser, x, steps, cond, rngs):
            x = state.x
        return x


def noise(
    rngs: Sequence[Generator],
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "B ..."]:
    """One standard Gaussian draw per generator, stacked: "B" + `shape`.

    Args:
        rngs: One CPU generator per picture; each advances as if it were alone.
        shape: Of one picture, without the batch.

    Raises:
        ValueError: There is no generator.
    """
    if not rngs:
        raise ValueError("noise needs at least one generator, one per picture")
    draws = [torch.randn(tuple(shape), generator=rng, dtype=torch.float32) for rng in rngs]
    return torch.stack(draws).to(device, dtype)


# The parts of which steps are made


def predict(
    denoiser: Denoises, x: Float[Tensor, "B C H W"], t: float, cond: Condition
) -> Float[Tensor, "B C H W"]:
    """x̂_0, the mean of the denoiser at (x_t, t)."""
    return denoiser(x, torch.full((len(x),), t, dtype=torch.float64, device="cpu"), cond).mean


def levels(schedule: Schedule, t: float, s: float) -> tuple[Level, Level]:
    """The levels at t and at s; a step to s = 0 lands on clean data."""
    return schedule.level(t), schedule.level(s) if s > 0 else Level(1.0, 0.0)


def transfer(x: Tensor, x0: Tensor, at: Level, to: Level) -> Tensor:
    """α_s x̂_0 + σ_s ε̂ without the division by σ_t inside ε̂: the step of first order."""
    keep = to.sigma / at.sigma
    return keep * x + (to.alpha - keep * at.alpha) * x0


def stir(x: Float[Tensor, "B C H W"], scale: float, rngs: Rngs) -> Float[Tensor, "B C H W"]:
    """x + scale·z with fresh z; nothing is drawn for scale 0.

    Raises:
        ValueError: There is noise to draw and no generator.
    """
    if scale == 0:
        return x
    if rngs is None:
        raise ValueError("this sampler draws noise: pass rngs, one torch.Generator per picture")
    return x + scale * noise(rngs, x.shape[1:], x.dtype, x.device)


class Counted:
    """A denoiser that counts its forward passes, for the length of one trajectory."""

    def __init__(self, denoiser: Denoises) -> None:
        self.denoiser, self.nfe = denoiser, 0
        self.schedule, self.passes = denoiser.schedule, denoiser.passes

    def __call__(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Distribution:
        self.nfe += self.denoiser.passes
        return self.denoiser(x_t, t, cond)
