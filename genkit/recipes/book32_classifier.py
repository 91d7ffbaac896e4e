"""A noisy picture of 32² becomes the class of its scene: the ground times the time of day.

It sees the noise of the diffusion models' schedule, and its gradient guides them. It is part of
what draws, so no held-out pair of kind and colour is among its pictures.
"""

import torch
from PIL import Image

from genkit.data.picturebook.scene import SPLITS
from genkit.data.picturebook.source import Pictures, to_uint8, to_unit
from genkit.diffusion.sample import noise
from genkit.diffusion.schedule import LinearBeta
from genkit.models.classifier import CLASSES, NoisyClassifier
from genkit.objectives import NoisyClassification
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.sheet import sheet

__all__ = ["RECIPE"]

PICTURES = SPLITS["train"][:150_000]


@torch.no_grad()
def drawn(net: NoisyClassifier) -> Image.Image:
    """Four test pictures at four times each, and the class that is read."""
    seeds = SPLITS["test"][:4]
    x0 = to_unit(Pictures(seeds, 32).batch(range(4), torch.Generator())["picture"])
    eps = noise([torch.Generator().manual_seed(seed) for seed in seeds], x0.shape[1:])
    tiles, captions = [], []
    for time in (0.0, 0.2, 0.4, 0.7):
        t = torch.full((4,), time, dtype=torch.float64)
        x_t = net.schedule.diffuse(x0, t, eps).to(net.head.weight.device)
        answer = net(x_t, t)
        chances, modes = answer.mean.max(dim=-1)
        captions += [f"{CLASSES[m]} {c:.0%}" for m, c in zip(modes.tolist(), chances.tolist())]
        tiles += [Image.fromarray(a) for a in to_uint8(x_t).permute(0, 2, 3, 1).cpu().numpy()]
    large = [tile.resize((128, 128), Image.Resampling.NEAREST) for tile in tiles]
    return sheet(large, captions, columns=4)


RECIPE = Recipe(
    name="book32_classifier",
    model=lambda: NoisyClassifier(LinearBeta()),
    objective=NoisyClassification,
    data=lambda: Pictures(PICTURES, 32),
    steps=2500,
    batch=64,
    lr=2e-3,
    warmup=200,
    optimizer=muon,
    sheet=drawn,
)
