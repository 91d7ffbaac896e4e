"""The picture of a page at 32 × 32, as the models of the picture book at that size know it.

A page keeps the visitor's own picture as bytes, or nothing and the seed of a scene; an endpoint is
sent a file in base64, or nothing and a seed. Both become a batch of one, "1 3 32 32" at the grey
levels −1 + 2k/255 in float32. What is no picture is refused in one sentence.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apps import upload
from apps.bound import reduced
from apps.classes import pixels, sheet_url
from apps.common import Studio, told
from apps.explorer import Explorer

__all__ = ["SIDE", "Small", "tile"]

SIDE = 32
"""Width and height in pixels."""


class Small:
    """Pictures for the small models over one studio, of which it needs the size only."""

    def __init__(self, studio: Studio) -> None:
        self._pages = Explorer(studio)

    def picture(self, picture: bytes | None, seed: Any) -> Float[Tensor, "1 3 32 32"]:
        """The visitor's own picture, as `open` made it, or the scene of the seed.

        Raises:
            Refused: The seed is no whole number within its limits.
        """
        if picture is None:
            return _tensor(self._pages.scene(seed, SIDE))  # drawn as small as those in the book
        return _tensor(reduced(self._pages.picture(seed, picture), SIDE))

    def sent(self, image: Any, seed: Any) -> Float[Tensor, "1 3 32 32"]:
        """The picture of a file in base64; of an empty text, the scene of the seed.

        Raises:
            Refused: It is no picture (see `upload`), or the seed is out of its limits.
        """
        size = self._pages.size
        own = upload.from_base64(image, size).tobytes() if image != "" else None
        return self.picture(own, seed)

    def open(self, language: Any, path: Any) -> bytes:
        """The uploaded picture of a page, ready for `picture`."""
        return self._pages.open_picture(language, path)

    def another(self) -> int:
        """The seed of another scene."""
        return self._pages.another()

    def shown(self, language: Any, picture: bytes | None, seed: Any) -> str:
        """The picture as the models see it, as HTML."""
        with told(language):
            url = tile(self.picture(picture, seed))
        return f'<img class="gk-pixels" src="{url}" alt="">'


def tile(x: Float[Tensor, "1 3 32 32"]) -> str:
    """The picture as the URL of a PNG."""
    return sheet_url([[next(pixels(x))]], SIDE)


def _tensor(x: np.ndarray) -> Float[Tensor, "1 3 H W"]:
    return torch.from_numpy(np.ascontiguousarray(x)).permute(2, 0, 1)[None].float()
