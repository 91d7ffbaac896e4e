"""The smallest pieces: initial values, precision, and normalisation that is fast on a CPU.

    zeros(f)          f with all parameters 0, so that  x + f(…)  starts as the identity
    full(x)           x in float32 at least: statistics and probabilities are never bfloat16
    Modulate          y = x·(1 + scale(c)) + shift(c), starts as y = x
    Head              a convolution whose outputs are numbers of a distribution, not features

Conventions: pictures and feature maps are "B C H W" (channels_last in memory), sequences are
"B N D".

References:
    FiLM: Visual Reasoning with a General Conditioning Layer (Perez et al., 2018)
        https://arxiv.org/abs/1709.07871
    Scalable Diffusion Models with Transformers (Peebles and Xie, 2023; adaLN-Zero)
        https://arxiv.org/abs/2212.09748
"""

from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Head", "Modulate", "full", "zeros"]

M = TypeVar("M", bound=nn.Module)


def zeros(module: M) -> M:
    """Sets every parameter of the module to zero and returns it."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def full(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Returns x in float32, or in float64 if it is already that precise."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Modulate(nn.Module):
    """Feature-wise affine change of a feature map by a vector: y = x·(1 + a(c)) + b(c).

    Args:
        channels: Number of channels C of x.
        dim: Size D of the vector c.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.affine = zeros(nn.Linear(dim, 2 * channels))

    def forward(
        self, x: Float[Tensor, "B C H W"], c: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B C H W"]:
        a, b = self.affine(c)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(x + b, x, a)


class Head(nn.Conv2d):
    """A convolution that answers with means, logarithms of deviations and the like.

    Every output has a scale of its own, so an optimiser should not treat the kernel as one matrix
    (`genkit.optimizer.muon`).
    """
