"""Hints: what can be drawn of a picture, for models that follow a drawing.

    edges(picture)          Canny: thin lines where the colour changes        of any picture
    scribble(outline, rng)  a line drawing as a hand would make it            for training
    rough(parts, rng)       a semantic map as a hand would paint it           for training
    planes(parts)           a semantic map as one plane a part                of a painted map
    layout(picture)         its colours on a coarse grid                      of any picture

A drawing is ink, 0 to 1, "1 H W": 1 where a line is. A map has one plane a class of `PARTS`,
"24 H W", and is zero in all of them where nothing was painted.

Hands differ from renderers in three ways, which `scribble` imitates: a line wanders by a pixel or
two, is thick or thin, and has gaps. A model that saw only exact contours follows nothing else.

References:
    A Computational Approach to Edge Detection (Canny, 1986)
        https://doi.org/10.1109/TPAMI.1986.4767851
    Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis (Simard
        et al., 2003; smooth random displacements)  https://doi.org/10.1109/ICDAR.2003.1227801
"""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from genkit.data.picturebook.canvas import PARTS

__all__ = ["BLANK", "HIGH", "LOW", "edges", "layout", "planes", "rough", "scribble"]

LOW, HIGH = 30.0, 60.0
"""Thresholds of `edges`, in grey levels a pixel; low, as the picture book has soft colours."""
BLANK = 255
"""In a semantic map: a pixel that was not painted."""

WANDER = 1.5  # pixels of 128: standard deviation of a line's displacement, at most
GAPS = 12  # at most; each takes away a disc
OMITTED = 0.15  # chance of a part of a map
INK = 128  # grey level below which an outline is ink


def edges(
    picture: UInt8[np.ndarray, "H W 3"], low: float = LOW, high: float = HIGH
) -> Bool[np.ndarray, "H W"]:
    """Where the colour changes: lines one pixel wide.

    Args:
        picture: RGB.
        low: A pixel of a line changes at least that much, in grey levels a pixel …
        high: … and one of every line that much.

    Raises:
        ValueError: If not 0 ≤ low ≤ high ≤ 1000.

    References:
        A Computational Approach to Edge Detection (Canny, 1986)
            https://doi.org/10.1109/TPAMI.1986.4767851
    """
    if not 0 <= low <= high <= 1000:
        raise ValueError(
            f"The thresholds of edges are {low} and {high}: both must lie from 0 to 1000, and the "
            "low one not above the high one."
        )
    return cv2.Canny(np.ascontiguousarray(picture), low, high, L2gradient=True) > 0


def scribble(
    outline: UInt8[np.ndarray, "H W"], rng: np.random.Generator
) -> UInt8[np.ndarray, "H W"]:
    """A line drawing, black on white, as a hand would have made it; 255 is ink in the answer.

    Args:
        outline: A rendered line drawing.
        rng: Its randomness.
    """
    side = outline.shape[0]
    ink = np.where(outline < INK, 255, 0).astype(np.uint8)
    ink = _wandering(ink, rng.uniform(0, WANDER * side / 128), rng)
    width = rng.integers(1, 4)
    if width > 1:
        ink = cv2.dilate(ink, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
    for _ in range(rng.integers(0, GAPS + 1)):
        x, y = (int(v) for v in rng.integers(0, side, 2))
        cv2.circle(ink, (x, y), int(rng.integers(1, max(2, side // 16))), 0, thickness=-1)
    return ink


def _wandering(
    ink: UInt8[np.ndarray, "H W"], deviation: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "H W"]:
    """The ink, displaced by a smooth random field of this standard deviation in pixels."""
    side = ink.shape[0]
    smooth = rng.uniform(side / 32, side / 8)
    moved = []
    for axis in np.meshgrid(np.arange(side), np.arange(side)):
        field = cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), smooth)
        moved.append((axis + deviation * field / max(field.std(), 1e-6)).astype(np.float32))
    return cv2.remap(ink, moved[0], moved[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


def rough(parts: UInt8[np.ndarray, "H W"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W"]:
    """A semantic map as a hand would paint it: borders wander, and some parts are left out.

    Args:
        parts: A rendered map, indices into `PARTS`.
        rng: Its randomness.
    """
    painted = _wandering(parts, rng.uniform(0, WANDER * parts.shape[0] / 128), rng)
    for part in np.unique(parts):
        if rng.random() < OMITTED:
            painted[painted == part] = BLANK
    return painted


def planes(parts: UInt8[np.ndarray, "*B H W"]) -> Float[Tensor, "*B K H W"]:
    """One plane a part: 1 where it was painted.

    Args:
        parts: Indices into `PARTS`, or `BLANK`.

    Raises:
        ValueError: If a pixel is neither.
    """
    wrong = (parts >= len(PARTS)) & (parts != BLANK)
    if wrong.any():
        raise ValueError(
            f"The map holds the value {int(parts[wrong][0])}: use 0 to {len(PARTS) - 1}, or "
            f"{BLANK} for what is not painted."
        )
    index = torch.from_numpy(np.ascontiguousarray(parts)).long().unsqueeze(-3)
    classes = torch.arange(len(PARTS)).view(-1, 1, 1)
    return (index == classes).float()


def layout(picture: UInt8[np.ndarray, "H W 3"], cells: int = 8) -> UInt8[np.ndarray, "H W 3"]:
    """The picture's colours on a grid of cells × cells, each the mean of what it covers.

    Raises:
        ValueError: If the cells are not from 1 to the picture's side.
    """
    height, width = picture.shape[:2]
    if not 1 <= cells <= min(height, width):
        raise ValueError(f"{cells} cells a side: use 1 to {min(height, width)}.")
    small = cv2.resize(picture, (cells, cells), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
