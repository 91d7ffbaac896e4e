"""Pictures of 32² by a variational autoencoder: one cloud of 4 × 4 × 16 numbers, and back.

It has the parameters of book32_ddpm and book32_hvae (within 4 %), learned from the same pictures
in as many steps at the same cost (within 5 %), so that the three can be compared.
"""

import torch
from PIL import Image

from genkit.data.picturebook.scene import SPLITS
from genkit.data.picturebook.source import Pictures, to_uint8, to_unit
from genkit.models.autoencoder import DeterministicAutoencoder
from genkit.models.hvae import HVAE
from genkit.models.vae import VAE
from genkit.objectives import Bounded
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.sheet import sheet

__all__ = ["RECIPE", "drawn"]

PICTURES = SPLITS["train"][:150_000]


@torch.no_grad()
def drawn(net: VAE | HVAE | DeterministicAutoencoder) -> Image.Image:
    """Eight test pictures, what comes back of each, and sixteen pictures from the prior."""
    picture = Pictures(SPLITS["test"][:8], 32).batch(range(8), torch.Generator())["picture"]
    device = next(net.parameters()).device
    answer = net(to_unit(picture).to(device))
    again = answer.mean if isinstance(net, DeterministicAutoencoder) else answer.picture.mean
    dreamt = net.sample([torch.Generator().manual_seed(seed) for seed in range(16)])
    rows = torch.cat([picture, to_uint8(again).cpu(), to_uint8(dreamt).cpu()])
    arrays = rows.permute(0, 2, 3, 1).contiguous().numpy()
    large = [Image.fromarray(a).resize((128, 128), Image.Resampling.NEAREST) for a in arrays]
    return sheet(large, columns=8)


RECIPE = Recipe(
    name="book32_vae",
    model=VAE,
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
