"""What pages share that look inside the 32² models: their names, classes and pictures.

A class is "ground, time", as in "meadow, night"; the empty name asks for no class at all.
"""

import io
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from apps.cards import jpeg_url, png_url
from apps.settings import check_choice
from apps.text import LANGUAGES, Pair, say
from genkit.data.picturebook.source import to_uint8
from genkit.models.classifier import CLASSES

__all__ = ["MODELS", "check_label", "choices", "named", "pixels", "sheet_url"]

MODELS = ("book32_guided", "book32_ddpm")
"""The denoisers of 32² pictures that can be asked for by a class."""


def choices(nothing: bool = True) -> list[tuple[Pair, str]]:
    """(name, value) of every class, the one that is none first where it is allowed."""
    return [(named(one), one) for one in ([""] if nothing else []) + list(CLASSES)]


def named(label: str) -> Pair:
    """The name of a class as each language says it; the empty one is none."""
    return Pair(*(_said(label, language) for language in LANGUAGES))


def check_label(value: str, nothing: bool = True) -> str | None:
    """The class of this name; None for the empty name, where that is allowed.

    Raises:
        Refused: There is no such class.
    """
    names = ("", *CLASSES) if nothing else CLASSES
    return check_choice("label", value, names) or None


def pixels(pictures: Float[Tensor, "B 3 H W"]) -> Iterator[Image.Image]:
    """Pictures in [−1, 1], rounded to grey levels."""
    for array in to_uint8(pictures).permute(0, 2, 3, 1).cpu().numpy():
        yield Image.fromarray(array)


def sheet_url(rows: Sequence[Sequence[Image.Image | None]], size: int, exact: bool = True) -> str:
    """Rows of pictures as one data URL; a place without a picture is black.

    Args:
        rows: As many places in each row.
        size: Side of a picture.
        exact: PNG, or a smaller JPEG for what is soon replaced.
    """
    sheet = np.zeros((len(rows) * size, max(map(len, rows)) * size, 3), np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            if picture is not None:
                place = np.s_[i * size : (i + 1) * size, j * size : (j + 1) * size]
                sheet[place] = np.asarray(picture)
    if not exact:
        return jpeg_url(Image.fromarray(sheet))
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG")
    return png_url(buffer.getvalue())


def _said(label: str, language: str) -> str:
    if not label:
        return say(language, "class.none")
    ground, _, time = label.partition(", ")
    return f"{say(language, f'class.{ground}')}, {say(language, f'class.{time}')}"
