"""Grids: which times a sampler visits.

A grid of n steps is n + 1 falling times  start = t_0 > t_1 > … > t_n = stop. The denoiser is
evaluated at t_0 … t_(n−1); the last step, to t_n = 0, lands on clean data.

    Uniform     equal steps in t
    Trailing    equal steps of a discrete chain, counted back from its last step
    Karras      equal steps in ρ^(1/7), ρ = σ/α: many at low noise

Times are float64 on the CPU, so that no step is lost to rounding and no device is waited for.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from genkit.diffusion.schedule import Schedule

__all__ = ["Grid", "Karras", "Trailing", "Uniform"]


class Grid(ABC):
    """The times of a sampler. Subclasses are frozen dataclasses of scalars."""

    def __call__(
        self, schedule: Schedule, steps: int, start: float = 1.0, stop: float = 0.0
    ) -> Float[Tensor, "n"]:
        """steps + 1 falling times from `start` to `stop`, float64 on the CPU.

        Raises:
            ValueError: There is no step, the interval is not in [0, 1], or it is too short.
        """
        if steps < 1:
            raise ValueError(f"steps is {steps}; a sampler needs at least 1")
        if not 0 <= stop < start <= 1:
            raise ValueError(f"times from {start} to {stop}: give 1 ≥ start > stop ≥ 0")
        times = self.inner(schedule, steps, start, stop)
        times[0], times[-1] = start, stop  # to the last bit, whatever the rounding between
        if bool((times.diff() >= 0).any()):
            raise ValueError(
                f"{steps} steps from {start} to {stop} do not fit {self}; take fewer steps"
            )
        return times

    @abstractmethod
    def inner(
        self, schedule: Schedule, steps: int, start: float, stop: float
    ) -> Float[Tensor, "n"]:
        """steps + 1 times; the first and the last are replaced by `start` and `stop`."""


@dataclass(frozen=True)
class Uniform(Grid):
    """Equal steps in t."""

    def inner(
        self, schedule: Schedule, steps: int, start: float, stop: float
    ) -> Float[Tensor, "n"]:
        return torch.linspace(start, stop, steps + 1, dtype=torch.float64, device="cpu")


@dataclass(frozen=True)
class Trailing(Grid):
    """Every (T/n)-th step of a chain of T, counted back from the last: 999, 949, …, 49 for n = 20.

    t_i = start − (start − stop + 1/(T − 1)) i/n:  the uniform grid whose end lies one step of the
    chain beyond `stop`, because the paper's clean ᾱ_0 comes one step before ᾱ_1. Where n does not
    divide T the times fall between two steps of the chain.

    Args:
        T: Number of steps of the chain.

    References:
        Common Diffusion Noise Schedules and Sample Steps are Flawed
            (Lin et al., 2024), section 3.3
            https://arxiv.org/abs/2305.08891
    """

    T: int = 1000

    def __post_init__(self) -> None:
        if self.T < 2:
            raise ValueError(f"T is {self.T}; a chain needs at least 2 steps")

    def inner(
        self, schedule: Schedule, steps: int, start: float, stop: float
    ) -> Float[Tensor, "n"]:
        end = stop - 1 / (self.T - 1)
        return torch.linspace(start, end, steps + 1, dtype=torch.float64, device="cpu")


@dataclass(frozen=True)
class Karras(Grid):
    """EDM's times: equal steps in (σ/α)^(1/rho).

    r_i = (r_max^(1/rho) + i/(n − 1) (r_min^(1/rho) − r_max^(1/rho)))^rho,   i = 0 … n − 1,
    and then t_n = stop.  r_max and r_min are the ratios at `start` and at `stop`, but within
    [low, high] as in EDM, since a ratio of 0 (or ∞) has no place on the scale.

    Args:
        rho: Exponent, > 0; larger means more steps at low noise.
        low: Smallest ratio σ/α at which the denoiser is evaluated, > 0.
        high: Largest ratio σ/α of the second and later times.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models
            (Karras et al., 2022), equation 5
            https://arxiv.org/abs/2206.00364
    """

    rho: float = 7.0
    low: float = 0.02
    high: float = 80.0

    def __post_init__(self) -> None:
        if not self.rho > 0:
            raise ValueError(f"rho is {self.rho}; it must be positive (7 as published)")
        if not 0 < self.low < self.high:
            raise ValueError(f"ratios from {self.low} to {self.high}: give 0 < low < high")

    def inner(
        self, schedule: Schedule, steps: int, start: float, stop: float
    ) -> Float[Tensor, "n"]:
        ends = torch.tensor([start, stop], dtype=torch.float64, device="cpu")
        alpha, sigma = schedule(ends)
        top, bottom = (sigma / alpha).clamp(self.low, self.high) ** (1 / self.rho)
        # Stopping early, the last evaluation is before `stop`: the n intervals share the range.
        count = steps if stop == 0 else steps + 1
        i = torch.linspace(0, 1, count, dtype=torch.float64, device="cpu")
        times = schedule.time((top + i * (bottom - top)) ** self.rho)
        return times if stop > 0 else torch.cat([times, ends[1:]])
