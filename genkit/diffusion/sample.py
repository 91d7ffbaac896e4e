"""Samplers: from noise to data, one pure step at a time.

With x̂_0 the mean of the denoiser at (x_t, t) and ε̂ = (x_t − α_t x̂_0)/σ_t, a step goes from t to
an earlier s < t:

    DDPM      x_s ~ q(x_s | x_t, x_0 = x̂_0), ancestral, small variance              order 1, random
    DDIM(η)   α_s x̂_0 + √(σ_s² − τ²) ε̂ + τ z,  τ = η·std of the above                order 1
    Euler     of the probability-flow ODE                                             order 1
    Heun      the same with the trapezoidal rule, two evaluations a step              order 2
    DPMPP2M   the exponential integrator in λ that reuses the previous x̂_0           order 2

Conventions
    `step` is pure: what it needs of earlier steps comes in as `past` and goes out as the new one;
    a sampler holds nothing but its settings, so any number of trajectories may share it.
    All use the one loop `trajectory`, a generator: previews, progress and Stop cost nothing.
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
    "DDIM",
    "DDPM",
    "DPMPP2M",
    "Estimate",
    "Euler",
    "Heun",
    "Past",
    "Sampler",
    "State",
    "noise",
]


class Estimate(NamedTuple):
    """What the denoiser said at time t."""

    t: float
    x0: Tensor


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
        counted, past = _Counted(denoiser), ()
        times = self.grid(denoiser.schedule, steps, start, stop).tolist()
        for i in range(steps):
            with torch.no_grad():
                x, past = self.step(counted, x, times[i], times[i + 1], past, cond, rngs)
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


@dataclass(frozen=True, kw_only=True)
class DDPM(Sampler):
    """Ancestral sampling with the posterior of the forward chain and its fixed small variance.

    x_s = (a σ_s²/σ_t²) x_t + (α_s v/σ_t²) x̂_0 + (σ_s √v/σ_t) z

    with a = α_t/α_s and v = σ_t² − a² σ_s², the variance of x_t given x_s.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), equations 6 and 7
            https://arxiv.org/abs/2006.11239
    """

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
        x0 = _estimate(denoiser, x, t, cond)
        at, to = _levels(denoiser.schedule, t, s)
        v = at.variance(to)
        keep = at.alpha / to.alpha * (to.sigma / at.sigma) ** 2
        x = keep * x + to.alpha * v / at.sigma**2 * x0
        return _stir(x, to.sigma / at.sigma * v**0.5, rngs), (Estimate(t, x0),)


@dataclass(frozen=True, kw_only=True)
class DDIM(Sampler):
    """The implicit sampler: η = 0 is deterministic, η = 1 is DDPM.

    x_s = α_s x̂_0 + √(σ_s² − τ²) ε̂ + τ z,      τ = η (σ_s/σ_t) √(σ_t² − (α_t/α_s)² σ_s²)

    Args:
        eta: η in [0, 1], how much of the noise is drawn anew.

    Raises:
        ValueError: η is outside [0, 1].

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), equations 12 and 16
            https://arxiv.org/abs/2010.02502
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}; it must lie between 0 (no noise) and 1 (DDPM)")

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
        x0 = _estimate(denoiser, x, t, cond)
        at, to = _levels(denoiser.schedule, t, s)
        tau = self.eta * to.sigma / at.sigma * at.variance(to) ** 0.5
        keep = max(to.sigma**2 - tau**2, 0.0) ** 0.5 / at.sigma  # of x_t, inside ε̂
        x = keep * x + (to.alpha - keep * at.alpha) * x0
        return _stir(x, tau, rngs), (Estimate(t, x0),)


@dataclass(frozen=True, kw_only=True)
class Euler(Sampler):
    """Euler's rule for the probability-flow ODE.

    With y = x/α and ρ = σ/α the ODE is dy/dρ = ε̂ (Karras et al.), with z = x/(α + σ) and
    u = σ/(α + σ) it is dz/du = ε̂ − x̂_0 (rectified flow). A step of either is the same map,

    x_s = α_s x̂_0 + σ_s ε̂,

    which is DDIM with η = 0 on every schedule, and is finite at α = 0.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
            https://arxiv.org/abs/2206.00364
    """

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
        x0 = _estimate(denoiser, x, t, cond)
        at, to = _levels(denoiser.schedule, t, s)
        return _flow(x, x0, at, to), (Estimate(t, x0),)


@dataclass(frozen=True, kw_only=True)
class Heun(Sampler):
    """The trapezoidal rule for the probability-flow ODE in the coordinates of rectified flow.

    z = x/(α + σ),  u = σ/(α + σ),  dz/du = d(z, u) = ε̂ − x̂_0

    z' = z_t + (u_s − u_t) d(z_t, u_t),      z_s = z_t + (u_s − u_t) (d(z_t, u_t) + d(z', u_s))/2

    Karras et al. take σ/α for u: both are of second order, but u is bounded and stays finite where
    α = 0, where σ/α makes the first steps of a cosine schedule explode. The correction is skipped
    at σ_s = 0, where d is not defined; so n steps to t = 0 cost 2n − 1 evaluations.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models
            (Karras et al., 2022), algorithm 1
            https://arxiv.org/abs/2206.00364
    """

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
        x0 = _estimate(denoiser, x, t, cond)
        at, to = _levels(denoiser.schedule, t, s)
        ahead = _flow(x, x0, at, to)
        if to.sigma == 0:
            return ahead, (Estimate(t, x0),)
        size_t, size_s = at.alpha + at.sigma, to.alpha + to.sigma
        # ε̂ − x̂_0 = (z − x̂_0)/u
        slope = (x / size_t - x0) * (size_t / at.sigma)
        slope_ahead = (ahead / size_s - _estimate(denoiser, ahead, s, cond)) * (size_s / to.sigma)
        du = to.sigma / size_s - at.sigma / size_t
        z = x / size_t + du / 2 * (slope + slope_ahead)
        return size_s * z, (Estimate(t, x0),)


@dataclass(frozen=True, kw_only=True)
class DPMPP2M(Sampler):
    """DPM-Solver++(2M): one evaluation a step, second order from the previous estimate.

    x_s = (σ_s/σ_t) x_t − α_s (e^(−h) − 1) D,      h = λ_s − λ_t,  λ = ln(α/σ)
    D   = x̂_0(t) + (h/2h') (x̂_0(t) − x̂_0(t')),      h' = λ_t − λ_t',  t' the time before t

    The first step has no previous estimate, and the step to σ_s = 0 has h = ∞: both are of first
    order, D = x̂_0(t).

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models
            (Lu et al., 2022), algorithm 2
            https://arxiv.org/abs/2211.01095
    """

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
        x0 = _estimate(denoiser, x, t, cond)
        at, to = _levels(denoiser.schedule, t, s)
        slope = x0
        if past and to.sigma > 0:
            before = denoiser.schedule.level(past[0].t)
            r = before.rise(at) / at.rise(to)  # h'/h, ∞ after a start at α = 0
            slope = x0 + (x0 - past[0].x0) / (2 * r)
        # −α_s (e^(−h) − 1) = α_s − α_t σ_s/σ_t, which needs no λ
        return _flow(x, slope, at, to), (Estimate(t, x0),)


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


class _Counted:
    """A denoiser that counts its forward passes, for the length of one trajectory."""

    def __init__(self, denoiser: Denoises) -> None:
        self.denoiser, self.nfe = denoiser, 0
        self.schedule, self.passes = denoiser.schedule, denoiser.passes

    def __call__(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Distribution:
        self.nfe += self.denoiser.passes
        return self.denoiser(x_t, t, cond)


def _estimate(
    denoiser: Denoises, x: Float[Tensor, "B C H W"], t: float, cond: Condition
) -> Float[Tensor, "B C H W"]:
    return denoiser(x, torch.full((len(x),), t, dtype=torch.float64, device="cpu"), cond).mean


def _levels(schedule: Schedule, t: float, s: float) -> tuple[Level, Level]:
    """The levels at t and at s; a step to s = 0 lands on clean data."""
    return schedule.level(t), schedule.level(s) if s > 0 else Level(1.0, 0.0)


def _flow(x: Tensor, x0: Tensor, at: Level, to: Level) -> Tensor:
    """α_s x̂_0 + σ_s ε̂ without the division by σ_t inside ε̂."""
    keep = to.sigma / at.sigma
    return keep * x + (to.alpha - keep * at.alpha) * x0


def _stir(x: Float[Tensor, "B C H W"], scale: float, rngs: Rngs) -> Float[Tensor, "B C H W"]:
    """x + scale·z with fresh z; nothing is drawn for scale 0."""
    if scale == 0:
        return x
    if rngs is None:
        raise ValueError("this sampler draws noise: pass rngs, one torch.Generator per picture")
    return x + scale * noise(rngs, x.shape[1:], x.dtype, x.device)
