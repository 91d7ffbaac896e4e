"""A picture of 32² becomes the labels of its scene: the ruler of everything made of pixels.

Says whether a drawn picture bears the class that was asked for, and its features measure Fréchet
distances. As a ruler it also sees the held-out pairs of kind and colour, and a little grain.
"""

from genkit.data.picturebook.scene import SPLITS
from genkit.data.picturebook.source import Pictures
from genkit.models.reader import Reader
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.recipes.book128_reader import drawn, objective

__all__ = ["RECIPE"]


def model() -> Reader:
    """A small reader with feature maps of 16², 8² and 4²."""
    widths, patches = (48, 96, 128), (2, 2, 2)
    return Reader(widths, dim=128, heads=4, patches=patches, size=32)


RECIPE = Recipe(
    name="book32_reader",
    model=model,
    objective=objective,
    data=lambda: Pictures(SPLITS["train"][:60_000], 32, held_out=SPLITS["train"][:12_000]),
    steps=1500,
    batch=64,
    lr=2e-3,
    warmup=200,
    optimizer=muon,
    sheet=drawn,
)
