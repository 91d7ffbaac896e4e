"""A drawing becomes a picture: the control of book128_latent that follows lines.

Drawings are made of a scene as hands make them, thick or thin, shaky, with gaps: half of them of
its whole outline, a quarter of some of its things, with the land or without; a quarter are the
edges of its picture. Half of the prompts are empty, so that a drawing alone is enough.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy

import numpy as np
from PIL import Image

from genkit import hub
from genkit.adherence import RULERS, drawing
from genkit.data.hints import edges, ink, picked, scribble
from genkit.data.picturebook.book import cached, pictures
from genkit.data.picturebook.scene import SPLITS, VERSION, Scene
from genkit.data.picturebook.source import Captions, Hinted
from genkit.fidelity import prompts
from genkit.generate import Picture, SketchToImage, TextToImage
from genkit.models.controlnet import Control
from genkit.models.latent import LatentDiffusion
from genkit.nn.unet import UNet
from genkit.objectives import Controlling
from genkit.optimizer import muon
from genkit.recipe import Recipe
from genkit.recipes.book128_latent import described
from genkit.sheet import sheet

__all__ = ["RECIPE", "base", "captioned", "copied", "traced"]

SEEDS = SPLITS["train"][:60_000]
EDGES, SOME = 0.25, 0.25
"""Shares of drawings that are made of edges, and of some of the things."""
SHOWN = 8
"""Scenes on a sheet."""


def base() -> LatentDiffusion:
    """What is controlled."""
    model = hub.load("book128_latent")
    assert isinstance(model, LatentDiffusion)
    return model


def copied(name: str, planes: int) -> Control:
    """The first half of the base's way down, with a new eye for hints."""
    unet = base().denoiser.backbone
    assert isinstance(unet, UNet)
    return Control.of(unet, name, planes, depth=2)


def captioned() -> Captions:
    """Captions of the scenes, every other one empty."""
    return Captions(SEEDS, hub.load("book_text").encode, blank=0.5, complete=0.2)


def contours() -> np.ndarray:
    """Edges of the pictures, uint8 "N H W", 255 where one is."""
    name = f"edges-v{VERSION}-128-{SEEDS.start}-{SEEDS.stop}"

    def found() -> Iterator[np.ndarray]:
        for picture in pictures(SEEDS, 128):
            yield edges(picture).astype(np.uint8) * 255

    return cached(name, (len(SEEDS), 128, 128), np.uint8, found)


def data() -> Hinted:
    """Latents with captions, each with a drawing of its picture."""
    found = contours()
    whole, land, things = (
        pictures(SEEDS, 128, view=view)
        for view in (Scene.outline, Scene.outline_of_land, Scene.outline_of_things)
    )

    def drawing(i: int, rng: np.random.Generator) -> np.ndarray:
        chance = rng.random()
        if chance < EDGES:
            return found[i]
        some = chance < EDGES + SOME
        return scribble(picked(land[i], things[i], rng) if some else whole[i], rng)

    return Hinted(described(captioned(), base().autoencoder), drawing)


def traced(net: Control, view: Callable[[int], Image.Image]) -> Image.Image:
    """Hints of test scenes above what is drawn from them with a caption, and without.

    Args:
        net: The control.
        view: How the hint of a scene looks.
    """
    asked = list(prompts(SHOWN))
    ruler = RULERS[net.name]
    hints = ruler.read([ruler.hint(prompt.seed) for prompt in asked])
    model = SketchToImage(TextToImage(base(), "book128_latent"), deepcopy(net), net.name)
    texts = [prompt.text for prompt in asked]
    pictures, captions = [view(prompt.seed) for prompt in asked], [""] * SHOWN
    for words in (texts, captions):
        events = model(hints, words, seeds=range(SHOWN))
        pictures += [event.image for event in events if isinstance(event, Picture)]
    return sheet(pictures, captions + texts + captions, columns=SHOWN)


def drawn(net: Control) -> Image.Image:
    """What the control makes of drawings."""
    return traced(net, lambda seed: Image.fromarray(255 - drawing(seed)))


RECIPE = Recipe(
    name="book128_sketch",
    model=lambda: copied("sketch", 1),
    objective=lambda model: Controlling(model, base(), ink),
    data=data,
    steps=1000,
    batch=512,
    lr=1e-3,
    optimizer=muon,
    warmup=200,
    sheet=drawn,
)
