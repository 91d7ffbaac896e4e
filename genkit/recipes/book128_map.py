"""A painted map becomes a picture: the control of book128_latent that follows regions.

The maps are those of the scenes, with borders that wander and some parts left unpainted, where the
model may do as it likes: every sixth part, or in a quarter of the maps most. Half of the prompts
are empty. The control begins as book128_sketch, which knows already how to lead the base.
"""

import numpy as np
from PIL import Image

from genkit import hub
from genkit.adherence import painting
from genkit.data.hints import OMITTED, planes, rough
from genkit.data.picturebook.book import pictures
from genkit.data.picturebook.canvas import PARTS, coloured
from genkit.data.picturebook.scene import Scene
from genkit.data.picturebook.source import Hinted
from genkit.models.controlnet import Control
from genkit.objectives import Controlling
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.recipes.book128_latent import described
from genkit.recipes.book128_sketch import SEEDS, base, captioned, copied, traced

__all__ = ["RECIPE"]

MOST, SPARSE = 0.7, 0.25
"""Chance of a part to be left out of a sparse map, and the share of those."""


def model() -> Control:
    """It begins as the control that follows lines, but for the eye: that one is new."""
    control, taught = copied("map", len(PARTS)), hub.load("book128_sketch")
    known = {k: v for k, v in taught.state_dict().items() if not k.startswith("hint.")}
    control.load_state_dict(control.state_dict() | known)
    return control


def data() -> Hinted:
    """Latents with captions, each with a map of its picture."""
    maps = pictures(SEEDS, 128, view=Scene.semantic_map)

    def painted(i: int, rng: np.random.Generator) -> np.ndarray:
        omitted = MOST if rng.random() < SPARSE else OMITTED
        return rough(maps[i], rng, omitted)

    return Hinted(described(captioned(), base().autoencoder), painted)


def drawn(net: Control) -> Image.Image:
    """What the control makes of painted maps."""
    return traced(net, lambda seed: coloured(Image.fromarray(painting(seed))))


RECIPE = Recipe(
    name="book128_map",
    model=model,
    objective=lambda model: Controlling(model, base(), planes),
    data=data,
    steps=800,
    batch=512,
    lr=1e-3,
    optimizer=muon,
    warmup=100,
    sheet=drawn,
)
