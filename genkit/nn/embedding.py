"""Numbers as vectors: a time, and a place in the picture, as sines and cosines.

    γ(u) = (sin ω₁u, cos ω₁u, sin ω₂u, cos ω₂u, …)

For a time, ω runs geometrically from ½ to 256 radians per unit, which suits t in [0, 1] and
logarithms of noise levels alike. For a place, u is the centre of a cell in units of the whole
side, (i + ½)/H in [0, 1], and ω_k = π·2ᵏ: the same net then works on other sizes, where "left"
still means the left third.

References:
    Attention Is All You Need (Vaswani et al., 2017; section 3.5)
        https://arxiv.org/abs/1706.03762
    NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis (Mildenhall et al.,
        2020; equation 4)  https://arxiv.org/abs/2003.08934
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genkit.nn.layers import full

__all__ = ["Position", "TimeEmbedding", "coordinates", "waves"]


def waves(u: Float[Tensor, "*B"], omega: Float[Tensor, " F"]) -> Float[Tensor, "*B F2"]:
    """Returns sin(ω·u) and cos(ω·u) for every ω, on a new last axis of size 2F."""
    angle = u[..., None] * omega
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


def coordinates(
    height: int, width: int, bands: int, device: torch.device
) -> Float[Tensor, "1 F H W"]:
    """Returns the sines and cosines of the place of every cell; F = 4·bands."""
    omega = math.pi * 2 ** torch.arange(bands, device=device, dtype=torch.float32)
    y = waves((torch.arange(height, device=device) + 0.5) / height, omega)
    x = waves((torch.arange(width, device=device) + 0.5) / width, omega)
    y = y[:, None].expand(-1, width, -1)
    x = x[None].expand(height, -1, -1)
    return torch.cat((y, x), dim=-1).permute(2, 0, 1)[None]


class Position(nn.Module):
    """Adds a linear map of the place of every cell to a feature map.

    Args:
        channels: Channels of the feature map.
        bands: Number of frequencies along each axis; the finest period is 2^(2 − bands) sides.
    """

    def __init__(self, channels: int, bands: int = 4) -> None:
        super().__init__()
        self.bands = bands
        self.linear = nn.Linear(4 * bands, channels, bias=False)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        place = coordinates(*x.shape[-2:], self.bands, x.device).to(self.linear.weight.dtype)
        return x + self.linear(place.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).to(x.dtype)


class TimeEmbedding(nn.Module):
    """A time or noise level as a vector: two linear layers over its sines and cosines.

    Args:
        dim: Size D of the vector.
        bands: Number of frequencies.
    """

    def __init__(self, dim: int, bands: int = 64) -> None:
        super().__init__()
        self.bands = bands
        self.layers = nn.Sequential(nn.Linear(2 * bands, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, time: Float[Tensor, " B"]) -> Float[Tensor, "B D"]:
        # Computed here, not kept: a module in bfloat16 would round the frequencies.
        exponent = torch.linspace(-1, 8, self.bands, device=time.device)
        return self.layers(waves(full(time), 2**exponent).to(self.layers[0].weight.dtype))
