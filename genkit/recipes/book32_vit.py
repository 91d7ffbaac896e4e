"""A vision transformer learns which kinds of things stand in a picture of 32².

The same task, pictures, steps and order as for book32_convnet: what differs between their vectors
is due to the network.
"""

from genkit.data.picturebook.scene import SPLITS
from genkit.data.picturebook.source import Pictures
from genkit.models.encoders import ViTEncoder
from genkit.objectives import Recognition
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.recipes.book32_convnet import drawn

__all__ = ["RECIPE"]

PICTURES = SPLITS["train"][:150_000]

RECIPE = Recipe(
    name="book32_vit",
    model=ViTEncoder,
    objective=Recognition,
    data=lambda: Pictures(PICTURES, 32),
    steps=2000,
    batch=64,
    lr=2e-3,
    warmup=200,
    optimizer=muon,
    sheet=drawn,
)
