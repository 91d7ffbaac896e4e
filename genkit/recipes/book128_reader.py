"""A picture of 128² becomes the labels of its scene: the ruler of prompt fidelity.

A ruler must know every length: unlike the generators, the reader also sees the held-out pairs of
kind and colour.
"""

import random

import numpy as np
import torch
from PIL import Image

from genkit.data.picturebook.scene import SPLITS, Scene
from genkit.data.picturebook.source import Pictures, to_unit
from genkit.distributions import Categorical
from genkit.fidelity import read
from genkit.models.reader import Reader
from genkit.objectives import Batch, Reading
from genkit.recipe import Recipe
from genkit.sheet import sheet

__all__ = ["RECIPE", "drawn", "objective"]


def objective(model: Reader) -> Reading:
    """Reads pictures with a little grain: generated ones are never as clean as rendered ones."""

    def answer(batch: Batch) -> dict[str, Categorical]:
        x = to_unit(batch["picture"])
        grain = 0.1 * torch.rand(len(x), 1, 1, 1, device=x.device)
        return model(x + grain * torch.randn_like(x))

    return Reading(model, answer)


@torch.no_grad()
def drawn(net: Reader) -> Image.Image:
    """Eight test pictures, each with a sentence made of nothing but what the reader sees."""
    pictures = [Scene.random(seed).render(net.size) for seed in SPLITS["test"][:8]]
    array = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    scenes = read(net, array.permute(0, 3, 1, 2))
    captions = [scene.caption(random.Random(1), "en") for scene in scenes]
    large = [picture.resize((128, 128), Image.Resampling.NEAREST) for picture in pictures]
    return sheet(large, captions, columns=8)


RECIPE = Recipe(
    name="book128_reader",
    model=Reader,
    objective=objective,
    data=lambda: Pictures(SPLITS["train"][:60_000], 128, held_out=SPLITS["train"][:12_000]),
    steps=1000,
    batch=64,
    lr=1e-3,
    warmup=200,
    betas=(0.9, 0.95),
    sheet=drawn,
)
