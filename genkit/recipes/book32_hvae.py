"""Pictures of 32² by a hierarchical VAE: six clouds of three sizes, from the top down.

It has the parameters of book32_vae and book32_ddpm (within 4 %), learned from the same pictures
in as many steps at the same cost (within 5 %), so that the three can be compared.

It was trained before the priors were bounded (`WIDEST` in `genkit/models/hvae.py`). The bound
changes what a picture costs by less than 0.001 bits/dim, and keeps what is dreamt from running
away.
"""

from genkit.data.picturebook.source import Pictures
from genkit.models.hvae import HVAE
from genkit.objectives import Bounded
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.recipes.book32_vae import PICTURES, drawn

__all__ = ["RECIPE"]

RECIPE = Recipe(
    name="book32_hvae",
    model=HVAE,
    objective=lambda model: Bounded(model, free=1.0),
    data=lambda: Pictures(PICTURES, 32),
    steps=7000,
    batch=32,
    lr=2e-3,
    warmup=200,
    optimizer=muon,
    skip=5000.0,
    sheet=drawn,
)
