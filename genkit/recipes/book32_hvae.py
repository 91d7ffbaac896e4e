"""Pictures of 32² by a hierarchical VAE: six clouds of three sizes, from the top down.

It has the parameters of book32_vae and book32_ddpm (within 2 %), learned from the same pictures
at the same cost (within 7 %), so that the three can be compared.
"""

import torch

from genkit.data.picturebook.source import Pictures, to_unit
from genkit.models.hvae import HVAE
from genkit.objectives import Bounded
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.recipes.book32_vae import PICTURES, drawn

__all__ = ["RECIPE"]


def model() -> HVAE:
    """A fresh ladder that begins with the principal components of 1,000 pictures."""
    few = min(1000, len(PICTURES))
    some = Pictures(PICTURES[:few], 32).batch(range(few), torch.Generator())["picture"]
    return HVAE().principal(to_unit(some))


RECIPE = Recipe(
    name="book32_hvae",
    model=model,
    objective=lambda model: Bounded(model, free=1.0),
    data=lambda: Pictures(PICTURES, 32),
    steps=3500,
    batch=64,
    lr=2e-3,
    warmup=200,
    optimizer=muon,
    skip=5000.0,
    sheet=drawn,
)
