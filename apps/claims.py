"""What is said of four encoders, measured: who lies near whom, and what a vector still knows.

Course notes give each encoder a sentence: in the space of a convolutional network objects of the
same content lie near each other, in that of a VAE those of the same structure, in that of a vision
transformer those of the same context, and in a space that was learned as a metric those of the
same identity. The picture book knows the truth of every scene, so each word becomes a number
between 0 and 1 (`genkit.probes`), and beside it stands what a linear probe reads off the vectors.

A sentence is true if its encoder is above chance and no other encoder is above it, each by more
than two standard errors of the mean (of the difference, scene by scene).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from apps.spaces import SIZE, Array, Attribute, Book, Space, stored
from genkit import probes
from genkit.data.picturebook.scene import VERSION
from genkit.data.picturebook.source import label_tensor
from genkit.probes import Found

__all__ = [
    "CLAIMS",
    "Verdict",
    "agreements",
    "aspects",
    "judged",
    "readable",
    "redrawn",
    "shared",
]

CLAIMS: Mapping[str, str] = {
    "content": "convnet", "structure": "vae", "context": "vit", "identity": "contrastive",
}  # fmt: skip
"""Each word of the notes, and the encoder of which it is said."""
SURE = 2.0
"""Standard errors by which numbers must differ to be called different."""


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Args:
        kind: true; rival: above chance, but another encoder is better at it; false: not above
            chance; unknown: the encoder is not there.
        value: The encoder's number.
        rival: The better encoder; where there is none, that with the highest number.
    """

    kind: str
    value: float
    rival: str


def redrawn(book: Book) -> tuple[Array, Array]:
    """("M" indices, "M H W 3" pictures) of the scenes that are drawn at another time of day."""
    own, changed = probes.redrawn(book.scenes)
    name = f"latents-later-v{VERSION}-{SIZE}-{changed[0].seed}-{len(changed)}"
    shape = (len(changed), SIZE, SIZE, 3)
    pictures = stored(name, shape, changed, lambda scene: np.asarray(scene.render(SIZE)))
    return own.numpy(), pictures


def aspects(book: Book, where: Space, later: Array, own: Array) -> dict[str, Found]:
    """What was found of each aspect in one space.

    Args:
        book: The scenes.
        where: Their space.
        later: "M D", the vectors of those that were drawn again.
        own: "M", which they are.
    """
    near, labels = torch.from_numpy(where.near), label_tensor(book.scenes)
    maps, *rest = map(torch.from_numpy, (book.maps, where.vectors, later, own))
    return {
        "content": probes.content(near, labels),
        "structure": probes.structure(near, maps),
        "context": probes.context(near, labels),
        "identity": probes.identity(*rest),
    }


def judged(aspect: str, found: Mapping[str, Found]) -> Verdict:
    """The verdict on the claim about this aspect.

    Args:
        aspect: A key of `CLAIMS`.
        found: Encoder -> what was found; those that are there.
    """
    name = CLAIMS[aspect]
    if name not in found:
        return Verdict("unknown", float("nan"), "")
    own = found[name]
    best = max(found, key=lambda one: found[one].value)
    if not _above(own):
        return Verdict("false", own.value, best)
    above = [one for one in found if _above(Found(found[one].each - own.each, 0.0))]
    if above:
        return Verdict("rival", own.value, max(above, key=lambda one: found[one].value))
    return Verdict("true", own.value, best)


def readable(vectors: Array, labels: Sequence[Attribute]) -> list[Found]:
    """How often the linear probe reads each label off vectors "N D"."""
    features = torch.from_numpy(vectors)
    table = torch.from_numpy(np.stack([one.values for one in labels], axis=1))
    found = probes.linear_probe(features, table)
    for i, one in enumerate(labels):
        if one.partial:
            asked = torch.from_numpy(one.asked)
            [found[i]] = probes.linear_probe(features[asked], table[asked, i : i + 1])
    return found


def agreements(near: Array, labels: Sequence[Attribute]) -> list[Found]:
    """How often the neighbours "N K" of a scene have its class, label by label.

    Scenes without it are not asked where a label is partial, but they are neighbours.
    """
    scenes = torch.from_numpy(near)
    return [
        probes.agreement(scenes, torch.from_numpy(one.values), torch.from_numpy(one.asked))
        for one in labels
    ]


def shared(a: Array, b: Array) -> float:
    """Share of neighbours that a scene has in both spaces, the mean of all scenes."""
    return float(np.mean([len(set(x) & set(y)) / len(x) for x, y in zip(a, b)]))


def _above(found: Found) -> bool:
    """Whether it is above chance beyond doubt."""
    return found.value - found.chance > SURE * found.error
