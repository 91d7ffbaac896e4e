"""Zero terminal SNR: a chain whose last step is pure noise.

The published chains stop short of noise: at t = 1 Stable Diffusion keeps α = 0.068 of the picture,
enough to give away its mean brightness. A network learns to read it there, while a sampler starts
from noise without it: every sample comes out of middling brightness. The cure is to shift and
scale α so that it ends at 0 and begins where it did:

    α'_t = (α_t − α_1) α_0/(α_0 − α_1),      σ'_t = √(1 − α'_t²)       (α_0, α_1 at t = 0, 1)

At the discrete steps this is the paper's algorithm, and between them the chain's own curve. ε says
nothing at α = 0, so such a schedule needs V, X0 or Flow.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from genkit.diffusion.curve import Discrete, Level

__all__ = ["ZeroTerminal"]


@dataclass(frozen=True)
class ZeroTerminal(Discrete):
    """A discrete schedule rescaled to α = 0 at t = 1, exactly.

    Args:
        base: The chain to rescale.

    References:
        Common Diffusion Noise Schedules and Sample Steps are Flawed
            (Lin et al., 2024), algorithm 1
            https://arxiv.org/abs/2305.08891
    """

    base: Discrete

    @property
    def T(self) -> int:
        return self.base.T

    def betas(self) -> Float[Tensor, "T"]:
        alpha, sigma = self(torch.arange(self.T, dtype=torch.float64, device="cpu") / (self.T - 1))
        return torch.cat([sigma[:1].square(), 1 - (alpha[1:] / alpha[:-1]).square()])

    def __call__(self, t: Float[Tensor, "*B"]) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
        first, last = _ends(self.base)
        scale = first.alpha / (first.alpha - last.alpha)
        alpha, sigma = self.base(t)
        scaled = torch.where(t < 1, scale * (alpha - last.alpha), 0.0).clamp(min=0)
        # 1 − α' as a sum of terms ≥ 0, since a difference would lose σ' near t = 0:
        # 1 − α_0 = σ_0²/(1 + α_0)  and  α_0 − α_t = (σ_t² − σ_0²)/(α_0 + α_t).
        lost = first.sigma**2 / (1 + first.alpha)
        lost = lost + scale * (sigma.square() - first.sigma**2) / (first.alpha + alpha)
        return scaled, torch.where(t < 1, (lost * (1 + scaled)).sqrt(), 1.0)

    def time(self, ratio: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        first, last = _ends(self.base)
        scaled = (1 + ratio.square()).rsqrt()
        alpha = scaled * (1 - last.alpha / first.alpha) + last.alpha
        return self.base.time((1 - alpha.square()).clamp(min=0).sqrt() / alpha)

    def beta(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """−2 d ln α'/dt = β(t) α_t/(α_t − α_1), infinite at t = 1."""
        alpha, _ = self.base(t)
        left = alpha - _ends(self.base)[1].alpha
        return torch.where(t < 1, self.base.beta(t) * alpha / left, math.inf)


@lru_cache(maxsize=32)
def _ends(base: Discrete) -> tuple[Level, Level]:
    return base.level(0.0), base.level(1.0)
