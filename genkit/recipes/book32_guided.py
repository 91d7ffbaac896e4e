"""Pictures of 32² by guided diffusion: book32_ddpm, taught to say how sure it is.

It begins with the weights of book32_ddpm and goes on with the hybrid loss, which teaches a
variance to every pixel: the bound becomes tighter and short chains better. Guidance is
classifier-free, or by book32_classifier.
"""

import torch

from genkit import hub
from genkit.data.picturebook.source import Pictures
from genkit.diffusion.denoise import Epsilon
from genkit.diffusion.schedule import LinearBeta
from genkit.diffusion.variance import LearnedVariance
from genkit.models.diffusion import PixelDiffusion, PixelUNet
from genkit.objectives import Hybrid
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.recipes.book32_ddpm import PICTURES, drawn

__all__ = ["RECIPE"]


def model() -> PixelDiffusion:
    """book32_ddpm with six channels at the end: what to subtract, and how sure it is."""
    first = hub.load("book32_ddpm")
    backbone = PixelUNet(out=6)
    weights = first.denoiser.backbone.state_dict()
    for name, value in backbone.state_dict().items():
        if weights[name].shape != value.shape:  # the last convolution: Σ half-way from β̃ to β
            weights[name] = torch.cat((weights[name], torch.zeros_like(weights[name])))
    backbone.load_state_dict(weights)
    return PixelDiffusion(
        LearnedVariance(backbone, LinearBeta(), Epsilon()), sampler=first.sampler
    )


RECIPE = Recipe(
    name="book32_guided",
    model=model,
    objective=Hybrid,
    data=lambda: Pictures(PICTURES, 32),
    steps=1200,
    batch=32,
    lr=5e-4,
    warmup=100,
    optimizer=muon,
    ema=0.999,
    # Twice the difference that the class makes: where samples are clearest.
    sheet=lambda net: drawn(net, 2.0),
)
