"""A small U-Net for latents: convolutions at the full and the half size, attention inside.

    full size   stem → blocks ─────────────── skips ──────────────→ blocks → out
                          ↘ half size: blocks, each with attention ↗

    block       y = x + W₂·SiLU(W₁·SiLU(FiLM(N(x), c)))        c = time + mean of the text tokens
    mix         z = y + SelfAttention(n) + CrossAttention(n, text),  n = N(y)

Most of the work is done at the half size, where every cell sees every other cell (64 of them for
16×16 latents) and the tokens of the text. At the full size cells ask the text only, which costs
next to nothing for eight tokens. Sines of the place are added at both sizes, in units of the side,
so other sizes work and "left" keeps its meaning. N is GroupNorm; every residual branch and the
last convolution end in zeros, so a fresh net returns 0.

References:
    U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger et al., 2015)
        https://arxiv.org/abs/1505.04597
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021; attention and
        feature-wise modulation inside a U-Net)  https://arxiv.org/abs/2105.05233
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022; cross-
        attention to text)  https://arxiv.org/abs/2112.10752
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genkit.model import Model
from genkit.nn.attention import Attention
from genkit.nn.convnet import Patchify, Unpatchify
from genkit.nn.embedding import Position, TimeEmbedding
from genkit.nn.layers import Head, Modulate, zeros

__all__ = ["Block", "Contraction", "Look", "Mix", "UNet", "group_norm"]

GROUP = 16
"""Channels that one group of a GroupNorm holds."""


class Block(nn.Module):
    """Residual block of two 3×3 convolutions, modulated by a vector; a skip or identity at first.

    Args:
        channels: Channels of the input.
        out: Channels of the output; a 1×1 convolution joins them where they differ.
        dim: Size D of the vector.
    """

    def __init__(self, channels: int, out: int, dim: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.modulate = Modulate(channels, dim)
        self.first = nn.Conv2d(channels, out, 3, padding=1)
        self.last = zeros(nn.Conv2d(out, out, 3, padding=1))
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(
        self, x: Float[Tensor, "B C H W"], c: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B E H W"]:
        h = self.first(F.silu(self.modulate(self.norm(x), c)))
        return self.skip(x) + self.last(F.silu(h))


class Mix(nn.Module):
    """Every cell attends to the text and, where `cells`, to every cell; identity at first.

    Args:
        channels: Channels of the feature map.
        text: Size E of a text token.
        heads: Number of attention heads.
        cells: Whether cells attend to each other too, side by side with the text.
    """

    def __init__(self, channels: int, text: int, heads: int, cells: bool) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.text = Attention(channels, heads, text)
        self.cells = Attention(channels, heads) if cells else None

    def forward(
        self, x: Float[Tensor, "B C H W"], text: Float[Tensor, "B S E"]
    ) -> Float[Tensor, "B C H W"]:
        n = self.norm(x).flatten(2).transpose(1, 2)  # "B HW C", a view in channels_last
        y = self.text(n, text)
        if self.cells is not None:
            y = y + self.cells(n)
        return x + y.transpose(1, 2).unflatten(2, x.shape[-2:])


class Look(nn.Module):
    """Every cell looks at every cell: y = x + SelfAttention(N(x)); the identity at first.

    Args:
        channels: Channels of the feature map.
        heads: Number of attention heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.cells = Attention(channels, heads)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        n = self.norm(x).flatten(2).transpose(1, 2)  # "B HW C", a view in channels_last
        return x + self.cells(n).transpose(1, 2).unflatten(2, x.shape[-2:])


class Contraction(Model):
    """The way down and the bottom of a U-Net: what sees the noise, the time and the text.

    A `UNet` is this and a way up; a `Control` (`genkit.models.controlnet`) is a second one that
    sees a hint as well. Their parameters have the same names.

    Args:
        latent: Channels C of the latents.
        channels: Widths at the full and at the half size; multiples of 16 and of their heads.
        blocks: Blocks on either side at the full size, and blocks at the half size.
        heads: Attention heads at the full and at the half size.
        text: Size E of a text token.
        dim: Size D of the vector that modulates the blocks.

    Raises:
        ValueError: If a width is not a multiple of 16.
    """

    def __init__(
        self,
        latent: int,
        channels: tuple[int, int],
        blocks: tuple[int, int],
        heads: tuple[int, int],
        text: int,
        dim: int,
    ) -> None:
        super().__init__()
        fine, coarse = channels
        self.time = TimeEmbedding(dim)
        self.summary = nn.Linear(text, dim)
        self.stem = nn.Sequential(nn.Conv2d(latent, fine, 3, padding=1), Position(fine))
        self.down = nn.ModuleList(Block(fine, fine, dim) for _ in range(blocks[0]))
        self.ask = Mix(fine, text, heads[0], cells=False)
        self.shrink = nn.Sequential(Patchify(fine, coarse, 2), Position(coarse))
        self.middle = nn.ModuleList(Block(coarse, coarse, dim) for _ in range(blocks[1]))
        self.mix = nn.ModuleList(Mix(coarse, text, heads[1], cells=True) for _ in range(blocks[1]))

    def vector(
        self, time: Float[Tensor, " B"], text: Float[Tensor, "B S E"]
    ) -> Float[Tensor, "B D"]:
        """What modulates the blocks: the time, and the mean of the text."""
        return F.silu(self.time(time) + self.summary(text.mean(dim=1)))

    def contract(
        self,
        x: Float[Tensor, "B C H W"],
        c: Float[Tensor, "B D"],
        text: Float[Tensor, "B S E"],
        added: Float[Tensor, "B F H W"] | None = None,
    ) -> tuple[Float[Tensor, "B F H W"], Float[Tensor, "B G h w"]]:
        """Returns the maps at the full size and at the bottom.

        Args:
            x: Noisy latents, already scaled by c_in; even sides.
            c: The vector.
            text: Scene tokens of the caption.
            added: What the stem's map is joined by.

        Raises:
            ValueError: If a side of the latents is odd.
        """
        if x.shape[-1] % 2 or x.shape[-2] % 2:
            raise ValueError(
                f"The latents are {x.shape[-1]}×{x.shape[-2]}; both sides must be even: choose a "
                "picture size that is a multiple of 16."
            )
        x = self.stem(x)
        if added is not None:
            x = x + added
        for block in self.down:
            x = block(x, c)
        skip = self.ask(x, text)
        x = self.shrink(skip)
        for block, mix in zip(self.middle, self.mix, strict=True):
            x = mix(block(x, c), text)
        return skip, x


class UNet(Contraction):
    """Backbone of a latent denoiser: F(x_t, time, text), the same shape as x_t; 0 at first.

    Args:
        latent: Channels C of the latents.
        channels: Widths at the full and at the half size; multiples of 16 and of their heads.
        blocks: Blocks on either side at the full size, and blocks at the half size.
        heads: Attention heads at the full and at the half size.
        text: Size E of a text token.
        dim: Size of the vector that modulates the blocks.

    Raises:
        ValueError: If a width is not a multiple of 16.
    """

    def __init__(
        self,
        latent: int = 8,
        channels: tuple[int, int] = (128, 256),
        blocks: tuple[int, int] = (2, 4),
        heads: tuple[int, int] = (2, 4),
        text: int = 192,
        dim: int = 256,
    ) -> None:
        super().__init__(latent, channels, blocks, heads, text, dim)
        fine, coarse = channels
        self.enlarge = Unpatchify(coarse, fine, 2)
        self.up = nn.ModuleList(
            Block(2 * fine if i == 0 else fine, fine, dim) for i in range(blocks[0])
        )
        self.ask_again = Mix(fine, text, heads[0], cells=False)
        self.out = nn.Sequential(
            group_norm(fine), nn.SiLU(), zeros(Head(fine, latent, 3, padding=1))
        )

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        time: Float[Tensor, " B"],
        text: Float[Tensor, "B S E"],
        skip: Float[Tensor, "B F H W"] | None = None,
        bottom: Float[Tensor, "B G h w"] | None = None,
    ) -> Float[Tensor, "B C H W"]:
        """Returns F.

        Args:
            x: Noisy latents, already scaled by c_in; even sides.
            time: c_noise, one per picture.
            text: Scene tokens of the caption.
            skip, bottom: What a control adds to the maps that the way up starts from.

        Raises:
            ValueError: If a side of the latents is odd.
        """
        text = text.to(self.summary.weight.dtype)
        c = self.vector(time, text)
        across, x = self.contract(x, c, text)
        across = across if skip is None else across + skip
        x = x if bottom is None else x + bottom
        x = torch.cat((self.enlarge(x), across), dim=1)
        for block in self.up:
            x = block(x, c)
        return self.out(self.ask_again(x, text))


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of 16 channels.

    Raises:
        ValueError: If the channels are not a multiple of 16.
    """
    if channels % GROUP:
        raise ValueError(
            f"A width of {channels} channels does not fall into groups of {GROUP}: choose a "
            f"multiple of {GROUP}."
        )
    return nn.GroupNorm(channels // GROUP, channels)
