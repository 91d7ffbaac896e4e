"""Many small pictures as one: rows of them with clear gaps, as a PNG in a data URL.

    colours(x)     pictures in [−1, 1] as they are
    heat(x)        0 … 1 as black, red, yellow, white
    diverging(x)   −1 … 1 as blue, white, brick: which side of zero, and how far

A map of a few numbers is drawn as squares; the browser enlarges it without smoothing.
"""

import io
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from apps.cards import png_url
from genkit.data.picturebook.source import to_uint8

__all__ = ["Tiles", "colours", "diverging", "heat", "mosaic", "squares"]

COLD, WARM = torch.tensor([44.0, 108.0, 147.0]), torch.tensor([181.0, 72.0, 45.0])

Tiles = UInt8[Tensor, "N h w 3"]


def colours(x: Float[Tensor, "N 3 h w"]) -> Tiles:
    """Pictures in [−1, 1], rounded to grey levels."""
    return to_uint8(x).permute(0, 2, 3, 1)


def heat(x: Float[Tensor, "N h w"]) -> Tiles:
    """0 is black, 1 and more is white."""
    thirds = 3 * x[..., None] - torch.arange(3)
    return (255 * thirds.clamp(0, 1)).round().to(torch.uint8)


def diverging(x: Float[Tensor, "N h w"]) -> Tiles:
    """−1 and less is blue, 0 white, 1 and more brick."""
    x = x.clamp(-1, 1)[..., None]
    return (255 + x.abs() * (torch.where(x < 0, COLD, WARM) - 255)).round().to(torch.uint8)


def squares(maps: Tiles, side: int) -> UInt8[Tensor, "1 side side 3"]:
    """All maps in one square of this side, row by row, as large as whole pixels allow."""
    columns = int(np.ceil(np.sqrt(len(maps))))
    sheet = np.ascontiguousarray(_laid(maps, columns, 0)[..., :3])
    image = Image.fromarray(sheet).resize((side, side), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(image))[None]


def mosaic(tiles: Sequence[Tiles], columns: int, gap: int = 1, scale: int = 1) -> str:
    """The pictures in rows, as a data URL.

    Args:
        tiles: Batches of pictures of one size, one after the other.
        columns: In a row.
        gap: Clear pixels between them, of the enlarged ones.
        scale: How many times each pixel is drawn, either way.
    """
    whole = torch.cat(list(tiles)).repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    buffer = io.BytesIO()
    Image.fromarray(_laid(whole, columns, gap)).save(buffer, "PNG")
    return png_url(buffer.getvalue())


def _laid(tiles: Tiles, columns: int, gap: int) -> np.ndarray:
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    size = (rows * (height + gap) - gap, columns * (width + gap) - gap, 4)
    sheet = np.zeros(size, np.uint8)
    for i, tile in enumerate(tiles.numpy()):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        sheet[y : y + height, x : x + width, :3] = tile
        sheet[y : y + height, x : x + width, 3] = 255
    return sheet
