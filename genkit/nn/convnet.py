"""Convolutional pieces: a residual block without normalisation, and changes of resolution.

    ConvBlock         y = x + W₂·SiLU(W₁·SiLU(x)),  W₂ = 0 at the start
    Patchify(p)       "C H W" → "D H/p W/p": every p×p patch becomes one vector (linear)
    Unpatchify(p)     "C H W" → "D H·p W·p": the reverse, a convolution and a pixel shuffle
    Contract          a picture → feature maps of 1/2, 1/4, 1/8 … of its side

There is no normalisation here: a flat colour is a constant that a normalisation over space would
erase, and on a CPU it costs as much as a convolution. Starting every residual branch at zero
keeps the variance under control instead.

References:
    Fixup Initialization: Residual Learning Without Normalization (Zhang et al., 2019)
        https://arxiv.org/abs/1901.09321
    Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
        Neural Network (Shi et al., 2016; the pixel shuffle)
        https://arxiv.org/abs/1609.05158
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genkit.nn.layers import zeros

__all__ = ["ConvBlock", "Contract", "Patchify", "Unpatchify", "blocks"]


class ConvBlock(nn.Module):
    """Residual block y = x + W₂·SiLU(W₁·SiLU(x)) of two 3×3 convolutions; the identity at first.

    Args:
        channels: Number of channels of x and y.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = zeros(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return x + self.last(F.silu(self.first(F.silu(x))))


class Patchify(nn.Conv2d):
    """Every patch of p×p pixels becomes one vector, by a linear map.

    Args:
        channels: Channels of the input.
        out: Channels of the output.
        patch: Side p of a patch in pixels; it must divide the height and the width.
    """

    def __init__(self, channels: int, out: int, patch: int) -> None:
        super().__init__(channels, out, patch, stride=patch)


class Unpatchify(nn.Module):
    """Every vector becomes a patch of p×p pixels, by a k×k convolution and a pixel shuffle.

    Args:
        channels: Channels of the input.
        out: Channels of the output.
        patch: Side p of a patch in pixels.
        kernel: Side k of the convolution; 3 lets a patch see its neighbours, so that no seams
            appear between patches.
        layer: What convolves: a `Head` where the patches are numbers of a distribution.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        patch: int,
        kernel: int = 1,
        layer: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.conv = layer(channels, out * patch**2, kernel, padding=kernel // 2)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D Hp Wp"]:
        return F.pixel_shuffle(self.conv(x), self.patch)


class Contract(nn.Module):
    """Feature maps of a picture, each half as wide and high as the one before it.

    Args:
        widths: Channels of the map of half the side, of a quarter …
        counts: Residual blocks of each.
        channels: Channels of the picture.
    """

    def __init__(
        self, widths: tuple[int, ...], counts: tuple[int, ...], channels: int = 3
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(Patchify(before, width, 2), *blocks(width, count))
            for before, width, count in zip((channels, *widths), widths, counts)
        )

    def forward(self, x: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B D h w"]]:
        """Returns the maps, the finest first."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def blocks(channels: int, count: int) -> list[ConvBlock]:
    """`count` residual blocks of one width."""
    return [ConvBlock(channels) for _ in range(count)]
