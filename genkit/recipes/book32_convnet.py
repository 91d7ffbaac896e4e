"""A convolutional net learns which kinds of things stand in a picture of 32².

Its features are one of four spaces that are compared. Nobody tells it the time of day, the
weather, colours or places, and no held-out pair of kind and colour is among its pictures.
"""

import torch
from PIL import Image

from genkit.data.picturebook.scene import KINDS, SPLITS
from genkit.data.picturebook.source import Pictures, to_unit
from genkit.models.encoders import ConvEncoder, ViTEncoder
from genkit.objectives import Recognition
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.sheet import sheet

__all__ = ["RECIPE", "drawn"]

PICTURES = SPLITS["train"][:150_000]


@torch.no_grad()
def drawn(net: ConvEncoder | ViTEncoder) -> Image.Image:
    """Eight test pictures, each with the kinds that are found in it."""
    pictures = Pictures(SPLITS["test"][:8], 32).batch(range(8), torch.Generator())["picture"]
    chances = net(to_unit(pictures).to(net.head.weight.device)).mean
    found = [[(k, c) for k, c in zip(KINDS, row) if c > 0.5] for row in chances.tolist()]
    captions = [", ".join(f"{kind} {chance:.0%}" for kind, chance in row) for row in found]
    tiles = [Image.fromarray(a) for a in pictures.permute(0, 2, 3, 1).numpy()]
    large = [tile.resize((128, 128), Image.Resampling.NEAREST) for tile in tiles]
    return sheet(large, captions, columns=4)


RECIPE = Recipe(
    name="book32_convnet",
    model=ConvEncoder,
    objective=Recognition,
    data=lambda: Pictures(PICTURES, 32),
    steps=2000,
    batch=64,
    lr=2e-3,
    warmup=200,
    optimizer=muon,
    sheet=drawn,
)
