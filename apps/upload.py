"""A picture that a visitor brings, as the pages use it: a square of RGB.

A file is not trusted. Its first bytes name one of a few formats, its length and its number of
pixels are bounded before anything is decoded. Only then its first frame is taken, turned upright
(EXIF), laid on white where it is transparent, brought to 8 bits of RGB, and its middle square
scaled.
"""

import base64
import binascii
import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from apps.receipt import profiles
from apps.settings import Refused

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "decode",
    "from_base64",
    "from_file",
    "layer",
    "unpacked",
]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_BYTES = 8 * 1024 * 1024
MAX_PIXELS = 16_000_000
"""A photograph of a telephone has 12 million."""
LAYER = 2048
"""Largest side of a drawing in pixels; of a larger one each pixel is the mean of some."""
MAX_RATIO = 20
"""How many times longer than wide: of a thinner strip the middle square shows nothing."""
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow itself refuses a bomb of twice as many
BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError)


def from_file(path: Any, size: int) -> Image.Image:
    """The picture of an uploaded file, `size` × `size`.

    Raises:
        Refused: There is none, or as `decode`.
    """
    if not isinstance(path, str):
        raise Refused("upload.empty")
    try:
        if (length := Path(path).stat().st_size) > MAX_BYTES:
            raise Refused("upload.bytes", value=length, limit=MAX_BYTES)
        return decode(Path(path).read_bytes(), size)
    except FileNotFoundError as error:  # swept after an hour
        raise Refused("upload.gone") from error


def from_base64(text: Any, size: int) -> Image.Image:
    """The picture of a file in base64, with or without `data:…,` before it.

    Raises:
        Refused: It is no base64, or as `decode`.
    """
    return decode(unpacked(text), size)


def unpacked(text: Any) -> bytes:
    """The bytes of a file in base64, with or without `data:…,` before it.

    Raises:
        Refused: It is no base64, or too long.
    """
    if not isinstance(text, str):
        raise Refused("upload.base64")
    if len(text) > 1.4 * MAX_BYTES:
        raise Refused("upload.bytes", value=len(text) * 3 // 4, limit=MAX_BYTES)
    try:
        return base64.b64decode(text.partition(",")[2] or text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("upload.base64") from error


def decode(data: bytes, size: int) -> Image.Image:
    """The middle square of a picture file, `size` × `size`, RGB.

    Raises:
        Refused: Too long, no picture of `FORMATS`, too many pixels, too thin, or damaged.
    """
    with _opened(data) as image:
        image.draft("RGB", (2 * size, 2 * size))  # a JPEG is decoded smaller where it can be
        return ImageOps.fit(_rgb(image), (size, size), Image.Resampling.LANCZOS)


def layer(data: bytes) -> np.ndarray:
    """A drawing of any size, "H W 4", RGBA with its transparency, at most `LAYER` wide or high.

    Raises:
        Refused: As `decode`.
    """
    with _opened(data) as image:
        image.seek(0)
        image = ImageOps.exif_transpose(image)
        deep = image.mode.startswith("I") or image.mode == "F"
        image = (_deep(image) if deep else image).convert("RGBA")
        image.thumbnail((LAYER, LAYER), Image.Resampling.BOX)
        return np.asarray(image)


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """The picture file, checked before it is decoded; whatever breaks in it is one refusal."""
    if len(data) > MAX_BYTES:
        raise Refused("upload.bytes", value=len(data), limit=MAX_BYTES)
    if profiles(data) > 1:
        raise Refused("upload.damaged")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(image.width, image.height)
            yield image
    except Refused:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused("upload.pixels", value="?", limit=MAX_PIXELS) from error
    except Image.UnidentifiedImageError as error:
        raise Refused("upload.format", choices=", ".join(FORMATS)) from error
    except (*BROKEN, struct.error, zlib.error) as error:
        raise Refused("upload.damaged") from error


def _check(width: int, height: int) -> None:
    value = f"{width}×{height}"
    if width * height > MAX_PIXELS:
        raise Refused("upload.pixels", value=value, limit=MAX_PIXELS)
    if max(width, height) > MAX_RATIO * min(width, height):
        raise Refused("upload.thin", value=value, limit=MAX_RATIO)


def _rgb(image: Image.Image) -> Image.Image:
    """The first frame, upright, opaque, 8 bits a channel."""
    image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _deep(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _deep(image: Image.Image) -> Image.Image:
    """16 or 32 bits of grey as 8: Pillow's own conversion cuts everything above 255 to white."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise Refused("upload.damaged")
    if image.mode == "F" and values.max() <= 1:
        top = 1.0
    else:
        top = 65535.0 if values.max() > 255 or image.mode.startswith("I;16") else 255.0
    grey = (values / top).clip(0, 1) * 255
    return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
