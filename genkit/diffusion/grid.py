"""Grids: which times a sampler visits.

A grid of n steps is n + 1 falling times t_0 > t_1 > … > t_n from `start` to `stop`. The denoiser
is evaluated at t_0 … t_(n−1); the last step, to t_n = 0, lands on clean data.

    Uniform         equal steps in t
    Trailing        equal steps of a discrete chain, counted back from its last step
    Leading         the same, counted up from its first step (DDIM as published)
    Karras          equal steps in ρ^(1/7), ρ = σ/α: many at low noise
    Exponential     equal steps in ln ρ from the largest to the smallest ratio
    LogSNR          the same, but the smallest ratio is not evaluated: it is the end
    AlignYourSteps  a table of ratios optimised for one model, interpolated for other n

t_0 is `start` for all but Leading, whose published first step lies below the last of the chain.

The first step of a chain is a noise level of its own, at t = 0 (see `schedule`). A grid that
evaluates it, and then goes on to clean data, does so at t = 1e-15, where the level is the same.

Times are float64 on the CPU, so that no step is lost to rounding and no device is waited for.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from genkit.diffusion.curve import Discrete, Schedule, piecewise

__all__ = [
    "AYS_SD15",
    "AYS_SDXL",
    "AYS_SVD",
    "AlignYourSteps",
    "Exponential",
    "Grid",
    "Karras",
    "Leading",
    "LogSNR",
    "Trailing",
    "Uniform",
]

ABOVE_ZERO = 1e-15


class Grid(ABC):
    """The times of a sampler. Subclasses are frozen dataclasses of scalars and tuples."""

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
        times[-1] = stop  # to the last bit, whatever the rounding before
        if bool((times.diff() >= 0).any()) or times[0] > start:
            raise ValueError(
                f"{steps} steps from {start} to {stop} do not fit {self}; take fewer steps"
            )
        return times

    @abstractmethod
    def inner(
        self, schedule: Schedule, steps: int, start: float, stop: float
    ) -> Float[Tensor, "n"]:
        """steps + 1 times; the last is replaced by `stop`."""


@dataclass(frozen=True)
class Uniform(Grid):
    """Equal steps in t."""

    def inner(
        self, schedule: Schedule, steps: int, start: float, stop: float
    ) -> Float[Tensor, "n"]:
        return _line(start, stop, steps + 1)


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
        return _line(start, stop - 1 / (self.T - 1), steps + 1)


@dataclass(frozen=True)
class Leading(Grid):
    """Every ⌊T/n⌋-th step of a chain of T, counted up from the first: 950, 900, …, 0 for n = 20.

    The spacing of DDIM and, with offset 1, of Stable Diffusion. Its flaw is published too: the
    first step takes pure noise for the state at t_0 < 1, which still holds some data. A picture
    noised to an earlier start is taken at its own level, t_0 = start.

    Args:
        offset: Steps of the chain added to every time, ≥ 0.

    Raises:
        ValueError: The offset is negative, the schedule has no chain, or `stop` is not 0.

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), appendix D.2
            https://arxiv.org/abs/2010.02502
        Common Diffusion Noise Schedules and Sample Steps are Flawed
            (Lin et al., 2024), table 2
            https://arxiv.org/abs/2305.08891
    """

    offset: int = 0

    def __post_init__(self) -> None:
        if self.offset < 0:
            raise ValueError(f"offset is {self.offset}; it counts steps of the chain, at least 0")

    def inner(
        self, schedule: Schedule, steps: int, start: float, stop: float
    ) -> Float[Tensor, "n"]:
        if not isinstance(schedule, Discrete):
            raise ValueError(
                f"Leading counts the steps of a chain, {schedule} has none; "
                "take Trailing or Uniform"
            )
        if stop > 0:
            raise ValueError(f"Leading goes on to clean data, not to t = {stop}; take Uniform")
        last = schedule.T - 1
        # 1e-9 of a step: (k/last)·last may round to just below k.
        stride = math.floor(start * last + 1 + 1e-9) // steps
        i = torch.arange(steps - 1, -1, -1, dtype=torch.float64, device="cpu")
        times = ((i * stride + self.offset) / last).clamp(min=ABOVE_ZERO)
        if start < 1:
            times[0] = start
        return torch.cat([times, times.new_zeros(1)])


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
        _check_ratios(self.low, self.high)

    def inner(
        self, schedule: Schedule, steps: int, start: float, stop: float
    ) -> Float[Tensor, "n"]:
        top, bottom = _ratios(schedule, start, stop).clamp(self.low, self.high) ** (1 / self.rho)
        # Stopping early, the last evaluation is before `stop`: the n intervals share the range.
        i = _line(0, 1, steps if stop == 0 else steps + 1)
        return _visited(schedule, (top + i * (bottom - top)) ** self.rho, start, stop)


@dataclass(frozen=True)
class Exponential(Grid):
    """Equal steps in ln(σ/α), the limit of Karras for rho → ∞.

    ln r_i = ln r_max + i/(n − 1) (ln r_min − ln r_max),   i = 0 … n − 1,   and then t_n = stop

    Args:
        low: Smallest ratio σ/α at which the denoiser is evaluated, > 0.
        high: Largest ratio σ/α of the second and later times.

    References:
        k-diffusion, `get_sigmas_exponential` (Crowson, 2022)
            https://github.com/crowsonkb/k-diffusion
    """

    low: float = 0.02
    high: float = 80.0

    def __post_init__(self) -> None:
        _check_ratios(self.low, self.high)

    def inner(
        self, schedule: Schedule, steps: int, start: float, stop: float
    ) -> Float[Tensor, "n"]:
        top, bottom = _ratios(schedule, start, stop).clamp(self.low, self.high)
        i = _line(0, 1, steps if stop == 0 else steps + 1)
        return _visited(schedule, top * (bottom / top) ** i, start, stop)


@dataclass(frozen=True)
class LogSNR(Grid):
    """n equal steps of λ = ln(α/σ), half the log-SNR: what DPM-Solver and UniPC are made for.

    λ_i = λ_0 + i/n (λ_n − λ_0),   i = 0 … n − 1,   and t_n = stop:  the last evaluation is one
    step before the smallest ratio, where `Exponential` has it at the smallest.

    Args:
        low: σ/α at the end of the scale, > 0; a schedule that starts higher is not extended.
        high: Largest ratio σ/α of the second and later times.

    References:
        DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps
            (Lu et al., 2022), section 3.2
            https://arxiv.org/abs/2206.00927
    """

    low: float = 0.02
    high: float = 80.0

    def __post_init__(self) -> None:
        _check_ratios(self.low, self.high)

    def inner(
        self, schedule: Schedule, steps: int, start: float, stop: float
    ) -> Float[Tensor, "n"]:
        top, bottom = _ratios(schedule, start, stop).clamp(self.low, self.high)
        times = schedule.time(top * (bottom / top) ** _line(0, 1, steps + 1))
        times[0] = start
        return times


@dataclass(frozen=True)
class AlignYourSteps(Grid):
    """A table of ratios σ/α that was optimised for one model, the least error of its sampler.

    With as many steps as the table has intervals the times are those of the table; otherwise ln ρ
    is interpolated linearly along it, as its authors do. The last ratio is the end of the scale:
    it is not evaluated. A shorter interval of time takes its own part of the table.

    `AYS_SD15`, `AYS_SDXL` and `AYS_SVD` are published, for Stable Diffusion 1.5, XL and Video.

    Args:
        ratios: σ/α, falling and positive, at least two.

    Raises:
        ValueError: The ratios do not fall or are not positive and finite.

    References:
        Align Your Steps: Optimizing Sampling Schedules in Diffusion Models (Sabour et al., 2024)
            https://arxiv.org/abs/2404.14507
    """

    ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        falls = all(a > b > 0 for a, b in zip(self.ratios, self.ratios[1:]))
        if len(self.ratios) < 2 or not falls or not self.ratios[0] < math.inf:
            raise ValueError(f"ratios {self.ratios}: give at least two, falling and above 0")

    def inner(
        self, schedule: Schedule, steps: int, start: float, stop: float
    ) -> Float[Tensor, "n"]:
        table = -torch.tensor(self.ratios, dtype=torch.float64, device="cpu").log()
        place = _line(0, 1, len(self.ratios))  # along the table
        first, last = piecewise(-_ratios(schedule, start, stop).log(), table, place).tolist()
        times = schedule.time((-piecewise(_line(first, last, steps + 1), place, table)).exp())
        times[0] = start
        return times


# The values of the authors' page, research.nvidia.com/labs/toronto-ai/AlignYourSteps/howto.html.
AYS_SD15 = AlignYourSteps(
    (
        *(14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092),
        *(0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582),
    )
)
AYS_SDXL = AlignYourSteps(
    (
        *(14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141),
        *(0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582),
    )
)
AYS_SVD = AlignYourSteps(
    (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)
)


def _line(first: float, last: float, count: int) -> Float[Tensor, "n"]:
    return torch.linspace(first, last, count, dtype=torch.float64, device="cpu")


def _check_ratios(low: float, high: float) -> None:
    if not 0 < low < high:
        raise ValueError(f"ratios from {low} to {high}: give 0 < low < high")


def _ratios(schedule: Schedule, start: float, stop: float) -> Float[Tensor, "2"]:
    """σ/α at both ends; 0 and ∞ where a schedule has them."""
    alpha, sigma = schedule(torch.tensor([start, stop], dtype=torch.float64, device="cpu"))
    return sigma / alpha


def _visited(
    schedule: Schedule, ratios: Float[Tensor, "n"], start: float, stop: float
) -> Float[Tensor, "m"]:
    """The times of the ratios, the first `start`; before stop = 0 all of them are evaluated."""
    times = schedule.time(ratios)
    times[0] = start
    if stop > 0:
        return times
    return torch.cat([times.clamp(min=ABOVE_ZERO), times.new_zeros(1)])
