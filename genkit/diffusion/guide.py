"""Guidance: a denoiser that follows its condition more than it learned to.

Classifier-free, from the same network with and without the condition:

    x̂_0 = x̂_0(negative) + scale · (x̂_0(cond) − x̂_0(negative))

is a denoiser itself, so no sampler knows about guidance. It is the classifier-free guidance of
the noise or of the velocity: at one (x_t, t) they are affine in x̂_0, and the weights sum to one.

    scale 0   the negative condition alone           one forward pass per picture
    scale 1   the condition alone, no guidance       one forward pass per picture
    others    both, as one batch of twice the size   two forward passes per picture

By a classifier of noisy pictures, a network of its own:

    x̂_0 = x̂_0(cond) + scale · (σ_t²/α_t) ∇ ln P(label | x_t)

which is a denoiser again. Since E[x_0 | x_t] = (x_t + σ_t² ∇ ln p(x_t))/α_t (Tweedie), scale 1
turns an unconditional denoiser into the conditional one exactly, by Bayes' rule; above 1 the
label is followed as if it had been said several times.

A learned variance (see `variance`) passes through both: guidance moves the mean only.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genkit.diffusion.denoise import NOTHING, Condition, Wrapper
from genkit.diffusion.schedule import spread
from genkit.distributions import Categorical, Dirac, Distribution, Gaussian

__all__ = ["Apart", "ClassifierGuided", "Classifies", "Clipped", "Guided"]


@dataclass(frozen=True, eq=False)
class Guided(Wrapper):
    """Classifier-free guidance of a denoiser.

    Args:
        denoiser: What is guided.
        scale: Strength; 1 is none, above 1 exaggerates the condition, below 0 avoids it.
        negative: The condition to move away from (the empty text, a negative prompt), in shapes
            as the condition; a batch of 1 serves every picture. What it does not name, a hint
            say, is the same on both sides and is not exaggerated.

    Raises:
        ValueError: The scale is not finite, or the condition and the negative do not match.

    References:
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022)
            https://arxiv.org/abs/2207.12598
    """

    scale: float
    negative: Condition

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f"the guidance scale is {self.scale}; it must be finite (1 = none)")

    @property
    def passes(self) -> int:
        return self.denoiser.passes * (1 if self.scale in (0, 1) else 2)

    def __call__(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Distribution:
        if self.scale == 1:
            return self.denoiser(x_t, t, cond)
        negative = self._matched(cond, len(x_t))
        if self.scale == 0:
            return self.denoiser(x_t, t, negative)
        both = {name: torch.cat([cond[name], negative[name]]) for name in cond}
        answer = self.denoiser(x_t.repeat(2, 1, 1, 1), t.repeat(2), both)
        asked, avoided = answer.mean.chunk(2)
        x0 = avoided + self.scale * (asked - avoided)
        if isinstance(answer, Gaussian):
            return Gaussian(x0, answer.std[: len(x0)])
        return Dirac(x0)

    def _matched(self, cond: Condition, batch: int) -> Condition:
        """The negative condition with one row per picture, after checking that it fits `cond`."""
        if not self.negative or self.negative.keys() - cond.keys():
            raise ValueError(
                f"the condition has {sorted(cond)}, the negative one {sorted(self.negative)}; "
                "name at least one of the condition's in the negative, and no other"
            )
        negative = dict(cond)
        for name, value in self.negative.items():
            if value.shape[1:] != cond[name].shape[1:] or len(value) not in (1, batch):
                raise ValueError(
                    f"the negative {name!r} has shape {tuple(value.shape)}, the condition "
                    f"{tuple(cond[name].shape)}; make them equal, or the negative a batch of 1"
                )
            negative[name] = value.expand(batch, *value.shape[1:])
        return negative


@runtime_checkable
class Classifies(Protocol):
    """P(label | x_t), differentiable in x_t."""

    def __call__(self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"]) -> Categorical:
        """One die per picture."""


@dataclass(frozen=True, eq=False)
class ClassifierGuided(Wrapper):
    """Guidance of a denoiser by a classifier of noisy pictures.

    The class to be followed is the condition "label". The denoiser sees it too and may ignore it:
    an unconditional one is `Guided(denoiser, 0, blank)`.

    A step of the chain is moved by scale·β/√(1 − β)·∇ ln P, the paper's algorithm 2; its
    algorithm 1 has the step's own variance in place of β/√(1 − β). The classifier's pass, forward
    and backward, is not among `passes`, which count the denoiser's network.

    Args:
        denoiser: What is guided.
        classifier: P(label | x_t), trained with the noise of the same schedule.
        scale: Strength; 0 is none, 1 is Bayes' rule, above 1 exaggerates.

    Raises:
        ValueError: The scale is not finite, a picture's label is missing or no class of the
            classifier, or a time has α = 0.

    References:
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), section 4,
            algorithm 2
            https://arxiv.org/abs/2105.05233
    """

    classifier: Classifies
    scale: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f"the guidance scale is {self.scale}; it must be finite (0 = none)")

    def __call__(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Distribution:
        if "label" not in cond:
            raise ValueError(
                "classifier guidance follows the condition 'label', which is missing; pass "
                "{'label': classes}, one per picture"
            )
        answer = self.denoiser(x_t, t, cond)
        if self.scale == 0:
            return answer
        alpha, sigma = self.schedule(t)
        if bool((alpha == 0).any()):
            raise ValueError(
                "classifier guidance is undefined at alpha = 0, where x_t holds no data; "
                "keep times below 1"
            )
        weight = spread(self.scale * sigma.square() / alpha, x_t)
        x0 = answer.mean + weight * self._gradient(x_t, t, cond["label"])
        return Gaussian(x0, answer.std) if isinstance(answer, Gaussian) else Dirac(x0)

    def _gradient(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], label: Int[Tensor, "N"]
    ) -> Float[Tensor, "B C H W"]:
        """∇ ln P(label | x_t); itself differentiable where x_t is, as a likelihood needs."""
        inside = torch.is_grad_enabled() and x_t.requires_grad
        with torch.enable_grad():  # samplers turn gradients off
            x = x_t if inside else x_t.detach().requires_grad_()
            said = self.classifier(x, t)
            if len(label) != len(x) or not 0 <= label.min() <= label.max() < said.logits.shape[-1]:
                raise ValueError(
                    f"labels {label.tolist()} for {len(x)} pictures; give each picture one of the "
                    f"classifier's {said.logits.shape[-1]} classes"
                )
            chance = said.log_prob(label).sum()
            return torch.autograd.grad(chance, x, create_graph=inside)[0]


@dataclass(frozen=True, eq=False)
class Clipped(Wrapper):
    """A denoiser whose x̂_0 stays among the pictures, in [−1, 1].

    At high noise an ε-prediction divides its error by a small α; the published code of DDPM and
    of guided diffusion clips like this in every step.

    Args:
        denoiser: Its answer's mean is clipped, its deviation is kept.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020)
            https://arxiv.org/abs/2006.11239
    """

    def __call__(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Distribution:
        answer = self.denoiser(x_t, t, cond)
        x0 = answer.mean.clamp(-1, 1)
        return Gaussian(x0, answer.std) if isinstance(answer, Gaussian) else Dirac(x0)


@dataclass(frozen=True, eq=False)
class Apart(Wrapper):
    """A denoiser that answers for one picture at a time, to the last bit as if it were alone.

    Sums are rounded in another order in a batch of another size, and a trajectory enlarges the
    difference. The price: eight float32 pictures take 1.7 times as long on two processor cores.

    Args:
        denoiser: What answers; conditions have one row per picture.
    """

    def __call__(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Distribution:
        each = [slice(i, i + 1) for i in range(len(x_t))]
        answers = [
            self.denoiser(x_t[one], t[one], {name: rows[one] for name, rows in cond.items()})
            for one in each
        ]
        mean = torch.cat([answer.mean for answer in answers])
        if isinstance(answers[0], Gaussian):
            return Gaussian(mean, torch.cat([answer.std for answer in answers]))
        return Dirac(mean)
