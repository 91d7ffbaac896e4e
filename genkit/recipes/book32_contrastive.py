"""Two towers learn which caption belongs to which picture of 32², in English and Vietnamese.

Nobody tells them a label. Half of the captions say all that is there, the others what people
say; no held-out pair of kind and colour is among the scenes.
"""

import random

import torch
from PIL import Image

from genkit.data.picturebook.scene import SPLITS, Scene
from genkit.data.picturebook.source import LANGUAGES, Captioned, Captions, Pictures, to_unit
from genkit.models.encoders import Contrastive
from genkit.models.text import WordPieces
from genkit.objectives import Contrasting
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.recipes import book_text
from genkit.sheet import sheet

__all__ = ["RECIPE"]

PICTURES = SPLITS["train"][:150_000]


def data() -> Captioned:
    """Pictures with captions as word pieces of the same vocabulary as the text encoder's."""
    encode = WordPieces(book_text.vocabulary(), 96)
    return Captioned(Pictures(PICTURES, 32), Captions(PICTURES, encode, complete=0.5))


@torch.no_grad()
def drawn(net: Contrastive) -> Image.Image:
    """Eight test pictures, each with the best of forty captions, and their cosine."""
    pictures = Pictures(SPLITS["test"][:8], 32).batch(range(8), torch.Generator())["picture"]
    scenes = [(Scene.random(seed), random.Random(seed)) for seed in SPLITS["test"][:40]]
    texts = [scene.caption(rng, LANGUAGES[i % 2]) for i, (scene, rng) in enumerate(scenes)]
    cosines = net.embed(to_unit(pictures).to(net.log_heat.device)) @ net.embed_text(texts).T
    best = zip(*(item.tolist() for item in cosines.max(dim=1)))
    captions = [f"{cosine:.2f} {texts[i]}" for cosine, i in best]
    tiles = [Image.fromarray(a) for a in pictures.permute(0, 2, 3, 1).numpy()]
    large = [tile.resize((128, 128), Image.Resampling.NEAREST) for tile in tiles]
    return sheet(large, captions, columns=4)


RECIPE = Recipe(
    name="book32_contrastive",
    model=lambda: Contrastive(book_text.vocabulary()),
    objective=Contrasting,
    data=data,
    steps=1500,
    batch=128,
    lr=2e-3,
    warmup=200,
    optimizer=muon,
    sheet=drawn,
)
