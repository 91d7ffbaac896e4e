"""The reader: a picture of the picture book becomes the labels of its scene.

    p(labels | x) = heads(transformer(scene tokens, features(x)))

A small convolutional net turns the picture into a middle and a coarse feature map (of 1/8 and
1/16 of the side of a picture of 128²); S learned scene tokens then look at both maps. Token 0
answers for the whole scene, tokens 1, 2, 3 for the left, the middle and the right. The reader is
the ruler of prompt fidelity: what was asked for is compared with what it finds. The means of its
feature maps are the features of Fréchet distances (`genkit.frechet`).

References:
    End-to-End Object Detection with Transformers (Carion et al., 2020; learned queries)
        https://arxiv.org/abs/2005.12872
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genkit.distributions import Categorical
from genkit.model import Model
from genkit.models.text import SceneHeads
from genkit.nn.convnet import ConvBlock, Patchify
from genkit.nn.embedding import Position
from genkit.nn.transformer import Layer

__all__ = ["Reader"]


class Reader(Model):
    """Picture in [−1, 1] → a Categorical for every label of the picture book.

    Args:
        widths: Channels of the fine, the middle and the coarse map.
        blocks: Residual blocks of each.
        dim: Size of a scene token.
        layers: Number of transformer layers in which the scene tokens look at the features.
        heads: Number of attention heads.
        tokens: Number S of scene tokens, at least 4.
        patches: How many times smaller each map is than the one before it, the first than the
            picture.
        size: Side of the pictures it was trained on, in pixels.
    """

    def __init__(
        self,
        widths: tuple[int, int, int] = (64, 128, 192),
        blocks: tuple[int, int, int] = (1, 2, 1),
        dim: int = 192,
        layers: int = 2,
        heads: int = 6,
        tokens: int = 8,
        patches: tuple[int, int, int] = (4, 2, 2),
        size: int = 128,
    ) -> None:
        super().__init__()
        self.size = size
        fine, middle, coarse = widths
        self.multiple = math.prod(patches)
        self.fine = _stage(3, fine, patches[0], blocks[0])
        self.middle = _stage(fine, middle, patches[1], blocks[1])
        self.coarse = _stage(middle, coarse, patches[2], blocks[2])
        self.look_middle = nn.Sequential(Position(middle), nn.Conv2d(middle, dim, 1))
        self.look_coarse = nn.Sequential(Position(coarse), nn.Conv2d(coarse, dim, 1))
        self.scene = nn.Parameter(torch.randn(tokens, dim))
        self.layers = nn.ModuleList(Layer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.heads = SceneHeads(dim)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> dict[str, Categorical]:
        """Returns p(label | x) for every label.

        Raises:
            ValueError: If a side of the pictures is not a multiple of all patches together.
        """
        middle, coarse = self._maps(x)
        maps = (self.look_middle(F.silu(middle)), self.look_coarse(F.silu(coarse)))
        features = torch.cat([f.flatten(2).transpose(1, 2) for f in maps], dim=1)  # "B N D"
        tokens = self.scene.expand(len(x), -1, -1)
        for layer in self.layers:
            # The tokens see each other too, so that two of them need not claim the same thing.
            tokens = layer(tokens, torch.cat((tokens.to(features.dtype), features), dim=1))
        return self.heads(self.norm(tokens))

    def features(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """The means of the middle and the coarse map over the picture, D = their channels.

        Raises:
            ValueError: If a side of the pictures is not a multiple of all patches together.
        """
        return torch.cat([F.silu(f).mean(dim=(2, 3)) for f in self._maps(x)], dim=1)

    def _maps(
        self, x: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B E k l"]]:
        """The middle and the coarse feature map."""
        if x.shape[-1] % self.multiple or x.shape[-2] % self.multiple:
            raise ValueError(
                f"The picture is {x.shape[-1]}×{x.shape[-2]}; the sides must be multiples of "
                f"{self.multiple}: resize it."
            )
        middle = self.middle(self.fine(x.to(self.scene.dtype)))
        return middle, self.coarse(middle)


def _stage(channels: int, out: int, patch: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(Patchify(channels, out, patch), *(ConvBlock(out) for _ in range(blocks)))
