"""Guidance: a denoiser that follows its condition more than it learned to.

    x̂_0 = x̂_0(negative) + scale · (x̂_0(cond) − x̂_0(negative))

is a denoiser itself, so no sampler knows about guidance. It is the classifier-free guidance of
the noise or of the velocity: at one (x_t, t) they are affine in x̂_0, and the weights sum to one.

    scale 0   the negative condition alone           one forward pass per picture
    scale 1   the condition alone, no guidance       one forward pass per picture
    others    both, as one batch of twice the size   two forward passes per picture
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from genkit.diffusion.denoise import NOTHING, Condition, Denoises
from genkit.diffusion.schedule import Schedule
from genkit.distributions import Dirac, Distribution

__all__ = ["Guided"]


@dataclass(frozen=True, eq=False)
class Guided:
    """Classifier-free guidance of a denoiser.

    Args:
        denoiser: What is guided.
        scale: Strength; 1 is none, above 1 exaggerates the condition, below 0 avoids it.
        negative: The condition to move away from (the empty text, a negative prompt), with the
            same names and shapes as the condition; a batch of 1 serves every picture.

    Raises:
        ValueError: The scale is not finite, or the condition and the negative do not match.

    References:
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022)
            https://arxiv.org/abs/2207.12598
    """

    denoiser: Denoises
    scale: float
    negative: Condition

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f"the guidance scale is {self.scale}; it must be finite (1 = none)")

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

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
        x0 = self.denoiser(x_t.repeat(2, 1, 1, 1), t.repeat(2), both).mean
        asked, avoided = x0.chunk(2)
        return Dirac(avoided + self.scale * (asked - avoided))

    def _matched(self, cond: Condition, batch: int) -> Condition:
        """The negative condition with one row per picture, after checking that it fits `cond`."""
        if cond.keys() != self.negative.keys():
            raise ValueError(
                f"the condition has {sorted(cond)}, the negative one {sorted(self.negative)}; "
                "give both the same names"
            )
        negative = {}
        for name, value in self.negative.items():
            if value.shape[1:] != cond[name].shape[1:] or len(value) not in (1, batch):
                raise ValueError(
                    f"the negative {name!r} has shape {tuple(value.shape)}, the condition "
                    f"{tuple(cond[name].shape)}; make them equal, or the negative a batch of 1"
                )
            negative[name] = value.expand(batch, *value.shape[1:])
        return negative
