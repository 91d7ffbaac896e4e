"""Adherence: how well a picture follows what was drawn.

Of a line drawing D (the pixels with ink) and the edges E of the picture (`hints.edges`), with the
distance d in pixels:

    precision  share of E within τ of D         what the picture has, was drawn
    recall     share of D within τ of E         what was drawn, the picture has
    F1         2 precision·recall/(precision + recall)
    distance   mean of d(e, D) over E and of d(o, E) over D, their mean

Of a painted map, the mean over the classes of |painted ∩ seen|/|painted ∪ seen| (mIoU), where a
network says what is seen (`genkit.models.parts`); pixels that were not painted do not count.

A picture is not a drawing: shadows, halos and stars have edges that nobody draws. What real
pictures reach against their own drawings is therefore told beside what a model reaches.

References:
    Learning to Detect Natural Image Boundaries Using Local Brightness, Color, and Texture Cues
        (Martin et al., 2004; edges found within a tolerance)
        https://doi.org/10.1109/TPAMI.2004.1273918
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from scipy.ndimage import distance_transform_edt

from genkit.data.hints import BLANK

__all__ = ["Agreement", "agreement", "overlap"]

TOLERANCE = 2.0
"""τ in pixels."""


@dataclass(frozen=True)
class Agreement:
    """Of edges with a drawing.

    Args:
        precision, recall, f1: Shares, 0 to 1.
        distance: In pixels; the diagonal where one of the two is empty.
    """

    precision: float
    recall: float
    f1: float
    distance: float


def agreement(
    found: Bool[np.ndarray, "H W"], drawn: Bool[np.ndarray, "H W"], within: float = TOLERANCE
) -> Agreement:
    """How edges that were found agree with a drawing.

    Args:
        found: The edges of the picture.
        drawn: Where ink is.
        within: τ in pixels.

    Raises:
        ValueError: If the shapes differ, or there is no ink at all.
    """
    if found.shape != drawn.shape:
        raise ValueError(
            f"The edges have shape {found.shape}, the drawing {drawn.shape}: give equal ones."
        )
    if not drawn.any():
        raise ValueError("The drawing has no ink, so nothing can be compared with it.")
    if not found.any():
        return Agreement(0.0, 0.0, 0.0, float(np.hypot(*found.shape)))
    of_found, of_drawn = (
        distance_transform_edt(~drawn)[found],
        distance_transform_edt(~found)[drawn],
    )
    precision, recall = float((of_found <= within).mean()), float((of_drawn <= within).mean())
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    return Agreement(precision, recall, f1, float(of_found.mean() + of_drawn.mean()) / 2)


def overlap(
    seen: Sequence[UInt8[np.ndarray, "H W"]],
    painted: Sequence[UInt8[np.ndarray, "H W"]],
    classes: int,
) -> dict[int, float]:
    """Intersection over union of every class that occurs, over all pictures together.

    Args:
        seen: What a network sees, pixel by pixel.
        painted: What was asked for; `BLANK` does not count.
        classes: How many there are.
    """
    confusion = np.zeros((classes, classes), dtype=np.int64)
    for one, other in zip(seen, painted, strict=True):
        counted = other != BLANK
        pairs = other[counted].astype(np.int64) * classes + one[counted]
        confusion += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    both = np.diag(confusion)
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return {k: float(both[k] / either[k]) for k in range(classes) if either[k]}
