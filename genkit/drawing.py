"""How a checkpoint is asked for many pictures, as `genkit.evaluate` does: some at a time.

    drawing("book128_latent")(prompts, seeds)                     text to picture
    drawing("book128_sketch")(hints, prompts, seeds, strength)    under a control

At the defaults of `genkit.generate`. Nothing is loaded before the first picture is asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from genkit import hub
from genkit.generate import Picture, SketchToImage, TextToImage

__all__ = ["drawing"]

BATCH = 8
"""Pictures at a time."""


def drawing(name: str) -> Callable[..., Iterator[Image.Image]]:
    """What asks this checkpoint for pictures.

    Args:
        name: Name or folder of a text-to-image model or of a control.
    """

    @cache
    def chosen() -> Callable[..., Iterator[Image.Image]]:
        return _traced(name) if hub.card(name)["family"] == "controlnet" else _drawn(name)

    return lambda *asked: chosen()(*asked)


def _drawn(name: str) -> Callable[..., Iterator[Image.Image]]:
    model = TextToImage.from_pretrained(name)

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[Image.Image]:
        for first in range(0, len(prompts), BATCH):
            some = slice(first, first + BATCH)
            events = model(list(prompts[some]), seeds=list(seeds[some]))
            yield from (event.image for event in events if isinstance(event, Picture))

    return draw


def _traced(name: str) -> Callable[..., Iterator[Image.Image]]:
    model = SketchToImage.from_pretrained(name)

    def trace(
        hints: Float[Tensor, "N K H W"],
        prompts: Sequence[str],
        seeds: Sequence[int],
        strength: float,
    ) -> Iterator[Image.Image]:
        for first in range(0, len(prompts), BATCH):
            some = slice(first, first + BATCH)
            events = model(
                hints[some], list(prompts[some]), seeds=list(seeds[some]), strength=strength
            )
            yield from (event.image for event in events if isinstance(event, Picture))

    return trace
