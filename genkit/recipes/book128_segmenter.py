"""A picture of 128² becomes a map of its parts: the ruler of painted maps.

Like the reader it must know everything, and sees pictures with a little grain, as generated ones
are never as clean as rendered ones.
"""

from genkit.data.picturebook.scene import SPLITS
from genkit.data.picturebook.source import Mapped
from genkit.models.segmenter import Segmenter
from genkit.objectives import Segmentation
from genkit.optimizer import muon
from genkit.recipe import Recipe

__all__ = ["RECIPE"]

RECIPE = Recipe(
    name="book128_segmenter",
    model=Segmenter,
    objective=Segmentation,
    data=lambda: Mapped(SPLITS["train"][:20_000], 128),
    steps=1500,
    batch=32,
    lr=2e-3,
    optimizer=muon,
    warmup=100,
)
