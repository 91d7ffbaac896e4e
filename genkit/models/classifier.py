"""The noisy classifier: which kind of page is it, told from a picture with noise.

    P(y | x_t) = Categorical(head(mean over the cells of encoder(x_t, time)))

y is one of 16 classes, the ground times the time of day of a picture-book scene. The classifier
is the discriminative model of diffusion: at low noise it reads the picture, at high noise it can
only tell what survives (dark or bright, white or green), and at t = 1 it should say how frequent
the classes are. Its gradient in x_t is what classifier guidance adds to a denoiser.

Its encoder is the left half of the pixel U-Net (`diffusion`): residual blocks that a vector of the
noise level modulates, at the full, the half and the quarter size, with attention at the last.

References:
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), section 4
        https://arxiv.org/abs/2105.05233
    Deep Unsupervised Learning using Nonequilibrium Thermodynamics (Sohl-Dickstein et al., 2015;
        the first conditional sampling by a second distribution)
        https://arxiv.org/abs/1503.03585
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genkit.data.picturebook.scene import GROUNDS, LABELS, TIMES
from genkit.diffusion.schedule import Schedule, spread
from genkit.distributions import Categorical
from genkit.model import Model
from genkit.nn.convnet import Patchify
from genkit.nn.embedding import Position, TimeEmbedding
from genkit.nn.layers import full
from genkit.nn.unet import Block, Look, group_norm

__all__ = ["CLASSES", "NoisyClassifier", "class_of"]

CLASSES = tuple(f"{ground}, {time}" for ground in GROUNDS for time in TIMES)
"""Names of the classes y = 4·ground + time, "meadow, day" to "sea, night"."""


def class_of(labels: Int[Tensor, "B K"]) -> Int[Tensor, "B"]:
    """The class of scenes from their labels, in the order of `LABELS`."""
    order = list(LABELS)
    return len(TIMES) * labels[:, order.index("ground")] + labels[:, order.index("time")]


class NoisyClassifier(Model):
    """P(y | x_t) at every noise level of a schedule.

    Args:
        schedule: Noise levels of t in [0, 1].
        channels: Widths at the full, the half and the quarter size; multiples of 16.
        blocks: Residual blocks at each of them.
        heads: Attention heads at the quarter size, a divisor of its width.
        classes: Number of classes.
        dim: Size of the vector that modulates the blocks.
    """

    def __init__(
        self,
        schedule: Schedule,
        channels: tuple[int, int, int] = (32, 64, 128),
        blocks: tuple[int, int, int] = (1, 1, 2),
        heads: int = 2,
        classes: int = len(CLASSES),
        dim: int = 128,
    ) -> None:
        super().__init__()
        full_size, half, quarter = channels
        self.schedule = schedule
        self.time = TimeEmbedding(dim)
        self.stem = nn.Sequential(nn.Conv2d(3, full_size, 3, padding=1), Position(full_size))
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(width, width, dim) for _ in range(count))
            for width, count in zip(channels, blocks, strict=True)
        )
        self.shrink = nn.ModuleList([Patchify(full_size, half, 2), Patchify(half, quarter, 2)])
        self.look = Look(quarter, heads)
        self.norm = group_norm(quarter)
        self.head = nn.Linear(quarter, classes)

    def forward(self, x_t: Float[Tensor, "B 3 H W"], t: Float[Tensor, "B"]) -> Categorical:
        """Returns P(y | x_t).

        Raises:
            ValueError: If a side of the pictures is not a multiple of 4.
        """
        if x_t.shape[-1] % 4 or x_t.shape[-2] % 4:
            raise ValueError(
                f"The pictures are {x_t.shape[-1]}×{x_t.shape[-2]}; the sides must be multiples "
                "of 4: resize them to 32×32."
            )
        alpha, sigma = self.schedule(t)
        # Unit variance on every schedule, and a time that does not depend on it.
        x = spread(1 / torch.hypot(alpha, sigma), x_t) * x_t
        angle = torch.atan2(sigma, alpha) * (2 / math.pi)
        dtype = self.head.weight.dtype
        c = F.silu(self.time(angle.to(x_t.device, torch.promote_types(dtype, torch.float32))))
        x = self.stem(x.to(dtype))
        for stage, shrink in zip(self.stages, (*self.shrink, self.look), strict=True):
            for block in stage:
                x = block(x, c)
            x = shrink(x)
        pooled = F.silu(self.norm(x)).mean(dim=(2, 3))
        return Categorical(full(self.head(pooled)))
