"""What is said of four encoders, measured: who lies near whom, and what a vector still knows.

Course notes give each encoder a sentence: in the space of a convolutional network objects of the
same content lie near each other, in that of a VAE those of the same structure, in that of a vision
transformer those of the same context, and in a space that was learned as a metric those of the
same identity. The picture book knows the truth of every scene, so each word becomes a number
between 0 and 1:

    content     of the kinds of things in two scenes, the share that both have, |A ∩ B| / |A ∪ B|
    structure   share of the pixels at which both show the same part (sky, hill, roof, …)
    context     share of time of day, ground, weather and mountains in which both agree
    identity    whether of a scene by daylight that is drawn again at another time of day the
                nearest of all scenes is the scene itself

The first three are means over the 8 nearest neighbours of every scene, and chance is the mean over
random pairs. A sentence is true if its encoder is above chance and no other encoder is above it,
each by more than two standard errors of the mean (of the difference, scene by scene).

A linear probe asks whether a label can be read off a vector by a linear map: one number for each
class by least squares with a small penalty, the largest wins. Each scene is judged by a probe that
was fitted without its fifth of the scenes; chance is the share of the most frequent class.

References:
    Understanding intermediate layers using linear classifier probes (Alain and Bengio, 2017)
        https://arxiv.org/abs/1610.01644
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apps.spaces import NEAR, SIZE, Array, Attribute, Book, Space, stored
from genkit.data.picturebook import Scene
from genkit.data.picturebook.scene import KINDS, VERSION

__all__ = [
    "ASPECTS",
    "CLAIMS",
    "REDRAWN",
    "Verdict",
    "agreement",
    "alike",
    "around",
    "chance_of",
    "identity",
    "judged",
    "later",
    "probe",
    "redrawn",
    "shared",
]

CLAIMS: Mapping[str, str] = {
    "content": "convnet", "structure": "vae", "context": "vit", "identity": "contrastive",
}  # fmt: skip
"""Each word of the notes, and the encoder of which it is said."""
ASPECTS = ("content", "structure", "context")
CONTEXT = ("time", "ground", "weather", "mountains")
REDRAWN = 300
"""Scenes that are drawn again at another time of day."""
NEXT = {"day": "dawn", "dawn": "sunset", "sunset": "day"}
FOLDS = 5
PENALTY = 0.01
"""Of a probe's squared weights, beside the mean squared error, for numbers of variance 1."""
SURE = 2.0
"""Standard errors by which numbers must differ to be called different."""


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Args:
        kind: true; rival: above chance, but another encoder is better at it; false: not above
            chance; unknown: the encoder is not there.
        value: The encoder's number.
        rival: The encoder with the highest number.
    """

    kind: str
    value: float
    rival: str


def alike(book: Book, first: Array, second: Array) -> dict[str, Array]:
    """How much pairs of scenes have in common: aspect -> "P", from 0 to 1.

    Args:
        book: The scenes.
        first, second: "P", indices of scenes.
    """
    kinds = np.array([[kind in _kinds(scene) for kind in KINDS] for scene in book.scenes])
    a, b = kinds[first], kinds[second]
    context = np.array([[getattr(scene, name) for name in CONTEXT] for scene in book.scenes])
    maps = book.maps.reshape(len(book.scenes), -1)
    same = [(maps[i] == maps[j]).mean(axis=1) for i, j in _some(first, second)]
    return {
        "content": (a & b).sum(axis=1) / (a | b).sum(axis=1),
        "structure": np.concatenate(same),
        "context": (context[first] == context[second]).mean(axis=1),
    }


def around(book: Book, near: Array) -> dict[str, Array]:
    """What every scene has in common with its neighbours on average: aspect -> "N".

    Args:
        book: The scenes.
        near: "N K", the neighbours of each.
    """
    first = np.repeat(np.arange(len(near)), near.shape[1])
    pairs = alike(book, first, near.ravel())
    return {name: values.reshape(near.shape).mean(axis=1) for name, values in pairs.items()}


def chance_of(book: Book) -> dict[str, float]:
    """What random pairs have in common, and how often a random scene is the right one."""
    count = len(book.scenes)
    rng = np.random.default_rng(0)
    first = np.repeat(np.arange(count), NEAR)
    second = (first + rng.integers(1, count, len(first))) % count
    means = {name: float(values.mean()) for name, values in alike(book, first, second).items()}
    return means | {"identity": 1 / count}


def later(scene: Scene) -> Scene | None:
    """The same place at the next time of day, nothing else changed; None of a scene by night.

    With the night stars come or go, and with them the details that have no label.
    """
    return replace(scene, time=NEXT[scene.time]) if scene.time in NEXT else None


def redrawn(book: Book) -> tuple[Array, Array]:
    """("M" indices, "M H W 3" pictures) of the first scenes by daylight, at another time."""
    pairs = [(i, changed) for i, one in enumerate(book.scenes) if (changed := later(one))]
    own, changed = zip(*pairs[:REDRAWN])
    name = f"latents-later-v{VERSION}-{SIZE}-{changed[0].seed}-{len(changed)}"
    shape = (len(changed), SIZE, SIZE, 3)
    pictures = stored(name, shape, changed, lambda scene: np.asarray(scene.render(SIZE)))
    return np.array(own), pictures


def identity(where: Space, vectors: Array, own: Array) -> Array:
    """ "M", 1 where the nearest of all scenes is the one that was drawn again.

    Args:
        where: The space of all scenes.
        vectors: "M D", of those that were drawn again.
        own: "M", which they are.
    """
    near, _ = where.nearest(vectors, 1)
    return (near[:, 0] == own).astype(float)


def judged(aspect: str, found: Mapping[str, Array], chance: float) -> Verdict:
    """The verdict on the claim about this aspect.

    Args:
        aspect: A key of `CLAIMS`.
        found: Encoder -> what was measured of every scene; those that are there.
        chance: Its mean without any encoder.
    """
    name = CLAIMS[aspect]
    if name not in found:
        return Verdict("unknown", float("nan"), "")
    own = found[name]
    rival = max(found, key=lambda one: found[one].mean())
    kind = "true"
    if not _above(own - chance):
        kind = "false"
    elif _above(found[rival] - own):
        kind = "rival"
    return Verdict(kind, float(own.mean()), rival)


def probe(vectors: Array, labels: Sequence[Attribute]) -> Iterator[tuple[float, float]]:
    """(share of scenes whose class is read off, the share by chance) of each label.

    Args:
        vectors: "N D".
        labels: What is asked for.
    """
    for one in labels:
        asked = one.asked
        values = one.values[asked]
        counts = np.bincount(values, minlength=len(one.classes))
        right = _read(vectors[asked], np.eye(len(one.classes))[values]) == values
        yield float(right.mean()), float(counts.max() / len(values))


def agreement(near: Array, label: Attribute) -> tuple[float, float]:
    """(share of neighbours with the same value, the share among random pairs).

    Args:
        near: "N K".
        label: Scenes without it are not asked, but they are neighbours.
    """
    asked, values = label.asked, label.values
    same = values[near[asked]] == values[asked][:, None]
    shares = np.bincount(values, minlength=len(label.classes)) / len(values)
    return float(same.mean()), float(shares[values[asked]].mean())


def shared(a: Array, b: Array) -> float:
    """Share of neighbours that a scene has in both spaces, the mean of all scenes."""
    return float(np.mean([len(set(x) & set(y)) / len(x) for x, y in zip(a, b)]))


def _read(vectors: Array, answers: Array) -> Array:
    """ "N", the class that a probe, fitted without the scene's fold, reads off each vector."""
    fold = np.arange(len(vectors)) % FOLDS
    read = np.zeros(len(vectors), int)
    for held in range(FOLDS):
        known, asked = fold != held, fold == held
        mean, spread = vectors[known].mean(axis=0), vectors[known].std(axis=0) + 1e-6
        x = ((vectors - mean) / spread).astype(np.float64)
        middle = answers[known].mean(axis=0)
        gram = x[known].T @ x[known] + PENALTY * known.sum() * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x[known].T @ (answers[known] - middle))
        read[asked] = (x[asked] @ weights + middle).argmax(axis=1)
    return read


def _above(values: Array) -> bool:
    """Whether the mean is positive beyond doubt."""
    error = values.std() / np.sqrt(len(values))
    return bool(values.mean() > SURE * error)


def _kinds(scene: Scene) -> set[str]:
    return {thing.kind for thing in scene.things}


def _some(first: Array, second: Array) -> Iterator[tuple[Array, Array]]:
    """A few thousand pairs at a time: their maps together fill megabytes."""
    for start in range(0, len(first), 4000):
        yield first[start : start + 4000], second[start : start + 4000]
