"""What a visitor has drawn, as a hint: from a picture file of any kind to ink, or to parts.

A drawing may come from the page's own canvas, from any other program, or from paper. Its ink is

    the opaque part, where most of the picture is transparent (a layer)
    else what differs from the paper, the commonest grey: dark on white and white on dark alike

and the colours of a painted map are those of `PART_COLOURS`; what has none of them, or is
transparent, was not painted. A drawing that is not square keeps its sides and gets margins.

Of the page's own board nothing is guessed, and a receipt carries the values that were followed.
"""

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from apps import upload
from apps.settings import Refused
from genkit.adherence import Agreement, agreement, overlap
from genkit.data import hints
from genkit.data.hints import BLANK, edges, planes
from genkit.data.picturebook.canvas import PART_COLOURS, PARTS, coloured

__all__ = [
    "KINDS",
    "SIDE",
    "Drawing",
    "board",
    "covered",
    "followed",
    "ink",
    "map_image",
    "on_white",
    "painted",
    "photographed",
    "read",
    "stored",
]

SIDE = 128
"""Pixels of a side of a hint, as of the pictures."""
CONTRAST = 48
"""Grey levels by which ink differs from the paper."""
COVERED = 0.1
"""Share of a pixel that ink must cover: a thin line of a large drawing stays."""
LAYER = 0.5
"""A picture whose opaque share is below is a layer on which somebody drew."""
NEAR = 24.0
"""Largest distance of a colour, in RGB, from the paint that it is taken for."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """A hint of one kind.

    Args:
        kind: "sketch" or "map", the name of the control that reads it.
        values: Of a sketch 255 where ink is, else 0; of a map indices of `PARTS`, or `BLANK`.
    """

    kind: str
    values: UInt8[np.ndarray, "H W"]

    @property
    def empty(self) -> bool:
        """Whether nothing was drawn; nor was it where ink is all over."""
        if self.kind == "map":
            return not bool((self.values != BLANK).any())
        return bool((self.values == self.values.flat[0]).all())

    def hint(self) -> Float[Tensor, "1 K H W"]:
        """What the control is given; zero everywhere where nothing was drawn."""
        values = torch.from_numpy(self.values.copy())[None]
        if self.kind == "map":
            return planes(values)
        return hints.ink(torch.zeros_like(values) if self.empty else values)

    def image(self) -> Image.Image:
        """As the board shows it: black on white, or paints on a transparent ground."""
        if self.kind == "map":
            return map_image(self.values)
        return Image.fromarray(255 - self.values)

    def file(self) -> str:
        """The values as PNG in base64, for a receipt (`stored` gives them back)."""
        buffer, image = io.BytesIO(), Image.fromarray(self.values)
        small = image.convert("1") if self.kind == "sketch" else image
        small.save(buffer, format="PNG", optimize=True)
        return base64.b64encode(buffer.getvalue()).decode("ascii")


def read(kind: str, file: str) -> Drawing:
    """The drawing of anybody's picture file in base64, with or without `data:…,` before it.

    Args:
        kind: "sketch" or "map".
        file: PNG, JPEG, WebP …; the empty text is an empty drawing.

    Raises:
        Refused: See `apps.upload`.
    """
    return _drawing(kind, file, KINDS[kind])


def board(kind: str, file: str) -> Drawing:
    """The same of the page's own board, whose paper is white: nothing is guessed."""
    return _drawing(kind, file, painted if kind == "map" else on_white)


def stored(kind: str, file: str) -> Drawing:
    """The drawing of a receipt, as `Drawing.file` wrote it.

    Raises:
        Refused: It is another file.
    """
    try:
        grey = upload.layer(upload.unpacked(file))[..., 0]
    except Refused as error:
        raise Refused("receipt.manifest") from error
    known = grey < len(PARTS) if kind == "map" else grey == 0
    if grey.shape != (SIDE, SIDE) or not (known | (grey == BLANK)).all():
        raise Refused("receipt.manifest")
    return Drawing(kind, grey)


def _drawing(kind: str, file: str, values: Callable[[np.ndarray], np.ndarray]) -> Drawing:
    if file == "":
        blank = BLANK if kind == "map" else 0
        return Drawing(kind, np.full((SIDE, SIDE), blank, dtype=np.uint8))
    return Drawing(kind, values(upload.layer(upload.unpacked(file))))


def ink(picture: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "128 128"]:
    """255 where a drawing has ink, in RGBA of any size."""
    opaque = picture[..., 3] >= 128
    if 0 < opaque.mean() < LAYER:
        return _small(opaque)
    grey = _grey(picture)
    counts = np.bincount(grey.round().astype(np.int64).ravel(), minlength=256)
    return _small(np.abs(grey - counts.argmax()) >= CONTRAST)


def on_white(picture: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "128 128"]:
    """255 where a drawing on white paper has ink."""
    return _small(_grey(picture) <= 255 - CONTRAST)


def painted(picture: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "128 128"]:
    """The part whose paint every pixel has, or `BLANK`, of RGBA of any size."""
    square = _square(Image.fromarray(picture), (0, 0, 0, 0))
    small = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.NEAREST))
    paints = np.array([PART_COLOURS[part] for part in PARTS], dtype=np.float64)
    apart = np.linalg.norm(small[..., None, :3].astype(np.float64) - paints, axis=-1)
    parts = apart.argmin(axis=-1).astype(np.uint8)
    parts[(apart.min(axis=-1) > NEAR) | (small[..., 3] < 128)] = BLANK
    return parts


def photographed(picture: Image.Image, low: float, high: float) -> Drawing:
    """The drawing that is made of a picture's edges."""
    found = edges(np.asarray(picture.convert("RGB")), low, high)
    return Drawing("sketch", found.astype(np.uint8) * 255)


def map_image(parts: UInt8[np.ndarray, "H W"]) -> Image.Image:
    """A map in its paints, RGBA; transparent where nothing was painted."""
    shown = coloured(Image.fromarray(parts))
    shown.putalpha(Image.fromarray(np.where(parts == BLANK, 0, 255).astype(np.uint8)))
    return shown


def followed(drawing: Drawing, picture: Image.Image) -> Agreement:
    """How well the edges of a picture follow a sketch that is not empty."""
    return agreement(edges(np.asarray(picture)), drawing.values > 0)


def covered(drawing: Drawing, seen: UInt8[np.ndarray, "H W"]) -> float:
    """mIoU of the parts that are seen in a picture with a map that is not empty."""
    shares = overlap([seen], [drawing.values], len(PARTS))
    return float(np.mean([shares[k] for k in np.unique(drawing.values) if k in shares]))


def _grey(picture: UInt8[np.ndarray, "H W 4"]) -> Float[np.ndarray, "H W"]:
    """Of a picture that lies on white."""
    alpha = picture[..., 3:] / 255
    return (picture[..., :3] * alpha + 255 * (1 - alpha)) @ (0.299, 0.587, 0.114)


def _small(drawn: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "128 128"]:
    """255 in every pixel of which ink covers enough."""
    whole = Image.fromarray(drawn.astype(np.uint8) * 255)
    small = np.asarray(_square(whole, 0).resize((SIDE, SIDE), Image.Resampling.BOX))
    return np.where(small > 255 * COVERED, 255, 0).astype(np.uint8)


def _square(image: Image.Image, margin: int | tuple[int, ...]) -> Image.Image:
    side = max(image.size)
    square = Image.new(image.mode, (side, side), margin)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


KINDS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"sketch": ink, "map": painted}
"""What reads each kind of foreign drawing."""
