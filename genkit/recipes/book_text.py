"""A caption becomes the labels of its scene: the text encoder before it learns to draw.

It takes minutes on a CPU and saves the denoiser from having to find out what words mean.
"""

import random
from functools import cache

from genkit.data.picturebook.scene import SPLITS, Scene
from genkit.data.picturebook.source import LANGUAGES, Captions
from genkit.models.text import TextEncoder, train_vocabulary
from genkit.objectives import Batch, Reading
from genkit.recipe import Recipe

__all__ = ["RECIPE"]


@cache
def vocabulary() -> tuple[str, ...]:
    """Word pieces of 20,000 captions, half of them Vietnamese."""
    rng = random.Random("vocabulary")
    scenes = (Scene.random(seed) for seed in SPLITS["train"][:10_000])
    return train_vocabulary((s.caption(rng, lang) for s in scenes for lang in LANGUAGES), 1200)


def objective(model: TextEncoder) -> Reading:
    """Reads captions."""

    def answer(batch: Batch) -> dict:
        return model.read(batch["tokens"])

    return Reading(model, answer)


RECIPE = Recipe(
    name="book_text",
    model=lambda: TextEncoder(vocabulary()),
    objective=objective,
    data=lambda: Captions(SPLITS["train"], TextEncoder(vocabulary()).encode),
    steps=1500,
    batch=128,
    lr=1e-3,
    warmup=200,
)
