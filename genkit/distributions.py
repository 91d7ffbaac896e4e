"""Distributions: what a network's forward returns.

    Gaussian(mean, std)     x = mean + std·z,  z ~ N(0, I)          a continuous tensor
    Dirac(value)            x = value                               a point estimate, like x̂_0
    Bernoulli(logits)       P(x = 1) = 1 / (1 + e^(−logits))        binary pixels
    Categorical(logits)     P(x = k) ∝ e^(logits_k)                 a class, a code, a grey level

Conventions
    Every element is independent.  `log_prob` and `kl` are therefore elementwise, in nats: sum over
    the axes that make one picture. A Categorical's last axis holds the K classes; its samples are
    integers without that axis.  `sample` takes the randomness as an argument. Noise is drawn on
    the generator's device and moved, so one CPU generator gives the same sample on every device.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

__all__ = ["Bernoulli", "Categorical", "Dirac", "Distribution", "Gaussian"]


class Distribution(ABC):
    """A distribution over tensors whose elements are independent."""

    mean: Tensor
    """E[x]; for a Categorical, of the one-hot vector, so the class probabilities."""

    @abstractmethod
    def sample(self, rng: Generator | None = None) -> Tensor:
        """One draw; `rng` None uses the global generator of the distribution's device."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Elementwise log density or log probability of `x`, in nats."""


@dataclass(frozen=True, eq=False)
class Gaussian(Distribution):
    """Diagonal Gaussian N(mean, diag(std²)).

    Args:
        mean: Any shape.
        std: The standard deviation, > 0, broadcastable to `mean`.
    """

    mean: Float[Tensor, "*S"]
    std: Float[Tensor, "*#S"]

    def sample(self, rng: Generator | None = None) -> Float[Tensor, "*S"]:
        device = self.mean.device if rng is None else rng.device
        z = torch.randn(self.mean.shape, generator=rng, device=device, dtype=self.mean.dtype)
        return self.mean + self.std * z.to(self.mean.device)

    def log_prob(self, x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        z = (x - self.mean) / self.std
        return -0.5 * (z.square() + math.log(2 * math.pi)) - self.std.log()

    def kl(self) -> Float[Tensor, "*S"]:
        """KL(N(mean, std²) ‖ N(0, 1)) = (mean² + std² − 1)/2 − ln std, elementwise, ≥ 0."""
        return 0.5 * (self.mean.square() + self.std.square() - 1) - self.std.log()


@dataclass(frozen=True, eq=False)
class Dirac(Distribution):
    """All mass on one value: the distribution of a deterministic network."""

    value: Float[Tensor, "*S"]

    @property
    def mean(self) -> Float[Tensor, "*S"]:
        return self.value

    def sample(self, rng: Generator | None = None) -> Float[Tensor, "*S"]:
        return self.value

    def log_prob(self, x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """0 where `x` is the value, −∞ elsewhere (a probability, not a density)."""
        return torch.where(x == self.value, 0.0, -math.inf).to(self.value.dtype)


@dataclass(frozen=True, eq=False)
class Bernoulli(Distribution):
    """Independent bits, P(x = 1) = sigmoid(logits); samples are 0. and 1."""

    logits: Float[Tensor, "*S"]

    @property
    def mean(self) -> Float[Tensor, "*S"]:
        return self.logits.sigmoid()

    def sample(self, rng: Generator | None = None) -> Float[Tensor, "*S"]:
        device = self.logits.device if rng is None else rng.device
        u = torch.rand(self.logits.shape, generator=rng, device=device, dtype=self.logits.dtype)
        return (u.to(self.logits.device) < self.mean).to(self.logits.dtype)

    def log_prob(self, x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """x·ln p + (1 − x)·ln(1 − p), also for fractional x in [0, 1] (binary cross-entropy)."""
        return x * self.logits - F.softplus(self.logits)


@dataclass(frozen=True, eq=False)
class Categorical(Distribution):
    """K classes on the last axis, P(x = k) = softmax(logits)_k."""

    logits: Float[Tensor, "*S K"]

    @property
    def mean(self) -> Float[Tensor, "*S K"]:
        return self.logits.softmax(-1)

    @property
    def mode(self) -> Int[Tensor, "*S"]:
        """The most probable class."""
        return self.logits.argmax(-1)

    def sample(self, rng: Generator | None = None) -> Int[Tensor, "*S"]:
        device = self.logits.device if rng is None else rng.device
        # A race of exponential clocks: argmin E_k/p_k has the law p; in logs it cannot underflow.
        clock = torch.empty(self.logits.shape, device=device, dtype=self.logits.dtype)
        clock = clock.exponential_(generator=rng).to(self.logits.device)
        return (self.logits - clock.log()).argmax(-1)

    def log_prob(self, x: Int[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return self.logits.log_softmax(-1).gather(-1, x.unsqueeze(-1)).squeeze(-1)
