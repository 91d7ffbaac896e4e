"""Schedules: how much data and how much noise there is at a time, as published.

t runs from 0 (data) to 1 (noise), in every file of genkit. A schedule is the pair of curves in

    x_t = α_t x_0 + σ_t ε,      ε ~ N(0, I)

(see `curve` for what each of them offers). Three kinds:

    Discrete     a published chain of variances β_1 … β_T,  ᾱ_k = Π_{i ≤ k} (1 − β_i),
                 α = √ᾱ,  σ = √(1 − ᾱ)                          variance preserving, α² + σ² = 1
    Rectified    straight lines,  α = 1 − u,  σ = u
    Exploding    α = 1 and growing noise (EDM)

Discrete schedules are sampled exactly: t = (k − 1)/(T − 1) gives the paper's ᾱ_k for k = 1 … T,
so a network trained on the chain and one trained here are interchangeable. Between two steps
ln ᾱ is interpolated linearly in t.

What is at t = 0?  The first step of the chain, not clean data: α_0 = √(1 − β_1) and σ_0 = √β_1
(0.01 for β_1 = 1e-4, about one grey level). The paper's clean ᾱ_0 = 1 has no t of its own: a
sampler's last step, the step to t = 0, lands on (α, σ) = (1, 0) exactly (see `sample`).
A rectified schedule has (1, 0) at t = 0 and (0, 1) at t = 1, an exploding one (1, σ_min) and
(1, σ_max).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from genkit.diffusion.curve import (
    Chain,
    Continuous,
    Discrete,
    Interpolated,
    Level,
    Schedule,
    knots,
    spread,
)

__all__ = [
    "MAX_STEPS",
    "Chain",
    "Cosine",
    "Discrete",
    "Exploding",
    "Level",
    "LinearBeta",
    "Rectified",
    "ScaledLinear",
    "Schedule",
    "Sigmoid",
    "SigmoidBeta",
    "Trained",
    "spread",
]

MAX_STEPS = 100_000
"""The longest chain: published ones have 40 to 4000 steps, and one is kept in memory whole."""


@dataclass(frozen=True)
class LinearBeta(Interpolated):
    """DDPM's schedule, "β-linear": β_k rises linearly from β_1 to β_T.

    Args:
        beta_start: β_1, in (0, 1).
        beta_end: β_T, in (0, 1), at least β_1.
        T: Number of steps of the chain, 2 to 100,000.

    Raises:
        ValueError: A β is outside (0, 1), they descend, or T is out of its range.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020)
            https://arxiv.org/abs/2006.11239
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02
    T: int = 1000

    def __post_init__(self) -> None:
        _check_range(self.beta_start, self.beta_end, self.T)

    def betas(self) -> Float[Tensor, "T"]:
        return _line(self.beta_start, self.beta_end, self.T)


@dataclass(frozen=True)
class ScaledLinear(Interpolated):
    """Stable Diffusion's schedule, "scaled linear": √β_k rises linearly from √β_1 to √β_T.

    Args and Raises as for `LinearBeta`; the values are those of Stable Diffusion 1, 2 and XL.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022)
            https://arxiv.org/abs/2112.10752
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    T: int = 1000

    def __post_init__(self) -> None:
        _check_range(self.beta_start, self.beta_end, self.T)

    def betas(self) -> Float[Tensor, "T"]:
        return _line(self.beta_start**0.5, self.beta_end**0.5, self.T).square()


@dataclass(frozen=True)
class SigmoidBeta(Interpolated):
    """GeoDiff's schedule: β_k = β_1 + (β_T − β_1)/(1 + e^(−z)), z from −6 to 6 in equal steps.

    Args and Raises as for `LinearBeta`. β_1 and β_T are the limits of the curve: its ends lie
    0.25 % inside them.

    References:
        GeoDiff: a Geometric Diffusion Model for Molecular Conformation Generation
            (Xu et al., 2022)
            https://arxiv.org/abs/2203.02923
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02
    T: int = 1000

    def __post_init__(self) -> None:
        _check_range(self.beta_start, self.beta_end, self.T)

    def betas(self) -> Float[Tensor, "T"]:
        return self.beta_start + (self.beta_end - self.beta_start) * _line(-6, 6, self.T).sigmoid()


@dataclass(frozen=True)
class Cosine(Interpolated):
    """Improved DDPM's schedule, "cosine".

    f(k) = cos²((k/T + s)/(1 + s) · π/2),      β_k = min(1 − f(k)/f(k − 1), clip)

    Args:
        s: Offset that keeps β_1 from vanishing, ≥ 0.
        clip: Largest β, in (0, 1); it acts on the last step only, where f(T) = 0.
        T: Number of steps of the chain, 2 to 100,000.

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
        _check_clip(self.clip)
        knots(self)

    def betas(self) -> Float[Tensor, "T"]:
        # The sine of the complement: a cosine would lose digits where it falls to 0.
        f = (_line(1, 0, self.T + 1) / (1 + self.s) * (math.pi / 2)).sin().square()
        return (1 - f[1:] / f[:-1]).clamp(max=self.clip)


@dataclass(frozen=True)
class Sigmoid(Interpolated):
    """The sigmoid schedule for larger pictures: ᾱ itself falls along a logistic curve.

    f(k) = (S(b) − S(a + (b − a) k/T)) / (S(b) − S(a)),      S(z) = 1/(1 + e^(−z)),
    a = start/tau,  b = end/tau,                             β_k = min(1 − f(k)/f(k − 1), clip)

    The papers define a continuous ᾱ and bound it below; here it becomes a chain as `Cosine` does.

    Args:
        start: Where on the logistic curve t = 0 lies, below `end`.
        end: Where t = 1 lies.
        tau: Temperature, > 0; smaller is steeper.
        clip: Largest β, in (0, 1); it acts on the last step only, where f(T) = 0.
        T: Number of steps of the chain, 2 to 100,000.

    Raises:
        ValueError: An argument is out of its range, or the curve so steep that it is flat in
            double precision.

    References:
        Scalable Adaptive Computation for Iterative Generation (Jabri et al., 2022)
            https://arxiv.org/abs/2212.11972
        On the Importance of Noise Scheduling for Diffusion Models (Chen, 2023), section 2
            https://arxiv.org/abs/2301.10972
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0
    clip: float = 0.999
    T: int = 1000

    def __post_init__(self) -> None:
        _check_length(self.T)
        if not -math.inf < self.start < self.end < math.inf:
            raise ValueError(f"the curve goes from {self.start} to {self.end}; give start < end")
        if not 0 < self.tau < math.inf:
            raise ValueError(f"tau is {self.tau}; it must be positive and finite (1 as published)")
        _check_clip(self.clip)
        knots(self)

    def betas(self) -> Float[Tensor, "T"]:
        # S(b) − S(z) = sinh((b − z)/2) / (2 cosh(b/2) cosh(z/2)) loses no digits near z = b.
        u = _line(0, 1, self.T + 1)
        a, width = self.start / self.tau, (self.end - self.start) / self.tau
        f = (width / 2 * (1 - u)).sinh() / ((a + width * u) / 2).cosh()
        return (1 - f[1:] / f[:-1]).clamp(max=self.clip)


@dataclass(frozen=True)
class Trained(Interpolated):
    """A chain given by its variances, as some checkpoints list them.

    Args:
        values: β_1 … β_T, each in (0, 1).

    Raises:
        ValueError: There are too few or too many, one is outside (0, 1), or one is too small to
            be told from zero beside the sum of those before it.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_length(self.T)
        for value in self.values:
            _check_beta(value)
        knots(self)

    @property
    def T(self) -> int:
        return len(self.values)

    def betas(self) -> Float[Tensor, "T"]:
        return torch.tensor(self.values, dtype=torch.float64, device="cpu")


@dataclass(frozen=True)
class Rectified(Continuous):
    """Rectified flow, the straight path between data and noise.

    α_t = 1 − u,   σ_t = u,   u = m t / (1 + (m − 1) t)      with the shift m

    Args:
        shift: m > 0; above 1 it spends more of the time on high noise, as large pictures need
            (SD3 uses 3 at 1024²). `of_pixels` and `of_tokens` give the published rules.

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

    @classmethod
    def of_pixels(cls, pixels: float, base: float = 256**2) -> "Rectified":
        """The shift √(m/n) that gives m pixels the uncertainty of n (Esser et al., equation 23).

        Args:
            pixels: m, height times width of the pictures.
            base: n, of the pictures for which no shift is needed.

        Raises:
            ValueError: A number is not positive and finite.
        """
        for value in (pixels, base):
            if not 0 < value < math.inf:
                raise ValueError(f"a picture of {value} pixels: give height times width, above 0")
        return cls(math.sqrt(pixels / base))

    @classmethod
    def of_tokens(
        cls,
        tokens: float,
        few: tuple[float, float] = (256, 0.5),
        many: tuple[float, float] = (4096, 1.15),
    ) -> "Rectified":
        """The shift e^μ of FLUX.1, μ being linear in the number of tokens of the transformer.

        Args:
            tokens: Of one picture, 1 to 1,000,000 (4096 for 1024² in FLUX.1).
            few: (tokens, μ) of a point on the line, `base_image_seq_len` and `base_shift`.
            many: (tokens, μ) of another, `max_image_seq_len` and `max_shift`.

        Raises:
            ValueError: Tokens are out of range, or both points have the same number of them.

        References:
            FLUX.1, `time_shift` in the code of the release (Black Forest Labs, 2024)
                https://github.com/black-forest-labs/flux
        """
        if not 1 <= tokens <= 1_000_000 or few[0] == many[0]:
            raise ValueError(
                f"{tokens} tokens on the line through {few} and {many}: give 1 to 1,000,000, "
                "and two points that differ"
            )
        return cls(math.exp(few[1] + (tokens - few[0]) * (many[1] - few[1]) / (many[0] - few[0])))

    def __call__(self, t: Float[Tensor, "*B"]) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
        # α as its own quotient: 1 − u would lose digits near t = 1.
        scale = 1 + (self.shift - 1) * t
        return (1 - t) / scale, self.shift * t / scale

    def time(self, ratio: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        # ρ = m t/(1 − t)  ⇔  t = 1/(1 + m/ρ);  this form is right at ρ = 0 and at ρ = ∞.
        return 1 / (1 + self.shift / ratio)

    def beta(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """2 α σ dρ/dt with dρ/dt = m/(1 − t)²."""
        scale = 1 + (self.shift - 1) * t
        return 2 * self.shift**2 * t / (scale.square() * (1 - t))


@dataclass(frozen=True)
class Exploding(Continuous):
    """EDM's schedule, variance exploding: clean data plus growing noise.

    α_t = 1,   σ_t = (σ_min^(1/rho) + t (σ_max^(1/rho) − σ_min^(1/rho)))^rho

    so equal steps of t are EDM's sampling times. A sampler starts from noise times σ_max.

    Args:
        sigma_min: σ at t = 0, > 0.
        sigma_max: σ at t = 1, many times the deviation of the data.
        rho: Exponent, > 0.

    Raises:
        ValueError: Not 0 < sigma_min < sigma_max < ∞, or rho is not positive and finite.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models
            (Karras et al., 2022), equation 5 and table 1
            https://arxiv.org/abs/2206.00364
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                f"noise from {self.sigma_min} to {self.sigma_max}: "
                "give 0 < sigma_min < sigma_max, both finite"
            )
        if not 0 < self.rho < math.inf:
            raise ValueError(f"rho is {self.rho}; it must be positive and finite (7 as published)")

    def __call__(self, t: Float[Tensor, "*B"]) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
        low, high = self._roots()
        return torch.ones_like(t), ((1 - t) * low + t * high) ** self.rho

    def time(self, ratio: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        low, high = self._roots()
        return ((ratio ** (1 / self.rho) - low) / (high - low)).clamp(0, 1)

    def beta(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """dσ²/dt."""
        low, high = self._roots()
        return 2 * self.rho * (high - low) * ((1 - t) * low + t * high) ** (2 * self.rho - 1)

    def _roots(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)


def _line(first: float, last: float, count: int) -> Float[Tensor, "n"]:
    return torch.linspace(first, last, count, dtype=torch.float64, device="cpu")


def _check_length(T: int) -> None:
    if not 2 <= T:
        raise ValueError(f"T is {T}; a chain needs at least 2 steps")
    if T > MAX_STEPS:
        raise ValueError(f"T is {T}; a chain has at most {MAX_STEPS} steps (1000 is usual)")


def _check_beta(beta: float) -> None:
    if not 0 < beta < 1:
        raise ValueError(f"beta is {beta}; a variance of the chain must lie in (0, 1)")


def _check_range(start: float, end: float, T: int) -> None:
    _check_length(T)
    _check_beta(start)
    _check_beta(end)
    if start > end:
        raise ValueError(f"beta falls from {start} to {end}; noise grows along a chain, swap them")


def _check_clip(clip: float) -> None:
    if not 0 < clip < 1:
        raise ValueError(f"clip is {clip}; the largest beta must lie in (0, 1)")
