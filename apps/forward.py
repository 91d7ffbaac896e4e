"""The forward process of one picture, in numbers: what the page `noise` shows.

A schedule is sampled at its steps k = 0 … T, where k = 0 is the clean picture, (α, σ) = (1, 0),
and step k is at t = (k − 1)/(T − 1) on a chain, at t = k/T where t is continuous. There are two
ways to x_k:

    one jump     x_k = α_k x_0 + σ_k ε                                    q(x_k | x_0)
    the chain    x_k = (α_k/α_{k−1}) x_{k−1} + √β_k ε_k                    q(x_k | x_{k−1})

They have the same distribution. With the noise that the steps compose,
σ_k ε̄ = Σ_j (α_k/α_j) √β_j ε_j, the jump is the chain, up to rounding.

Sampling starts from N(0, s² I), s = 1, but σ_max for an exploding schedule. How much x_T still
tells about the picture is

    KL(q(x_T | x_0) ‖ N(0, s² I)) = ½ Σ_i [σ²/s² − 1 − ln(σ²/s²) + α² x_0,i²/s²]
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from apps.settings import Refused, shown
from apps.text import Pair, say
from genkit.diffusion.curve import Discrete, Schedule
from genkit.diffusion.grid import (
    AYS_SD15,
    AYS_SDXL,
    Exponential,
    Grid,
    Karras,
    Leading,
    LogSNR,
    Trailing,
    Uniform,
)
from genkit.diffusion.schedule import (
    Cosine,
    Exploding,
    LinearBeta,
    Rectified,
    ScaledLinear,
    Sigmoid,
    SigmoidBeta,
)
from genkit.diffusion.terminal import ZeroTerminal

__all__ = [
    "FRAMES",
    "GRIDS",
    "KINDS",
    "LIMITS",
    "Kind",
    "Levels",
    "Side",
    "Walk",
    "check_number",
    "check_side",
    "check_whole",
    "divergence",
    "levels",
    "places",
    "start_deviation",
    "visited",
    "walk",
]

FRAMES = 25
"""Times at which pictures are made: k = 0, T/24, …, T."""
MAX_STEPS = 4000
"""The longest chain that is walked step by step while a visitor waits; DDPM has 1000."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """A schedule that can be chosen: its name, what it is made by, its parameters and defaults."""

    label: str
    build: Callable[..., Schedule]
    defaults: Mapping[str, float]

    @property
    def chain(self) -> bool:
        """Whether it is a discrete chain, which has T of its own and can be rescaled."""
        return isinstance(self.build, type) and issubclass(self.build, Discrete)


KINDS: Mapping[str, Kind] = {
    "linear": Kind("β-linear · DDPM", LinearBeta, {"beta_start": 1e-4, "beta_end": 0.02}),
    "scaled_linear": Kind(
        "scaled-linear · Stable Diffusion", ScaledLinear, {"beta_start": 8.5e-4, "beta_end": 0.012}
    ),
    "cosine": Kind("cosine · Improved DDPM", Cosine, {"s": 0.008}),
    "sigmoid": Kind(
        "sigmoid · Jabri, Chen", Sigmoid, {"start": -3.0, "end": 3.0, "tau": 1.0}
    ),
    "sigmoid_beta": Kind(
        "β-sigmoid · GeoDiff", SigmoidBeta, {"beta_start": 1e-4, "beta_end": 0.02}
    ),
    "rectified": Kind("rectified flow · SD3", Rectified, {"shift": 1.0}),
    "edm": Kind(
        "EDM · Karras", Exploding, {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}
    ),
}  # fmt: skip
"""Name -> schedule."""

LIMITS: Mapping[str, tuple[float, float]] = {
    "beta_start": (1e-7, 0.999),
    "beta_end": (1e-7, 0.999),
    "s": (0, 0.5),
    "start": (-20, 20),
    "end": (-20, 20),
    "tau": (0.05, 10),
    "shift": (0.01, 100),
    "sigma_min": (1e-4, 10),
    "sigma_max": (0.01, 1e4),
    "rho": (0.1, 100),
    "T": (2, MAX_STEPS),
}
"""Smallest and largest value of every parameter; what is beyond shows nothing on a page."""

ORDERED = (("beta_start", "beta_end"), ("start", "end"), ("sigma_min", "sigma_max"))

GRIDS: Mapping[str, Callable[[int], Grid]] = {
    "trailing": lambda T: Trailing(T),
    "uniform": lambda T: Uniform(),
    "leading": lambda T: Leading(),
    "karras": lambda T: Karras(),
    "exponential": lambda T: Exponential(),
    "logsnr": lambda T: LogSNR(),
    "ays-sd15": lambda T: AYS_SD15,
    "ays-sdxl": lambda T: AYS_SDXL,
}
"""Name -> grid for a schedule of T steps."""


@dataclass(frozen=True)
class Side:
    """One of the two schedules that are compared, checked: a or b."""

    letter: str
    kind: str
    schedule: Schedule
    T: int


@dataclass(frozen=True)
class Levels:
    """Signal and noise at k = 0 … T, T + 1 numbers each; β_0 is not defined (NaN)."""

    u: Array
    alpha: Array
    sigma: Array
    beta: Array
    log_snr: Array


@dataclass(frozen=True)
class Walk:
    """What was measured at the frames, for the jump and for the chain.

    Args:
        states: x_k of the chain, in [−1, 1] and beyond.
        slope: How much of x_0 is in x_k, by least squares; α_k in theory. (jump, chain)
        mean: Mean of x_k − α_k x_0; 0 in theory.
        noise: Deviation of x_k − α_k x_0; σ_k in theory.
        apart: Largest |chain − jump| where the jump takes the noise that the chain composed.
    """

    states: Array
    slope: Array
    mean: Array
    noise: Array
    apart: Array


def check_side(letter: str, values: Any) -> Side:
    """The schedule of these values, as an API client sends them or the page's fields hold them.

    Args:
        letter: a or b.
        values: kind, T, zero_terminal_snr and the parameters of the kind; what is absent has its
            default.

    Raises:
        Refused: A value is unknown, of the wrong type, outside its limits or out of order.
    """
    if not isinstance(values, Mapping):
        raise Refused("noise.object", name=_named("schedule", letter), value=shown(values))
    kind = _choice("kind", values.get("kind", "linear"), KINDS, letter)
    entry = KINDS[kind]
    known = ("kind", "T", "zero_terminal_snr", *entry.defaults)
    for name in values:
        _choice("parameter", name, known, letter)
    T = check_whole("T", values.get("T", 1000), *LIMITS["T"], letter)
    zero = values.get("zero_terminal_snr", False)
    if not isinstance(zero, bool):
        name = _named("zero_terminal_snr", letter)
        raise Refused("error.flag", name=name, value=shown(zero))
    numbers = {
        name: check_number(name, values.get(name, default), *LIMITS[name], letter)
        for name, default in entry.defaults.items()
    }
    for low, high in ORDERED:
        if low in numbers and not _ordered(numbers[low], numbers[high], low):
            pair = {"low": numbers[low], "high": numbers[high]}
            raise Refused("noise.order", first=_named(low, letter), last=_named(high, letter),
                          **{key: f"{value:g}" for key, value in pair.items()})  # fmt: skip
    if zero and not entry.chain:
        raise Refused("noise.zero", letter=letter.upper())
    return Side(letter, kind, _built(letter, entry, numbers, T, zero), T)


def check_number(name: str, value: Any, low: float, high: float, letter: str = "") -> float:
    """A finite number within its limits.

    Raises:
        Refused: It is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    values = {"name": _named(name, letter), "value": shown(value)}
    values |= {"low": f"{low:g}", "high": f"{high:g}"}
    if not number or (isinstance(value, float) and not math.isfinite(value)):
        raise Refused("error.number", **values)
    if not low <= value <= high:
        raise Refused("error.range", **values)
    return float(value)


def check_whole(name: str, value: Any, low: float, high: float, letter: str = "") -> int:
    """A whole number within its limits.

    Raises:
        Refused: It is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    values = {"name": _named(name, letter), "value": shown(value), "low": low, "high": high}
    if not number or (isinstance(value, float) and not math.isfinite(value)):
        raise Refused("error.number", **values)
    if not low <= value <= high or value != int(value):
        raise Refused("error.whole", **values)
    return int(value)


def levels(side: Side) -> Levels:
    """α, σ, β and log-SNR at every step, from the clean picture to the last one."""
    schedule, T = side.schedule, side.T
    steps = torch.arange(1, T + 1, dtype=torch.float64, device="cpu")
    t = (steps - 1) / (T - 1) if isinstance(schedule, Discrete) else steps / T
    alpha, sigma = (torch.cat([torch.full((1,), first).to(t), values]).numpy()
                    for first, values in zip((1.0, 0.0), schedule(t)))  # fmt: skip
    if isinstance(schedule, Discrete):
        beta = schedule.betas().numpy()
    else:
        beta = sigma[1:] ** 2 - (alpha[1:] / alpha[:-1] * sigma[:-1]) ** 2
    with np.errstate(divide="ignore"):
        log_snr = 2 * (np.log(alpha) - np.log(sigma))
    return Levels(np.arange(T + 1) / T, alpha, sigma, np.array([math.nan, *beta]), log_snr)


def places(T: int) -> list[int]:
    """The step k of each frame."""
    return [round(index * T / (FRAMES - 1)) for index in range(FRAMES)]


def start_deviation(side: Side) -> float:
    """s, the deviation of the noise from which sampling starts."""
    return side.schedule.sigma_max if isinstance(side.schedule, Exploding) else 1.0


def divergence(x0: Array, alpha: float, sigma: float, s: float) -> float:
    """KL(N(α x_0, σ² I) ‖ N(0, s² I)) in bits, all dimensions together; infinite for σ = 0."""
    if sigma == 0:
        return math.inf
    extra = (sigma - s) * (sigma + s) / s**2  # σ²/s² − 1, exact where σ is close to s
    each = extra - math.log1p(extra)
    return float(0.5 * (x0.size * each + (alpha / s) ** 2 * np.square(x0).sum()) / math.log(2))


def walk(x0: Float[Tensor, "D"], at: Levels, marks: list[int], seed: int) -> Walk:
    """Goes T steps with fresh noise, and jumps to each mark, measuring both.

    Args:
        x0: The picture, float64.
        at: Levels at every step.
        marks: Steps at which to measure, rising, the first 0.
        seed: Of the noise.
    """
    rng = torch.Generator().manual_seed(seed)
    epsilon = torch.randn(x0.shape, generator=rng, dtype=torch.float64)
    kept = at.alpha[1:] / at.alpha[:-1]
    x, composed = x0.clone(), torch.zeros_like(x0)
    states, measured, apart, left = [], [], [], list(marks)
    for k in range(len(at.alpha)):
        if k > 0:
            fresh = torch.randn(x0.shape, generator=rng).double() * math.sqrt(max(at.beta[k], 0.0))
            x.mul_(kept[k - 1]).add_(fresh)
            composed.mul_(kept[k - 1]).add_(fresh)
        while left and left[0] == k:
            left.pop(0)
            mean = at.alpha[k] * x0
            jump = mean + at.sigma[k] * epsilon
            measured.append([_moments(one, mean, x0) for one in (jump, x)])
            apart.append((mean + composed - x).abs().max().item())
            states.append(x.numpy().copy())
    slope, mean, noise = np.array(measured).transpose(2, 1, 0)
    return Walk(np.array(states), slope, mean, noise, np.array(apart))


def visited(side: Side, grid: Any, steps: Any) -> list[float]:
    """Where the n steps of a grid evaluate, as k/T, falling.

    Raises:
        Refused: Grid or steps are unknown or do not fit this schedule.
    """
    grid = _choice("grid", grid, GRIDS, "")
    steps = check_whole("steps", steps, 1, 100)
    discrete = isinstance(side.schedule, Discrete)
    if grid == "leading" and not discrete:
        raise Refused("noise.leading", letter=side.letter.upper())
    try:
        times = GRIDS[grid](side.T)(side.schedule, steps)[:-1]  # the last is clean data
    except ValueError as error:
        values = {"grid": grid, "letter": side.letter.upper(), "value": steps}
        raise Refused("noise.grid", **values) from error
    return ((times * (side.T - 1) + 1) / side.T if discrete else times).tolist()


def _moments(x: Tensor, mean: Tensor, x0: Tensor) -> tuple[float, float, float]:
    rest = x - mean
    slope = (x @ x0 / (x0 @ x0)).item()
    return slope, rest.mean().item(), rest.std(correction=0).item()


def _built(letter: str, entry: Kind, numbers: Mapping[str, float], T: int, zero: bool) -> Schedule:
    try:
        schedule = entry.build(**numbers, **({"T": T} if entry.chain else {}))
        if zero and isinstance(schedule, Discrete):
            schedule = ZeroTerminal(schedule)
        return schedule
    except ValueError as error:  # a curve so flat that a step adds no noise
        raise Refused("noise.flat", letter=letter.upper()) from error


def _ordered(low: float, high: float, name: str) -> bool:
    return low <= high if name == "beta_start" else low < high


def _choice(name: str, value: Any, choices: Any, letter: str) -> str:
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(choices)
        named = _named(name, letter)
        raise Refused("error.choice", name=named, value=shown(value), choices=listed)
    return value


def _named(name: str, letter: str) -> Pair:
    """The name for a sentence, with that of its schedule."""
    pair = (say(language, f"name.{name}") for language in ("en", "vi"))
    english, vietnamese = pair
    if not letter:
        return Pair(f"{english} ({name})", f"{vietnamese} ({name})")
    upper = letter.upper()
    return Pair(f"{english} of {upper} ({name})", f"{vietnamese} của {upper} ({name})")
