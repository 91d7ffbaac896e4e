"""Distributions: what a network's forward returns.

    Gaussian(mean, std)     x = mean + std·z,  z ~ N(0, I)          a continuous tensor
    Dirac(value)            x = value                               a point estimate, like x̂_0
    Bernoulli(logits)       P(x = 1) = 1 / (1 + e^(−logits))        binary pixels
    Categorical(logits)     P(x = k) ∝ e^(logits_k)                 a class, a code, a grey level
    LogisticMixture(…)      P(pixel) = Σ_k π_k Π_c P_k(x_c | …)     pixels of 8 bits and 3 channels

Conventions
    Every element is independent; of a LogisticMixture, every pixel.  `log_prob` and `kl` are
    therefore elementwise, in nats: sum over the axes that make one picture. A Categorical's last
    axis holds the K classes; its samples are integers without that axis.  `sample` takes the
    randomness as an argument. Noise is drawn on the generator's device and moved, so one CPU
    generator gives the same sample on every device.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

__all__ = ["Bernoulli", "Categorical", "Dirac", "Distribution", "Gaussian", "LogisticMixture"]


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

    def kl(self, prior: "Gaussian | None" = None) -> Float[Tensor, "*S"]:
        """KL(N(mean, std²) ‖ prior), elementwise, ≥ 0; the prior is N(0, 1) unless told.

        With a = (mean − m)/s and r = std/s it is (a² + r² − 1)/2 − ln r for a prior N(m, s²).
        """
        if prior is None:
            a, r = self.mean, self.std
        else:
            a, r = (self.mean - prior.mean) / prior.std, self.std / prior.std
        return 0.5 * (a.square() + r.square() - 1) - r.log()


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


@dataclass(frozen=True, eq=False)
class LogisticMixture(Distribution):
    """Pixels of three channels with `levels` values each, as a mixture of K logistic laws.

        P(r, g, b) = Σ_k π_k · P(r; m_r, s_r) · P(g; m_g + α r, s_g) · P(b; m_b + β r + γ g, s_b)
        P(x; m, s) = σ((x + h − m)/s) − σ((x − h − m)/s),      h = 1/(levels − 1)

    Values lie on a grid of step 2h in [−1, 1]; the lowest and the highest take the tails, so the
    probabilities of all colours sum to 1. Red is seen by green, and both by blue: a pixel's
    channels are alike, and a mixture of independent ones would pay for that three times.

    Args:
        logits: Of π.
        centre: m of each component and channel.
        log_scale: ln s.
        couple: α, β, γ.
        levels: Values of a channel.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other
            Modifications (Salimans et al., 2017)  https://arxiv.org/abs/1701.05517
    """

    logits: Float[Tensor, "B K H W"]
    centre: Float[Tensor, "B K 3 H W"]
    log_scale: Float[Tensor, "B K 3 H W"]
    couple: Float[Tensor, "B K 3 H W"]
    levels: int = 256

    @classmethod
    def of(cls, raw: Float[Tensor, "B D H W"]) -> "LogisticMixture":
        """From the channels of a network, D = 10 K; scales start at e⁻² and end at e⁻⁷."""
        logits, rest = raw.split([raw.shape[1] // 10, raw.shape[1] // 10 * 9], dim=1)
        centre, log_scale, couple = rest.unflatten(1, (3, -1, 3)).unbind(dim=1)
        return cls(logits, centre, (log_scale - 2).clamp(min=-7), couple.tanh())

    def log_prob(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B H W"]:
        """ln P of each pixel, its three channels together, in nats; x lies on the grid."""
        x, half = x.unsqueeze(1), 1 / (self.levels - 1)  # "B 1 3 H W"
        inverse = (-self.log_scale).exp()
        apart = x - self._means(x)
        below, above = inverse * (apart - half), inverse * (apart + half)
        # ln(σ(a) − σ(b)) = ln σ(a) + ln σ(−b) + ln(1 − e^(b − a)): exact, and never ln 0.
        inside = torch.log(-torch.expm1(-2 * half * inverse))
        lowest, highest = x < half - 1, x > 1 - half
        left = F.logsigmoid(above).masked_fill(highest, 0)
        right = F.logsigmoid(-below).masked_fill(lowest, 0)
        each = left + right + inside.masked_fill(lowest | highest, 0)
        return (each.sum(dim=2) + self.logits.log_softmax(dim=1)).logsumexp(dim=1)

    @property
    def mean(self) -> Float[Tensor, "B 3 H W"]:
        """E[x], the grid and its ends left aside: at most [−1, 1]."""
        share = self.logits.softmax(dim=1).unsqueeze(2)
        return (share * self._centres()).sum(dim=1).clamp(-1, 1)

    @property
    def std(self) -> Float[Tensor, "B 3 H W"]:
        """The standard deviation of each channel, the grid and its ends left aside."""
        share, centre = self.logits.softmax(dim=1).unsqueeze(2), self._centres()
        own = (2 * self.log_scale).exp() * (math.pi**2 / 3)
        red, green, blue = own.unbind(dim=2)
        alpha, beta, gamma = self.couple.unbind(dim=2)
        # Red reaches blue on its own and through green.
        blue = blue + (beta + gamma * alpha).square() * red + gamma.square() * green
        within = torch.stack((red, green + alpha.square() * red, blue), dim=2)
        mean = (share * centre).sum(dim=1, keepdim=True)
        return (share * (within + (centre - mean).square())).sum(dim=1).sqrt()

    def sample(self, rng: Generator | None = None) -> Float[Tensor, "B 3 H W"]:
        """Colours on the grid: a component for each pixel, then red, green, blue."""
        device = self.logits.device if rng is None else rng.device

        def drawn(like: Tensor) -> Tensor:
            return torch.rand(like.shape, generator=rng, device=device).to(like.device, like.dtype)

        gumbel = -(-drawn(self.logits).clamp(min=1e-12).log()).log()
        chosen = (self.logits + gumbel).argmax(dim=1, keepdim=True).unsqueeze(2)
        index = chosen.expand(-1, 1, 3, -1, -1)
        centre, log_scale, couple = (
            part.gather(1, index).squeeze(1) for part in (self.centre, self.log_scale, self.couple)
        )
        u = drawn(centre).clamp(1e-6, 1 - 1e-6)
        noise = log_scale.exp() * (u.log() - torch.log1p(-u))
        red = self._on_grid(centre[:, 0] + noise[:, 0])
        green = self._on_grid(centre[:, 1] + couple[:, 0] * red + noise[:, 1])
        seen = couple[:, 1] * red + couple[:, 2] * green
        return torch.stack((red, green, self._on_grid(centre[:, 2] + seen + noise[:, 2])), dim=1)

    def _means(self, x: Float[Tensor, "B 1 3 H W"]) -> Float[Tensor, "B K 3 H W"]:
        """Where the logistic laws lie when the channels before are those of x."""
        red, green, _ = x.unbind(dim=2)
        alpha, beta, gamma = self.couple.unbind(dim=2)
        shift = torch.stack((torch.zeros_like(alpha), alpha * red, beta * red + gamma * green), 2)
        return self.centre + shift

    def _centres(self) -> Float[Tensor, "B K 3 H W"]:
        """The mean colour of each component."""
        red, green, blue = self.centre.unbind(dim=2)
        alpha, beta, gamma = self.couple.unbind(dim=2)
        green = green + alpha * red
        return torch.stack((red, green, blue + beta * red + gamma * green), dim=2)

    def _on_grid(self, x: Tensor) -> Tensor:
        steps = (self.levels - 1) / 2
        return ((x.clamp(-1, 1) + 1) * steps).round() / steps - 1
