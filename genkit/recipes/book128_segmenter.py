"""A picture of 128² becomes a map of its parts: the ruler of painted maps.

Like the reader it must know everything, and sees pictures with a little grain, as generated ones
are never as clean as rendered ones.
"""

import torch
from PIL import Image

from genkit.data.picturebook.canvas import coloured
from genkit.data.picturebook.scene import SPLITS, Scene
from genkit.data.picturebook.source import Mapped, to_unit
from genkit.fidelity import stacked
from genkit.models.segmenter import Segmenter
from genkit.objectives import Segmentation
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.sheet import sheet

__all__ = ["RECIPE"]


@torch.no_grad()
def drawn(net: Segmenter) -> Image.Image:
    """Eight test pictures above what the segmenter sees in them."""
    pictures = [Scene.random(seed).render(net.size) for seed in SPLITS["test"][:8]]
    seen = net.parts(to_unit(stacked(pictures)).to(net.last.conv.weight.device)).cpu()
    return sheet(pictures + [coloured(Image.fromarray(one.numpy())) for one in seen], columns=8)


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
    sheet=drawn,
)
