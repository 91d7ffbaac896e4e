"""What a receipt says of the making, and the proof: a picture drawn again against its file."""

import platform
from pathlib import Path
from typing import Any

import torch

import genkit
from apps import receipt
from apps.common import Generator
from apps.settings import Refused
from apps.text import both, fixed
from genkit.generate import Picture

__all__ = ["made", "opened", "sentences"]


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
