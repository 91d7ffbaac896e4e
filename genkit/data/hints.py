"""Hints: what can be drawn of a picture, for models that follow a drawing.

    edges(picture)          Canny: thin lines where the colour changes        of any picture
    scribble(outline, rng)  a line drawing as a hand would make it            for training
    picked(land, things, …) what somebody may have thought worth drawing      for training
    rough(parts, rng)       a semantic map as a hand would paint it           for training
    layout(picture)         its colours on a coarse grid                      of any picture

A control reads planes: of a drawing `ink`, "1 H W", 1 where a line is; of a map `planes`, one for
each class of `PARTS`, "24 H W", zero in all of them where nothing was painted.

Hands differ from renderers in three ways, which `scribble` imitates: a line wanders by a pixel or
two, is thick or thin, and has gaps. And people leave out what they do not care for, and draw a
horizon through a house, as in `picked`. A model that saw only exact contours of whole scenes
follows nothing else.

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

__all__ = [
    "BLANK",
    "HIGH",
    "LOW",
    "OMITTED",
    "edges",
    "ink",
    "layout",
    "picked",
    "planes",
    "rough",
    "scribble",
]

# OpenCV's threads do not survive a fork (`genkit.train`), and 128² pixels need none.
cv2.setNumThreads(1)

LOW, HIGH = 30.0, 60.0
"""Thresholds of `edges`, in grey levels a pixel; low, as the picture book has soft colours."""
BLANK = 255
"""In a semantic map: a pixel that was not painted."""
OMITTED = 0.15
"""Chance of a part of a map to be left out."""

WANDER = 1.5  # pixels of 128: standard deviation of a line's displacement, at most
GAPS = 12  # at most; each takes away a disc
KEPT = 0.7  # chance of a thing of a drawing
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


def picked(
    land: UInt8[np.ndarray, "H W"], things: UInt8[np.ndarray, "H W"], rng: np.random.Generator
) -> UInt8[np.ndarray, "H W"]:
    """An outline of some of the things, with the land behind them or without; hidden lines show.

    What hangs together in an outline is one thing: a cloud, a house, and also the door of it.

    Args:
        land: Outline of the land, black on white.
        things: Outline of the things.
        rng: What chooses.
    """
    dark = (things < INK).astype(np.uint8)
    count, of = cv2.connectedComponents(dark)  # 0 is paper
    kept = rng.random(count) < KEPT
    if count > 1:
        kept[rng.integers(1, count)] = True
    drawn = np.where(kept[of] | (dark == 0), things, 255).astype(np.uint8)
    return np.minimum(drawn, land) if count == 1 or rng.random() < 0.5 else drawn


def _wandering(
    ink: UInt8[np.ndarray, "H W"], deviation: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "H W"]:
    """The ink, displaced by a smooth random field of this standard deviation in pixels."""
    side, knots = ink.shape[0], int(rng.integers(4, 17))
    moved = []
    for axis in np.meshgrid(np.arange(side), np.arange(side)):
        field = rng.standard_normal((knots, knots))
        field = cv2.resize(field, (side, side), interpolation=cv2.INTER_CUBIC)
        moved.append((axis + deviation * field / field.std()).astype(np.float32))
    return cv2.remap(ink, moved[0], moved[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


def rough(
    parts: UInt8[np.ndarray, "H W"], rng: np.random.Generator, omitted: float = OMITTED
) -> UInt8[np.ndarray, "H W"]:
    """A semantic map as a hand would paint it: borders wander, and some parts are left out.

    Args:
        parts: A rendered map, indices into `PARTS`.
        rng: Its randomness.
        omitted: The chance of every part to be left out.
    """
    painted = _wandering(parts, rng.uniform(0, WANDER * parts.shape[0] / 128), rng)
    for part in np.unique(parts):
        if rng.random() < omitted:
            painted[painted == part] = BLANK
    return painted


def ink(values: UInt8[Tensor, "*B H W"]) -> Float[Tensor, "*B 1 H W"]:
    """A line drawing as a control reads it: 1 where a value is not 0."""
    return (values > 0).float().unsqueeze(-3)


def planes(parts: UInt8[Tensor, "*B H W"]) -> Float[Tensor, "*B K H W"]:
    """A semantic map as a control reads it, one plane a part: 1 where it was painted.

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
    classes = torch.arange(len(PARTS), dtype=torch.uint8, device=parts.device)
    return (parts.unsqueeze(-3) == classes.view(-1, 1, 1)).float()


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
