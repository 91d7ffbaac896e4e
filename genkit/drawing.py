"""How a checkpoint is asked for many pictures, as `genkit.evaluate` does: some at a time.

    drawing("book128_latent")(prompts, seeds)                     text to picture
    drawing("book128_fast")(prompts, seeds, "book128_latent")     the same by another checkpoint
    drawing("book128_sketch")(hints, prompts, seeds, strength)    under a control

As each model draws best. The `info` of a picture tells the "evaluations" of the denoiser that it
took. Nothing is loaded before the first picture is asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from genkit import hub
from genkit.generate import Picture, Preview, SketchToImage, TextToImage

__all__ = ["drawing", "drawn"]

BATCH = 8
"""Pictures at a time."""


def drawing(name: str, base: str = "book128_latent") -> Callable[..., Iterator[Image.Image]]:
    """What asks this checkpoint for pictures.

    Args:
        name: Name or folder of a text-to-image model or of a control.
        base: What is controlled, where it is a control.
    """

    @cache
    def chosen() -> Callable[..., Iterator[Image.Image]]:
        control = hub.card(name)["family"] == "controlnet"
        return _traced(name, base) if control else _drawn(name)

    return lambda *asked: chosen()(*asked)


def drawn(
    model: TextToImage, prompts: Sequence[str], seeds: Sequence[int], steps: int | None = None
) -> Iterator[Image.Image]:
    """A picture of every prompt.

    Args:
        model: Ready to draw.
        prompts, seeds: One each for every picture.
        steps: Of the sampler; None: as the model draws best.
    """
    for first in range(0, len(prompts), BATCH):
        some = slice(first, first + BATCH)
        yield from _images(model(list(prompts[some]), seeds=list(seeds[some]), steps=steps))


def _drawn(name: str) -> Callable[..., Iterator[Image.Image]]:
    models = cache(TextToImage.from_pretrained)

    def draw(
        prompts: Sequence[str], seeds: Sequence[int], by: str = name
    ) -> Iterator[Image.Image]:
        return drawn(models(by), prompts, seeds)

    return draw


def _traced(name: str, base: str) -> Callable[..., Iterator[Image.Image]]:
    model = SketchToImage.from_pretrained(name, base)

    def trace(
        hints: Float[Tensor, "N K H W"],
        prompts: Sequence[str],
        seeds: Sequence[int],
        strength: float,
    ) -> Iterator[Image.Image]:
        for first in range(0, len(prompts), BATCH):
            some = slice(first, first + BATCH)
            texts, numbers = list(prompts[some]), list(seeds[some])
            yield from _images(model(hints[some], texts, seeds=numbers, strength=strength))

    return trace


def _images(events: Iterator[Preview | Picture]) -> Iterator[Image.Image]:
    for event in events:
        if isinstance(event, Picture):
            event.image.info["evaluations"] = event.nfe
            yield event.image
