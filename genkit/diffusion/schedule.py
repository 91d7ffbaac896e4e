"""Schedules: how much data and how much noise there is at a time.

t runs from 0 (data) to 1 (noise), in every file of genkit. A schedule is the pair of curves in

    x_t = α_t x_0 + σ_t ε,      ε ~ N(0, I)

where ρ_t = σ_t/α_t, the noise-to-signal ratio, rises with t; λ_t = −ln ρ_t is half the log-SNR.

Two kinds:

    Discrete     a published chain of variances β_1 … β_T,  ᾱ_k = Π_{i ≤ k} (1 − β_i),
                 α = √ᾱ,  σ = √(1 − ᾱ)
    Rectified    straight lines,  α = 1 − u,  σ = u

Discrete schedules are sampled exactly: t = (k − 1)/(T − 1) gives the paper's ᾱ_k for k = 1 … T,
so a network trained on the chain and one trained here are interchangeable. Between two steps
ln ᾱ is interpolated linearly in t.

What is at t = 0?  The first step of the chain, not clean data: α_0 = √(1 − β_1) and σ_0 = √β_1
(0.01 for β_1 = 1e-4, about one grey level). The paper's clean ᾱ_0 = 1 has no t of its own: a
sampler's last step, the step to t = 0, lands on (α, σ) = (1, 0) exactly (see `sample`).
A rectified schedule has (1, 0) at t = 0 and (0, 1) at t = 1.

Values come in the dtype and on the device of t: give float64 times for double precision.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Cosine", "Discrete", "Level", "LinearBeta", "Rectified", "Schedule", "spread"]


class Level(NamedTuple):
    """Signal and noise at one time, as numbers."""

    alpha: float
    sigma: float

    def variance(self, earlier: "Level") -> float:
        """Var(x_t | x_s) = σ_t² − (α_t/α_s)² σ_s² of this t and an earlier s, ≥ 0."""
        kept = self.alpha / earlier.alpha * earlier.sigma
        return max(self.sigma**2 - kept**2, 0.0)

    def rise(self, earlier: "Level") -> float:
        """h = λ_s − λ_t > 0 from this t to an earlier s; infinite from α_t = 0."""
        if self.alpha == 0:
            return math.inf
        return math.log(earlier.alpha * self.sigma / (self.alpha * earlier.sigma))


class Schedule(ABC):
    """The curves (α_t, σ_t) and the inverse of their ratio; subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(self, t: Float[Tensor, "*B"]) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
        """(α_t, σ_t) for times in [0, 1]."""

    @abstractmethod
    def time(self, ratio: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """The t with σ_t/α_t = `ratio`, clamped to [0, 1] where no time has it."""

    def level(self, t: float) -> Level:
        """(α_t, σ_t) at one time, in double precision."""
        alpha, sigma = self(torch.tensor(t, dtype=torch.float64, device="cpu"))
        return Level(alpha.item(), sigma.item())

    def diffuse(
        self, x0: Float[Tensor, "B *D"], t: Float[Tensor, "B"], noise: Float[Tensor, "B *D"]
    ) -> Float[Tensor, "B *D"]:
        """x_t = α_t x_0 + σ_t ε, in the dtype of `x0`."""
        alpha, sigma = self(t)
        return spread(alpha, x0) * x0 + spread(sigma, x0) * noise


class Discrete(Schedule):
    """A chain of T variances, made continuous by linear interpolation of ln ᾱ."""

    @abstractmethod
    def betas(self) -> Float[Tensor, "T"]:
        """β_1 … β_T in float64 on the CPU."""

    def __call__(self, t: Float[Tensor, "*B"]) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
        knots, logs = _chain(self)
        log = _interpolate(t, knots, logs)  # ln ᾱ_t
        return (0.5 * log).exp(), (-log.expm1()).sqrt()

    def time(self, ratio: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        knots, logs = _chain(self)
        # ᾱ = 1/(1 + ρ²);  the minus signs make the first column increase, as the search needs.
        return _interpolate(ratio.square().log1p(), -logs, knots)


@dataclass(frozen=True)
class LinearBeta(Discrete):
    """DDPM's schedule, "β-linear": β_k rises linearly from β_1 to β_T.

    Args:
        beta_start: β_1, in (0, 1).
        beta_end: β_T, in (0, 1).
        T: Number of steps of the chain, at least 2.

    Raises:
        ValueError: A β is outside (0, 1) or T is below 2.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020)
            https://arxiv.org/abs/2006.11239
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02
    T: int = 1000

    def __post_init__(self) -> None:
        _check_length(self.T)
        for beta in (self.beta_start, self.beta_end):
            if not 0 < beta < 1:
                raise ValueError(f"beta is {beta}; a variance of the chain must lie in (0, 1)")

    def betas(self) -> Float[Tensor, "T"]:
        return torch.linspace(
            self.beta_start, self.beta_end, self.T, dtype=torch.float64, device="cpu"
        )


@dataclass(frozen=True)
class Cosine(Discrete):
    """Improved DDPM's schedule, "cosine".

    f(k) = cos²((k/T + s)/(1 + s) · π/2),      β_k = min(1 − f(k)/f(k − 1), clip)

    Args:
        s: Offset that keeps β_1 from vanishing, ≥ 0.
        clip: Largest β, in (0, 1); it acts on the last step only, where f(T) = 0.
        T: Number of steps of the chain, at least 2.

    Raises:
        ValueError: An argument is out of its range.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), equation 17
            https://arxiv.org/abs/2102.09672
    """

    s: float = 0.008
    clip: float = 0.999
    T: int = 1000

    def __post_init__(self) -> None:
        _check_length(self.T)
        if not 0 <= self.s < math.inf:
            raise ValueError(f"s is {self.s}; the offset must be at least 0 and finite")
        if not 0 < self.clip < 1:
            raise ValueError(f"clip is {self.clip}; the largest beta must lie in (0, 1)")

    def betas(self) -> Float[Tensor, "T"]:
        k = torch.arange(self.T + 1, dtype=torch.float64, device="cpu")
        f = ((k / self.T + self.s) / (1 + self.s) * (math.pi / 2)).cos().square()
        return (1 - f[1:] / f[:-1]).clamp(max=self.clip)


@dataclass(frozen=True)
class Rectified(Schedule):
    """Rectified flow, the straight path between data and noise.

    α_t = 1 − u,   σ_t = u,   u = m t / (1 + (m − 1) t)      with the shift m

    Args:
        shift: m > 0; above 1 it spends more of the time on high noise, as large pictures need
            (SD3 uses 3 at 1024²).

    Raises:
        ValueError: The shift is not positive and finite.

    References:
        Flow Straight and Fast (Liu et al., 2022)
            https://arxiv.org/abs/2209.03003
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis
            (Esser et al., 2024), section 5.3.2
            https://arxiv.org/abs/2403.03206
    """

    shift: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise ValueError(f"shift is {self.shift}; it must be positive and finite (1 = none)")

    def __call__(self, t: Float[Tensor, "*B"]) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
        # α as its own quotient: 1 − u would lose digits near t = 1.
        scale = 1 + (self.shift - 1) * t
        return (1 - t) / scale, self.shift * t / scale

    def time(self, ratio: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        # ρ = m t/(1 − t)  ⇔  t = 1/(1 + m/ρ);  this form is right at ρ = 0 and at ρ = ∞.
        return 1 / (1 + self.shift / ratio)


def spread(c: Float[Tensor, "B"], x: Float[Tensor, "B *D"]) -> Float[Tensor, "B ..."]:
    """One coefficient per picture, in the dtype, on the device and with the rank of `x`."""
    return c.to(x).reshape(-1, *(1,) * (x.ndim - 1))


def _check_length(T: int) -> None:
    if T < 2:
        raise ValueError(f"T is {T}; a chain needs at least 2 steps")


@lru_cache(maxsize=32)
def _chain(schedule: Discrete) -> tuple[Tensor, Tensor]:
    """(times k/(T − 1), ln ᾱ) of a chain, float64, on the CPU whatever the default device is."""
    betas = schedule.betas()
    knots = torch.arange(len(betas), dtype=torch.float64, device="cpu") / (len(betas) - 1)
    return knots, torch.log1p(-betas).cumsum(0)


def _interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Piecewise linear y(x) through increasing knots, exact at them, constant beyond the ends."""
    xs, ys = xs.to(x), ys.to(x)
    right = torch.searchsorted(xs, x.contiguous()).clamp(1, len(xs) - 1)
    left = right - 1
    w = ((x - xs[left]) / (xs[right] - xs[left])).clamp(0, 1)
    # Both weights, not a lerp of the difference: w = 1 must return ys[right] to the last bit.
    return (1 - w) * ys[left] + w * ys[right]
