"""Denoisers: one network wrapper and one loss for every parametrization.

A backbone F is a plain network. A parametrization says what its output means, by four
coefficients that depend on the noise level (α, σ) only:

    x̂_0(x_t) = c_skip x_t + c_out F(c_in x_t, c_noise)

    name      F predicts        c_in             c_skip             c_out
    Epsilon   ε                 1                1/α                −σ/α
    X0        x_0               1                0                  1
    V         v = α ε − σ x_0   1                α/(α² + σ²)        −σ/(α² + σ²)
    Flow      u = ε − x_0       1                1/(α + σ)          −σ/(α + σ)
    EDM       a mixture         1/√(σ² + α²s²)   α s²/(σ² + α²s²)   σ s/√(σ² + α²s²)

with s = sigma_data, and training minimises, whatever the parametrization,

    ‖F − (x_0 − c_skip x_t)/c_out‖²

which is ‖F − ε‖², ‖F − x_0‖², ‖F − v‖², ‖F − u‖² or EDM's λ(σ)-weighted loss, exactly.

c_noise tells the backbone the noise level: the angle (2/π)·atan2(σ, α), from 0 (data) to 1 (noise)
on every schedule; EDM uses ln(σ/α)/4 as published. It does not depend on t, so a trained network
can be sampled on another schedule.

The state x_t keeps its dtype (float32 or float64). Only the backbone runs in its own (say
bfloat16), and its time stays at least float32, because bfloat16 cannot tell 0.999 from 1.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from genkit.diffusion.schedule import Schedule, spread
from genkit.distributions import Dirac, Distribution
from genkit.model import Model

__all__ = [
    "EDM",
    "V",
    "X0",
    "Coefficients",
    "Condition",
    "Denoiser",
    "Denoises",
    "Epsilon",
    "Flow",
    "Parametrization",
    "Wrapper",
]

Condition = Mapping[str, Tensor]
"""Conditions by name ("text", "label", …); they become named arguments of the backbone."""

NOTHING: Condition = {}


class Coefficients(NamedTuple):
    """Of x̂_0 = c_skip x_t + c_out F(c_in x_t, c_noise), one of each per picture."""

    c_in: Float[Tensor, "*B"]
    c_skip: Float[Tensor, "*B"]
    c_out: Float[Tensor, "*B"]
    c_noise: Float[Tensor, "*B"]


class Parametrization(ABC):
    """What the output of a backbone means. Subclasses are frozen dataclasses of scalars."""

    @abstractmethod
    def coefficients(self, alpha: Float[Tensor, "*B"], sigma: Float[Tensor, "*B"]) -> Coefficients:
        """The four coefficients at noise levels (α, σ)."""


@dataclass(frozen=True)
class Epsilon(Parametrization):
    """F predicts the noise ε.

    Raises:
        ValueError: α = 0, where x_t is all noise and ε says nothing about x_0.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), equation 12
            https://arxiv.org/abs/2006.11239
    """

    def coefficients(self, alpha: Float[Tensor, "*B"], sigma: Float[Tensor, "*B"]) -> Coefficients:
        if bool((alpha == 0).any()):
            raise ValueError(
                "Epsilon is undefined at alpha = 0, where x_t holds no data; "
                "use V or Flow, or keep times below 1"
            )
        one = torch.ones_like(alpha)
        return Coefficients(one, 1 / alpha, -sigma / alpha, _angle(alpha, sigma))


@dataclass(frozen=True)
class X0(Parametrization):
    """F predicts the data x_0."""

    def coefficients(self, alpha: Float[Tensor, "*B"], sigma: Float[Tensor, "*B"]) -> Coefficients:
        one = torch.ones_like(alpha)
        return Coefficients(one, torch.zeros_like(alpha), one, _angle(alpha, sigma))


@dataclass(frozen=True)
class V(Parametrization):
    """F predicts v = α ε − σ x_0, of unit variance where data and α² + σ² are, finite at α = 0.

    References:
        Progressive Distillation for Fast Sampling of Diffusion Models
            (Salimans and Ho, 2022), appendix D
            https://arxiv.org/abs/2202.00512
    """

    def coefficients(self, alpha: Float[Tensor, "*B"], sigma: Float[Tensor, "*B"]) -> Coefficients:
        # α x_t − σ v = (α² + σ²) x_0;  the paper has α² + σ² = 1, a rectified schedule has not.
        power = alpha.square() + sigma.square()
        one = torch.ones_like(alpha)
        return Coefficients(one, alpha / power, -sigma / power, _angle(alpha, sigma))


@dataclass(frozen=True)
class Flow(Parametrization):
    """F predicts u = ε − x_0, on a rectified schedule the velocity dx_t/dt.

    References:
        Flow Matching for Generative Modeling (Lipman et al., 2023)
            https://arxiv.org/abs/2210.02747
    """

    def coefficients(self, alpha: Float[Tensor, "*B"], sigma: Float[Tensor, "*B"]) -> Coefficients:
        total = alpha + sigma
        one = torch.ones_like(alpha)
        return Coefficients(one, 1 / total, -sigma / total, _angle(alpha, sigma))


@dataclass(frozen=True)
class EDM(Parametrization):
    """The preconditioning of EDM: unit variance in and out, errors never amplified.

    The paper writes it for x_0 + ρ ε; here that is x_t/α with ρ = σ/α.

    Args:
        sigma_data: Standard deviation of the data, > 0 (0.5 for pictures in [−1, 1],
            1 for standardised latents).

    Raises:
        ValueError: sigma_data is not positive and finite, or a time has α = 0 or σ = 0.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models
            (Karras et al., 2022), table 1
            https://arxiv.org/abs/2206.00364
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(f"sigma_data is {self.sigma_data}; it must be positive and finite")

    def coefficients(self, alpha: Float[Tensor, "*B"], sigma: Float[Tensor, "*B"]) -> Coefficients:
        if bool(((alpha == 0) | (sigma == 0)).any()):
            raise ValueError(
                "EDM is undefined at alpha = 0 or sigma = 0, where ln(sigma/alpha) is infinite; "
                "keep times inside (0, 1)"
            )
        s = self.sigma_data
        power = sigma.square() + (alpha * s).square()
        return Coefficients(
            c_in=power.rsqrt(),
            c_skip=alpha * s**2 / power,
            c_out=sigma * s * power.rsqrt(),
            c_noise=(sigma / alpha).log() / 4,
        )


@runtime_checkable
class Denoises(Protocol):
    """What a sampler needs: a `Denoiser` or a wrapper of one, such as `Guided`."""

    @property
    def schedule(self) -> Schedule:
        """The noise levels that its times mean."""

    @property
    def passes(self) -> int:
        """Forward passes of the network per picture in one call."""

    def __call__(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Distribution:
        """q(x_0 | x_t); its mean is x̂_0."""


@dataclass(frozen=True, eq=False)
class Wrapper(ABC):
    """A denoiser made of another one: it has the same times and, unless it says so, passes.

    Args:
        denoiser: What is asked.
    """

    denoiser: Denoises

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    @property
    def passes(self) -> int:
        return self.denoiser.passes

    @abstractmethod
    def __call__(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Distribution:
        """q(x_0 | x_t); its mean is x̂_0."""


class Denoiser(Model):
    """q(x_0 | x_t) from a backbone: x̂_0 = c_skip x_t + c_out F(c_in x_t, c_noise; cond).

    Args:
        backbone: forward(x "B C H W", time "B", named conditions …) → "B C H W"; time is c_noise,
            in [0, 1] (EDM: about −2 to 2).
        schedule: Noise levels of t in [0, 1].
        parametrization: What the backbone's output means.

    Raises:
        TypeError: A condition is not a named argument of the backbone's forward.
    """

    passes: int = 1

    def __init__(
        self, backbone: Model, schedule: Schedule, parametrization: Parametrization
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.schedule = schedule
        self.parametrization = parametrization
        self.conditions = tuple(inspect.signature(backbone.forward).parameters)[2:]

    def forward(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Dirac:
        c = self.coefficients(t)
        F = self.output(x_t, c, cond)
        return Dirac(spread(c.c_skip, x_t) * x_t + spread(c.c_out, x_t) * F)

    def loss(
        self,
        x0: Float[Tensor, "B C H W"],
        t: Float[Tensor, "B"],
        noise: Float[Tensor, "B C H W"],
        cond: Condition = NOTHING,
    ) -> Float[Tensor, "B"]:
        """‖F − (x_0 − c_skip x_t)/c_out‖², the mean over C H W, one per picture.

        Raises:
            ValueError: A time has σ = 0 (t = 0 of a rectified schedule): nothing to learn there.
        """
        c = self.coefficients(t)
        if bool((c.c_out == 0).any()):
            raise ValueError("a time has sigma = 0, where x_t is x_0; draw times from (0, 1]")
        x_t = self.schedule.diffuse(x0, t, noise)
        F = self.output(x_t, c, cond)
        target = (x0 - spread(c.c_skip, x_t) * x_t) / spread(c.c_out, x_t)
        return (F - target).square().mean(dim=(1, 2, 3))

    def coefficients(self, t: Float[Tensor, "B"]) -> Coefficients:
        """Those of the parametrization at the noise levels of the times."""
        return self.parametrization.coefficients(*self.schedule(t))

    def output(
        self, x_t: Float[Tensor, "B C H W"], c: Coefficients, cond: Condition
    ) -> Float[Tensor, "B D H W"]:
        """F(c_in x_t, c_noise; cond) as the backbone says it, in the dtype of `x_t`."""
        for name in cond:
            if name not in self.conditions:
                known = ", ".join(self.conditions) or "no condition"
                kind = type(self.backbone).__name__
                raise TypeError(f"condition {name!r} is unknown to {kind}; it takes {known}")
        x, time, named = self.inputs(x_t, c, cond)
        return self.backbone(x, time, **named).to(x_t.dtype)

    def inputs(
        self, x_t: Float[Tensor, "B C H W"], c: Coefficients, cond: Condition
    ) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B"], dict[str, Tensor]]:
        """c_in x_t, c_noise and the conditions, in the dtypes in which the backbone runs."""
        dtype = next((p.dtype for p in self.backbone.parameters()), x_t.dtype)
        named = {k: v.to(dtype) if v.is_floating_point() else v for k, v in cond.items()}
        time = c.c_noise.to(x_t.device, torch.promote_types(dtype, torch.float32))
        return (spread(c.c_in, x_t) * x_t).to(dtype), time, named


def _angle(alpha: Float[Tensor, "*B"], sigma: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """The noise level as an angle: 0 is data, 1 is noise, finite everywhere."""
    return torch.atan2(sigma, alpha) * (2 / math.pi)
