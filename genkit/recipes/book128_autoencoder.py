"""Pictures of 128² as latents of 12 × 16 × 16: what latent diffusion on the picture book works in."""

from genkit.data.picturebook.scene import SPLITS
from genkit.data.picturebook.source import Pictures
from genkit.models.autoencoder import Autoencoder
from genkit.objectives import Reconstruction
from genkit.recipe import Recipe

__all__ = ["RECIPE"]

RECIPE = Recipe(
    name="book128_autoencoder",
    model=lambda: Autoencoder(channels=12, encoder=(64, 160), decoder=(96, 192)),
    objective=lambda model: Reconstruction(model, beta=1e-5),
    data=lambda: Pictures(SPLITS["train"][:60_000], 128),
    steps=3400,
    batch=32,
    lr=8e-4,
    warmup=200,
    betas=(0.9, 0.95),
    clip=0.5,
)
