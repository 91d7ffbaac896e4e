"""Curves: what a schedule is, before any is named.

t runs from 0 (data) to 1 (noise), in every file of genkit. A schedule is the pair of curves in

    x_t = α_t x_0 + σ_t ε,      ε ~ N(0, I)

where ρ_t = σ_t/α_t, the noise-to-signal ratio, rises with t; λ_t = −ln ρ_t is half the log-SNR.

    Discrete       has a chain of T steps with variances β_1 … β_T, its step k at (k − 1)/(T − 1)
    Interpolated   is such a chain and straight lines of ln ᾱ between its steps
    Continuous     is smooth; where steps are needed they are k/T

What is β where there is no chain?  The fresh noise of a step, for every schedule:

    β_k  = Var(x_k | x_{k−1}) = σ_k² − (α_k/α_{k−1})² σ_{k−1}²          of one discrete step
    β(t) = lim Var(x_{t+h} | x_t)/h = −σ_t² d log-SNR/dt                 its rate, per unit of t

On a chain the first is the paper's β_k, and β(t) = −d ln ᾱ/dt is the β(t) of its SDE.

Values come in the dtype and on the device of t: give float64 times for double precision.
"""

import math
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "Chain",
    "Continuous",
    "Discrete",
    "Interpolated",
    "Level",
    "Schedule",
    "knots",
    "piecewise",
    "spread",
]


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


class Chain(NamedTuple):
    """The T steps at which a network is trained, k = 1 … T, in float64 on the CPU."""

    t: Float[Tensor, "T"]
    alpha: Float[Tensor, "T"]
    sigma: Float[Tensor, "T"]
    log_snr: Float[Tensor, "T"]
    beta: Float[Tensor, "T"]


class Schedule(ABC):
    """The curves (α_t, σ_t) and the inverse of their ratio; subclasses are frozen dataclasses.

    `T` is the number of discrete steps of `chain`: a chain's own, and 1000 where t is continuous.
    """

    T: int = 1000

    @abstractmethod
    def __call__(self, t: Float[Tensor, "*B"]) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
        """(α_t, σ_t) for times in [0, 1]."""

    @abstractmethod
    def time(self, ratio: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """The t with σ_t/α_t = `ratio`, clamped to [0, 1] where no time has it."""

    @abstractmethod
    def beta(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """The rate β(t) of fresh noise per unit of t; infinite where α reaches 0."""

    @abstractmethod
    def chain(self) -> Chain:
        """t, α, σ, log-SNR and β at the T discrete steps."""

    def log_snr(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """ln(α_t²/σ_t²) = 2 λ_t; infinite where σ or α is 0."""
        alpha, sigma = self(t)
        return 2 * (alpha.log() - sigma.log())

    def time_of_log_snr(self, log_snr: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """The inverse of `log_snr`, clamped to [0, 1] where no time has it."""
        return self.time((-log_snr / 2).exp())

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
    """A chain of T variances, its step k at t = (k − 1)/(T − 1)."""

    @abstractmethod
    def betas(self) -> Float[Tensor, "T"]:
        """β_1 … β_T in float64 on the CPU."""

    def chain(self) -> Chain:
        t = torch.arange(self.T, dtype=torch.float64, device="cpu") / (self.T - 1)
        return Chain(t, *self(t), self.log_snr(t), self.betas())


class Interpolated(Discrete):
    """A chain made continuous by linear interpolation of ln ᾱ."""

    def __call__(self, t: Float[Tensor, "*B"]) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
        times, logs = knots(self)
        log = piecewise(t, times, logs)  # ln ᾱ_t
        return (0.5 * log).exp(), (-log.expm1()).sqrt()

    def time(self, ratio: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        times, logs = knots(self)
        # ᾱ = 1/(1 + ρ²);  the minus signs make the first column increase, as the search needs.
        return piecewise(ratio.square().log1p(), -logs, times)

    def beta(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """−d ln ᾱ/dt = −(T − 1) ln(1 − β_k) on the interval that ends at step k."""
        times, logs = knots(self)
        right = torch.searchsorted(times.to(t), t.contiguous()).clamp(1, len(times) - 1)
        return (-logs.diff() * (len(times) - 1)).to(t)[right - 1]


class Continuous(Schedule):
    """Smooth curves; where a network knows T steps only, they are t = k/T, k = 1 … T."""

    def chain(self) -> Chain:
        t = torch.arange(1, self.T + 1, dtype=torch.float64, device="cpu") / self.T
        alpha, sigma = self(t)
        # The step before the first is clean data, (α, σ) = (1, 0).
        kept = alpha / torch.cat([alpha.new_ones(1), alpha[:-1]])
        kept = kept * torch.cat([sigma.new_zeros(1), sigma[:-1]])
        return Chain(t, alpha, sigma, self.log_snr(t), sigma.square() - kept.square())


def spread(c: Float[Tensor, "B"], x: Float[Tensor, "B *D"]) -> Float[Tensor, "B ..."]:
    """One coefficient per picture, in the dtype, on the device and with the rank of `x`."""
    return c.to(x).reshape(-1, *(1,) * (x.ndim - 1))


def piecewise(
    x: Float[Tensor, "*B"], xs: Float[Tensor, "n"], ys: Float[Tensor, "n"]
) -> Float[Tensor, "*B"]:
    """Piecewise linear y(x) through increasing knots, exact at them, constant beyond the ends."""
    xs, ys = xs.to(x), ys.to(x)
    right = torch.searchsorted(xs, x.contiguous()).clamp(1, len(xs) - 1)
    left = right - 1
    w = ((x - xs[left]) / (xs[right] - xs[left])).clamp(0, 1)
    # Both weights, not a lerp of the difference: w = 1 must return ys[right] to the last bit.
    return (1 - w) * ys[left] + w * ys[right]


@lru_cache(maxsize=32)
def knots(schedule: Interpolated) -> tuple[Tensor, Tensor]:
    """(times, ln ᾱ) of a chain's steps, float64, on the CPU whatever the default device is.

    Raises:
        ValueError: ln ᾱ does not fall at every step.
    """
    betas = schedule.betas()
    times = torch.arange(len(betas), dtype=torch.float64, device="cpu") / (len(betas) - 1)
    logs = torch.log1p(-betas).cumsum(0)
    if not bool((logs.diff() < 0).all()):
        raise ValueError(
            f"this {type(schedule).__name__} adds no noise at some step in double precision; "
            "every beta must count beside the sum of those before it"
        )
    return times, logs
