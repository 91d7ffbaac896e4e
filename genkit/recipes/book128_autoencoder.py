"""Pictures of 128² as latents of 12 × 16 × 16, in which latent diffusion works."""

import torch
from PIL import Image

from genkit.data.picturebook.scene import SPLITS
from genkit.data.picturebook.source import Pictures, to_uint8, to_unit
from genkit.models.autoencoder import Autoencoder
from genkit.objectives import Reconstruction
from genkit.recipe import Recipe
from genkit.sheet import sheet

__all__ = ["RECIPE"]

PICTURES = SPLITS["train"][:60_000]


def model() -> Autoencoder:
    """A fresh autoencoder that begins with the principal components of 1,000 pictures."""
    some = Pictures(PICTURES, 128).batch(range(1000), torch.Generator())["picture"]
    net = Autoencoder(channels=12, encoder=(64, 160), decoder=(96, 192))
    return net.principal(to_unit(some))


@torch.no_grad()
def drawn(net: Autoencoder) -> Image.Image:
    """Eight test pictures, and below each what comes back."""
    picture = Pictures(SPLITS["test"][:8], 128).batch(range(8), torch.Generator())["picture"]
    again = to_uint8(net(to_unit(picture)).picture.mean)
    both = torch.cat([picture, again]).permute(0, 2, 3, 1).contiguous().numpy()
    return sheet([Image.fromarray(array) for array in both], columns=8)


RECIPE = Recipe(
    name="book128_autoencoder",
    model=model,
    objective=lambda model: Reconstruction(model, beta=1e-5),
    data=lambda: Pictures(PICTURES, 128),
    steps=1600,
    batch=32,
    lr=6e-4,
    warmup=200,
    betas=(0.9, 0.95),
    clip=0.5,
    sheet=drawn,
)
