"""Pixel diffusion: pictures of 32² straight from noise, asked for by a class.

    q(x_0 | x_t, y) = denoiser(x_t, t, {"label": y}),      y = 0 … K − 1, or K: no class at all

The backbone is a U-Net of three sizes. Where the convolutions see every pixel (32²) it is narrow,
and most of its weights are where pictures are decided, at 8² with attention:

    full size    stem → block ─────────────────── skip ───────────────────→ block → out
    half size           ↘ block ────────────── skip ──────────────→ block ↗
    quarter size               ↘ (block, look), (block, look), … ↗

The vector that modulates the blocks is the noise level plus the class. The last convolution
starts at zero, so a fresh net returns 0; twice the channels at the end leave room for a learned
variance (`genkit.diffusion.variance`).

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020)
        https://arxiv.org/abs/2006.11239
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021)
        https://arxiv.org/abs/2105.05233
    Classifier-Free Diffusion Guidance (Ho and Salimans, 2022; the class that is no class)
        https://arxiv.org/abs/2207.12598
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genkit.diffusion.denoise import Condition, Denoiser
from genkit.diffusion.grid import Karras
from genkit.diffusion.guide import Clipped
from genkit.diffusion.sample import DPMPP2M, Sampler, noise
from genkit.diffusion.variance import LearnedVariance
from genkit.distributions import Distribution
from genkit.model import Model
from genkit.models.classifier import CLASSES
from genkit.nn.convnet import Patchify, Unpatchify
from genkit.nn.embedding import Position, TimeEmbedding
from genkit.nn.layers import zeros
from genkit.nn.unet import Block, Look, group_norm

__all__ = ["PixelDiffusion", "PixelUNet"]

SAMPLER = DPMPP2M(grid=Karras())
EVALUATIONS = 10
"""For a picture that `PixelDiffusion.sample` draws."""


class PixelUNet(Model):
    """Backbone of a pixel denoiser: F(x_t, time, label); 0 at first.

    Args:
        channels: Widths at the full, the half and the quarter size; multiples of 16.
        blocks: Blocks on either side at the full and at the half size, and at the quarter size.
        heads: Attention heads at the quarter size, a divisor of its width.
        out: Channels of the output: 3, or 6 for a learned variance.
        classes: Number of classes; the label of this value means none.
        dim: Size of the vector that modulates the blocks.
    """

    def __init__(
        self,
        channels: tuple[int, int, int] = (48, 96, 192),
        blocks: tuple[int, int, int] = (1, 1, 3),
        heads: int = 3,
        out: int = 3,
        classes: int = len(CLASSES),
        dim: int = 192,
    ) -> None:
        super().__init__()
        fine, half, coarse = channels
        self.time = TimeEmbedding(dim)
        self.label = nn.Embedding(classes + 1, dim)
        self.stem = nn.Sequential(nn.Conv2d(3, fine, 3, padding=1), Position(fine))
        self.down = nn.ModuleList(_side(width, n, dim) for width, n in zip(channels, blocks[:2]))
        self.shrink = nn.ModuleList(
            [
                nn.Sequential(Patchify(fine, half, 2), Position(half)),
                nn.Sequential(Patchify(half, coarse, 2), Position(coarse)),
            ]
        )
        self.middle = nn.ModuleList(Block(coarse, coarse, dim) for _ in range(blocks[2]))
        self.look = nn.ModuleList(Look(coarse, heads) for _ in range(blocks[2]))
        self.enlarge = nn.ModuleList([Unpatchify(half, fine, 2), Unpatchify(coarse, half, 2)])
        self.up = nn.ModuleList(
            _side(width, n, dim, joined=2 * width) for width, n in zip(channels, blocks[:2])
        )
        self.out = nn.Sequential(
            group_norm(fine), nn.SiLU(), zeros(nn.Conv2d(fine, out, 3, padding=1))
        )

    def forward(
        self,
        x: Float[Tensor, "B 3 H W"],
        time: Float[Tensor, "B"],
        label: Int[Tensor, "B"],
    ) -> Float[Tensor, "B D H W"]:
        """Returns F.

        Args:
            x: Noisy pictures, already scaled by c_in; sides are multiples of 4.
            time: c_noise, one per picture.
            label: Classes; the number of classes itself means none.

        Raises:
            ValueError: If a side of the pictures is not a multiple of 4.
        """
        if x.shape[-1] % 4 or x.shape[-2] % 4:
            raise ValueError(
                f"The pictures are {x.shape[-1]}×{x.shape[-2]}; the sides must be multiples of "
                "4: choose 32×32."
            )
        c = F.silu(self.time(time) + self.label(label))
        x, skips = self.stem(x), []
        for stage, shrink in zip(self.down, self.shrink, strict=True):
            for block in stage:
                x = block(x, c)
            skips.append(x)
            x = shrink(x)
        for block, look in zip(self.middle, self.look, strict=True):
            x = look(block(x, c))
        for stage, enlarge in zip(reversed(self.up), reversed(self.enlarge), strict=True):
            x = torch.cat((enlarge(x), skips.pop()), dim=1)
            for block in stage:
                x = block(x, c)
        return self.out(x)


class PixelDiffusion(Model):
    """A denoiser of pictures and the names of its classes, in one checkpoint.

    Args:
        denoiser: q(x_0 | x_t, label) over pictures in [−1, 1], with or without learned variance.
        classes: Names of the classes, in the order of their labels.
        size: Side of the pictures it was trained on, in pixels.
        sampler: What draws in few evaluations; the default was the best of `benchmarks.samplers`
            for book32_ddpm.
    """

    def __init__(
        self,
        denoiser: Denoiser | LearnedVariance,
        classes: tuple[str, ...] = CLASSES,
        size: int = 32,
        sampler: Sampler = SAMPLER,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.classes = classes
        self.size = size
        self.sampler = sampler

    def forward(
        self,
        x_t: Float[Tensor, "B 3 H W"],
        t: Float[Tensor, "B"],
        names: Sequence[str | None],
    ) -> Distribution:
        """Returns q(x_0 | x_t, class)."""
        return self.denoiser(x_t, t, self.condition(names))

    def condition(self, names: Sequence[str | None]) -> Condition:
        """Returns {"label": classes}: what the denoiser is given; None asks for no class.

        Raises:
            ValueError: If a name is not among the classes.
        """
        for name in names:
            if name is not None and name not in self.classes:
                raise ValueError(
                    f"There is no class {name!r}; choose one of {'; '.join(self.classes)}."
                )
        blank = len(self.classes)
        labels = [blank if name is None else self.classes.index(name) for name in names]
        device = next(self.parameters()).device
        return {"label": torch.tensor(labels, device=device)}

    @torch.no_grad()
    def sample(self, rngs: Sequence[torch.Generator]) -> Float[Tensor, "B 3 H W"]:
        """Pictures of no class from the generators' noise, in `EVALUATIONS` evaluations."""
        cond = self.condition([None] * len(rngs))
        x = noise(rngs, (3, self.size, self.size), device=cond["label"].device)
        # The level of the first time: 1 on a chain, σ_max on an exploding schedule.
        x = x * self.denoiser.schedule.level(1.0).sigma
        return self.sampler(Clipped(self.denoiser), x, EVALUATIONS, cond, rngs)


def _side(width: int, count: int, dim: int, joined: int = 0) -> nn.ModuleList:
    """`count` blocks of this width; the first takes the `joined` channels of a skip, if any."""
    first = joined or width
    return nn.ModuleList(Block(first if i == 0 else width, width, dim) for i in range(count))
