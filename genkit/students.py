"""Students: what a model of few steps is worth beside the one that taught it.

Captions of test scenes are drawn by both with the same seeds, each as it draws best:

    ratio = FD(student, real)/FD(teacher, real)      1: as near to real pictures; above: farther

FD is the Fréchet distance by the features of the reader of 128² (`genkit.frechet`), real are the
pictures of the captions' own scenes. It is told beside the floor, the distance of as many
validation pictures, and with what it mixes up: precision, recall, and how much of the prompts is
in the pictures (`genkit.quality`, `genkit.fidelity`).
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from genkit.data.picturebook.scene import SPLITS, Scene
from genkit.fidelity import READER, Prompt, judged, seen, stacked
from genkit.frechet import features, frechet_distance
from genkit.models.reader import Reader
from genkit.pixels import exact
from genkit.quality import precision_recall

__all__ = ["Either", "few_steps", "floor", "quality", "real"]

SIZE = 128

Either = Callable[..., Iterator[Image.Image]]
"""(prompts, seeds) → pictures of the student, (prompts, seeds, name) → those of this checkpoint;
their `info` tells the "evaluations" of the network that each took."""


def few_steps(
    draw: Either, teacher: str, asked: Sequence[Prompt], seed: int
) -> tuple[float, dict[str, float]]:
    """The ratio, and everything of both.

    Args:
        draw: How the two are asked.
        teacher: Name of the teacher's checkpoint.
        asked: Captions of test scenes, at least four.
        seed: Number of the first validation scene of the floor.

    Raises:
        ValueError: If there are fewer captions.
    """
    truth, texts = real(asked), [prompt.text for prompt in asked]
    details = floor(truth, seed)  # before the long work: it refuses too few
    ours = quality(list(draw(texts, range(len(texts)))), asked, truth)
    theirs = quality(list(draw(texts, range(len(texts)), teacher)), asked, truth)
    details |= ours | {f"{name} of the teacher": value for name, value in theirs.items()}
    return ours["frechet"] / theirs["frechet"], details


def real(asked: Sequence[Prompt]) -> Float[Tensor, "N D"]:
    """Features of the pictures of the captions' scenes."""
    return _features([Scene.random(prompt.seed).render(SIZE) for prompt in asked])


def floor(truth: Float[Tensor, "N D"], seed: int = 0) -> dict[str, float]:
    """What as many validation pictures reach, from this number on: floor, precision, recall."""
    scenes = SPLITS["validation"][seed : seed + len(truth)]
    others = _features([Scene.random(number).render(SIZE) for number in scenes])
    found = dict(zip(("precision", "recall"), precision_recall(truth, others), strict=True))
    distance = {"floor": frechet_distance(others, truth)}
    return distance | {f"{name} of real pictures": value for name, value in found.items()}


def quality(
    pictures: Sequence[Image.Image], asked: Sequence[Prompt], truth: Float[Tensor, "N D"]
) -> dict[str, float]:
    """Of drawn pictures: frechet, precision, recall, fidelity, evaluations for one.

    Args:
        pictures: One for each caption.
        asked: Captions of test scenes.
        truth: Features of real pictures.
    """
    drawn = _features(pictures)
    precision, recall = precision_recall(truth, drawn)
    return {
        "frechet": frechet_distance(drawn, truth),
        "precision": precision,
        "recall": recall,
        "fidelity": judged(asked, seen(pictures))[0],
        "evaluations": float(np.mean([picture.info["evaluations"] for picture in pictures])),
    }


def _features(pictures: Sequence[Image.Image]) -> Float[Tensor, "N D"]:
    reader = exact(READER)  # a distance of rounded features would be another one
    if not isinstance(reader, Reader):
        raise ValueError(f"{READER} is no reader: publish it from its own recipe.")
    return features(reader, stacked(pictures))
