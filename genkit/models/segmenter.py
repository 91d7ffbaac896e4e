"""The segmenter: which part of the picture book every pixel shows.

    p(part of pixel | x) = softmax(up(down(x)))

A small U-Net of convolutions: feature maps of 1/4, 1/8 and 1/16 of the side on the way down,
joined again on the way up, and a pixel shuffle to the picture's own resolution. It is the ruler of
painted maps: what was painted is compared with what it sees in the picture that was made.

References:
    U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger et al., 2015)
        https://arxiv.org/abs/1505.04597
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genkit.data.picturebook.canvas import PARTS
from genkit.distributions import Categorical
from genkit.model import Model
from genkit.nn.convnet import Patchify, Unpatchify, blocks
from genkit.nn.embedding import Position

__all__ = ["Segmenter"]

FIRST = 4
"""Pixels of a side of a cell of the finest map."""


class Segmenter(Model):
    """Picture in [−1, 1] → a Categorical over the parts for every pixel.

    Args:
        widths: Channels of the fine, the middle and the coarse map.
        counts: Residual blocks of each, on either way.
        classes: Number K of parts.
        size: Side of the pictures it was trained on, in pixels.
    """

    def __init__(
        self,
        widths: tuple[int, int, int] = (64, 128, 192),
        counts: tuple[int, int, int] = (1, 1, 2),
        classes: int = len(PARTS),
        size: int = 128,
    ) -> None:
        super().__init__()
        self.size = size
        fine, middle, coarse = widths
        self.fine = nn.Sequential(Patchify(3, fine, FIRST), *blocks(fine, counts[0]))
        self.middle = nn.Sequential(Patchify(fine, middle, 2), *blocks(middle, counts[1]))
        self.coarse = nn.Sequential(
            Patchify(middle, coarse, 2), Position(coarse), *blocks(coarse, counts[2])
        )
        self.to_middle, self.to_fine = Unpatchify(coarse, middle, 2), Unpatchify(middle, fine, 2)
        self.up_middle = nn.Sequential(*blocks(middle, counts[1]))
        self.up_fine = nn.Sequential(*blocks(fine, counts[0]))
        self.last = Unpatchify(fine, classes, FIRST, kernel=3)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Categorical:
        """Returns p(part) of every pixel; logits "B H W K".

        Raises:
            ValueError: If a side of the pictures is not a multiple of 16.
        """
        if x.shape[-1] % (4 * FIRST) or x.shape[-2] % (4 * FIRST):
            raise ValueError(
                f"The picture is {x.shape[-1]}×{x.shape[-2]}; the sides must be multiples of "
                f"{4 * FIRST}: resize it."
            )
        fine = self.fine(x.to(self.last.conv.weight.dtype))
        middle = self.middle(fine)
        middle = self.up_middle(middle + self.to_middle(self.coarse(middle)))
        fine = self.up_fine(fine + self.to_fine(middle))
        return Categorical(self.last(F.silu(fine)).permute(0, 2, 3, 1))

    @torch.no_grad()
    def parts(self, x: Float[Tensor, "B 3 H W"]) -> Tensor:
        """The likeliest part of every pixel, uint8 "B H W"."""
        return self(x).mode.to(torch.uint8)
