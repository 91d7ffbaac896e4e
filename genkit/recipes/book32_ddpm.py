"""Pictures of 32² by DDPM as published: ε-prediction, β-linear, the simple loss.

A picture can be asked for by its class, the ground times the time of day; one label in ten is
dropped, so the same network draws without a class, too.
"""

import torch
from PIL import Image

from genkit.data.picturebook.scene import SPLITS
from genkit.data.picturebook.source import Pictures, to_uint8
from genkit.diffusion.denoise import Denoiser, Epsilon
from genkit.diffusion.guide import Clipped, Guided
from genkit.diffusion.sample import noise
from genkit.diffusion.schedule import LinearBeta
from genkit.models.diffusion import PixelDiffusion, PixelUNet
from genkit.objectives import Denoising
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.sheet import sheet

__all__ = ["RECIPE", "drawn"]

PICTURES = SPLITS["train"][:150_000]
EVALUATIONS = 20
"""Of the denoiser, for a picture of the sheet."""


def model() -> PixelDiffusion:
    """A fresh network, which predicts no noise at all."""
    return PixelDiffusion(Denoiser(PixelUNet(), LinearBeta(), Epsilon()))


@torch.no_grad()
def drawn(net: PixelDiffusion, scale: float = 1.0) -> Image.Image:
    """A picture of every class, four times enlarged."""
    rngs = [torch.Generator().manual_seed(seed) for seed in range(len(net.classes))]
    cond = net.condition(net.classes)
    denoiser = Clipped(Guided(net.denoiser, scale, net.condition([None])))
    x = noise(rngs, (3, net.size, net.size), device=cond["label"].device)
    arrays = to_uint8(net.sampler(denoiser, x, EVALUATIONS, cond)).permute(0, 2, 3, 1)
    arrays = arrays.cpu().numpy()
    side = 4 * net.size
    large = [Image.fromarray(a).resize((side, side), Image.Resampling.NEAREST) for a in arrays]
    return sheet(large, net.classes, columns=4)


RECIPE = Recipe(
    name="book32_ddpm",
    model=model,
    objective=Denoising,
    data=lambda: Pictures(PICTURES, 32),
    steps=7000,
    batch=32,
    lr=2e-3,
    warmup=200,
    optimizer=muon,
    ema=0.999,
    sheet=drawn,
)
