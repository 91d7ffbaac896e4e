"""What a receipt says of the making, and the proof: a picture drawn again against its file."""

import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import genkit
from apps import cards, receipt
from apps.common import Generator
from apps.settings import Refused, check_size
from apps.text import both, fixed
from genkit.generate import Picture, Preview

__all__ = ["made", "opened", "sentences", "verified"]


def made(generator: Generator, picture: Picture) -> dict[str, Any]:
    """The fields of a manifest that say by what a picture was made."""
    return {
        "index": picture.index,
        "image_seed": picture.seed,
        "size": picture.image.width,
        "model_sha256": generator.sha256,
        "versions": {
            "genkit": genkit.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "dtype": str(generator.runtime.dtype).removeprefix("torch."),
        "device": str(generator.runtime.device),
        "pixels_sha256": receipt.pixels(picture.image),
    }


def opened(path: Any) -> receipt.Receipt:
    """The receipt of the file that the visitor opened.

    Raises:
        Refused: There is none, or as `receipt.read`.
    """
    if not isinstance(path, str):
        raise Refused("verify.empty")
    try:
        return receipt.read(Path(path))
    except FileNotFoundError as error:  # swept after an hour
        raise Refused("receipt.gone") from error


def verified(
    found: receipt.Receipt,
    old: receipt.Manifest,
    size: int,
    events: Iterator[Preview | Picture],
    made_now: Callable[[Picture], receipt.Manifest],
) -> Iterator[str]:
    """Progress, then the file beside the picture that was drawn again, as HTML.

    Args:
        found: The file.
        old: Its manifest.
        size: Width and height that are drawn here.
        events: The request of the receipt, run again.
        made_now: The manifest of a picture of now.

    Raises:
        Refused: The picture has another size, which is said before drawing, not after it.
    """
    check_size("size", old.size, size)
    if found.image.size != (old.size, old.size):
        value = f"{found.image.width}×{found.image.height}"
        raise Refused("receipt.size", value=value, limit=old.size)
    yield cards.progress(0, old.num_inference_steps, both("status.start"))
    for event in events:
        if isinstance(event, Preview):
            text = both("status.step", step=event.step, steps=event.steps)
            yield cards.progress(event.step, event.steps, text)
        elif event.index == old.index:
            told = sentences(found, old, event, made_now(event))
            yield cards.verdict(found.image, event.image, told)


def sentences(
    found: receipt.Receipt, old: receipt.Manifest, again: Picture, new: receipt.Manifest
) -> tuple[str, ...]:
    """What follows from a picture that was drawn again, as HTML in both languages.

    Args:
        found: The file.
        old: Its manifest.
        again: The picture of now.
        new: The manifest of now.
    """
    apart = receipt.compare(found.image, again.image)
    changed = receipt.changes(old, new)
    told = []
    if apart.largest == 0:
        told.append(both("verify.same", values=3 * old.size**2))
    else:
        share = fixed(100 * apart.share, 3)
        told.append(both("verify.differs", largest=apart.largest, share=share))
    if receipt.pixels(found.image) != old.pixels_sha256:
        told.append(both("verify.edited"))
    for what, then, now in changed:
        told.append(both("verify.change", what=what, then=then, now=now))
    if apart.largest and not changed:
        told.append(both("verify.unexplained"))
    return tuple(told)
