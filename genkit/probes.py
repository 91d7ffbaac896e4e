"""Probes: what an encoder's space keeps near, and what can be read from it with a ruler.

Near is what has a large cosine after the mean m of the space is taken off,

    near(u, v) = cos(u − m, v − m),

for the features of a net are often all positive, and then all point in one direction. As a
distance, the directions from m are √(2 − 2 near) apart, the Euclidean distance of unit vectors.

What is claimed of such spaces becomes four numbers from 0 to 1, each beside what chance gives. Of
every scene and its k nearest neighbours:

    content     Jaccard index |A ∩ B|/|A ∪ B| of the kinds of things in both
    structure   share of the pixels at which both show the same part (sky, hill, roof, …)
    context     share of ground, time of day, weather and mountains in which both agree
    identity    whether a scene by daylight is the nearest of all to its own picture at another
                time of day

Chance is the mean over all pairs of different scenes, and one scene among all for identity. For
every label there is a linear probe: a map from features to classes, fitted to the first half of
the scenes by least squares and tested on the other, beside always saying the commonest class.

References:
    Understanding intermediate layers using linear classifier probes (Alain and Bengio, 2017)
        https://arxiv.org/abs/1610.01644
    Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021;
        retrieval as a measure)  https://arxiv.org/abs/2103.00020
    The Elements of Statistical Learning (Hastie, Tibshirani and Friedman, 2009; section 7.10 and
        equation 5.26, leaving one out without fitting again)
        https://hastie.su.domains/ElemStatLearn/
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer, UInt8
from torch import Tensor

from genkit.data.picturebook.scene import LABELS, Scene
from genkit.data.picturebook.source import to_unit
from genkit.model import Model
from genkit.models.encoders import kinds_of
from genkit.models.vae import VAE

__all__ = [
    "CONTEXT",
    "NEAREST",
    "REDRAWN",
    "Encoder",
    "Found",
    "Near",
    "agreement",
    "content",
    "context",
    "directions",
    "elsewhen",
    "identity",
    "linear_probe",
    "neighbours",
    "recall",
    "redrawn",
    "structure",
    "vector",
    "vectors",
]

NEAREST = 8
"""Neighbours that are looked at unless told."""
CONTEXT = ("ground", "time", "weather", "mountains")
"""The labels that say where and when."""
REDRAWN = 300
"""Scenes by daylight that are drawn again at another time of day."""
BATCH = 250
RIDGES = tuple(10.0**power for power in range(5, -4, -1))
"""Weights of the squared map that a probe chooses from, in units of a feature's variance."""
_LATER = {"day": "dawn", "dawn": "sunset", "sunset": "day"}


@runtime_checkable
class Encoder(Protocol):
    """An encoder: it turns a picture into a vector."""

    size: int

    def embed(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Found:
    """A measured number, and what one finds without knowing anything.

    Args:
        each: What was measured of every scene that was asked.
        chance: The mean for features that say nothing.
    """

    each: Float[Tensor, "M"]
    chance: float

    @property
    def value(self) -> float:
        """The mean over the scenes."""
        return self.each.mean().item()

    @property
    def error(self) -> float:
        """The standard error of that mean."""
        return self.each.std(correction=0).item() / math.sqrt(len(self.each))


@dataclass(frozen=True, eq=False)
class Near:
    """Neighbours, the nearest first.

    Args:
        index: Their numbers.
        cosine: near(u, v) of each.
    """

    index: Int[Tensor, "B k"]
    cosine: Float[Tensor, "B k"]

    @property
    def distance(self) -> Float[Tensor, "B k"]:
        """How far they are apart as directions from the mean, 0 to 2."""
        return (2 - 2 * self.cosine).clamp(min=0).sqrt()


def vector(model: Any, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
    """The vector of each picture in [−1, 1]: `embed`, or the means of q(z | x) of a VAE."""
    if isinstance(model, Encoder):
        return model.embed(x)
    return model.encode(x)[0].posterior.mean.flatten(1)


@torch.no_grad()
def vectors(model: Model, pictures: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
    """The `vector` of each picture 0 … 255, on the processor.

    Raises:
        ValueError: The model has no vector of a picture, or the pictures have another size.
    """
    if not isinstance(model, Encoder | VAE):
        raise ValueError(
            f"a {type(model).__name__} has no vector of a picture; take an encoder, such as "
            "book32_convnet, or a VAE"
        )
    device = next(model.parameters()).device
    found = [vector(model, to_unit(some).to(device)) for some in pictures.split(BATCH)]
    return torch.cat(found).float().cpu()


def neighbours(
    features: Float[Tensor, "N D"],
    query: Float[Tensor, "B D"] | None = None,
    k: int = NEAREST,
    without: Sequence[int] = (),
) -> Near:
    """The k features nearest to each query; see `near` above.

    Args:
        features: What is searched; their mean is taken off both.
        query: What is looked for; None: every feature, which is not its own neighbour.
        k: How many.
        without: Numbers of features that do not count.

    Raises:
        ValueError: k is out of range, or a number is not finite.
    """
    known = features if query is None else query
    _check(features, known)
    most = len(features) - len(without) - (query is None)
    if not 1 <= k <= most:
        raise ValueError(f"{k} neighbours among {most} pictures: choose 1 to {most}")
    mean = features.double().mean(dim=0)
    cosines = directions(known, mean) @ directions(features, mean).T
    if query is None:
        cosines.fill_diagonal_(-torch.inf)
    cosines[:, list(without)] = -torch.inf
    best = cosines.topk(k, dim=1)
    return Near(best.indices, best.values)


def directions(
    vectors: Float[Tensor, "B D"], mean: Float[Tensor, "D"] | None = None
) -> Float[Tensor, "B D"]:
    """Unit vectors, after a mean is taken off if there is one; no direction is 0."""
    return F.normalize(vectors.double() - (0 if mean is None else mean), dim=1)


def agreement(
    near: Int[Tensor, "N k"],
    classes: Integer[Tensor, "N *K"],
    asked: Int[Tensor, "M"] | None = None,
) -> Found:
    """Share of the neighbours of a scene that have its class.

    Args:
        near: The neighbours of every scene.
        classes: Of every scene; of several labels, their mean.
        asked: Numbers of the scenes that are asked, all unless told; any may be a neighbour.

    Raises:
        ValueError: There are not as many scenes of both.
    """
    _fit(near, classes)
    classes, count = classes.reshape(len(classes), -1), len(classes)
    asked = torch.arange(count) if asked is None else asked
    same = classes[near[asked]] == classes[asked][:, None]  # "M k K"
    each = same.sum(dim=(1, 2)).double() / same[0].numel()
    index = classes.long()
    totals = torch.zeros(int(index.max()) + 1, index.shape[1], dtype=torch.float64)
    totals.scatter_add_(0, index, torch.ones_like(index, dtype=torch.float64))
    others = totals.gather(0, index[asked]) - 1  # of the same class, beside the scene itself
    return Found(each, (others.mean() / (count - 1)).item())


def content(near: Int[Tensor, "N k"], labels: Int[Tensor, "N L"]) -> Found:
    """How far neighbours show the same kinds of things, wherever they stand: Jaccard index.

    Raises:
        ValueError: As `agreement`.
    """
    _fit(near, labels)
    kinds = kinds_of(labels).double()
    both = kinds @ kinds.T
    count = kinds.sum(dim=1)
    jaccard = both / (count[:, None] + count - both)  # every scene has a thing
    chance = (jaccard.sum() - jaccard.trace()) / (len(labels) * (len(labels) - 1))
    return Found(jaccard.gather(1, near).mean(dim=1), chance.item())


def structure(near: Int[Tensor, "N k"], maps: UInt8[Tensor, "N H W"]) -> Found:
    """Share of the pixels at which a scene and its neighbours show the same part.

    Raises:
        ValueError: As `agreement`.
    """
    return agreement(near, maps)


def context(near: Int[Tensor, "N k"], labels: Int[Tensor, "N L"]) -> Found:
    """Share of neighbours that agree on where and when: the mean `agreement` of `CONTEXT`.

    Raises:
        ValueError: As `agreement`.
    """
    order = list(LABELS)
    return agreement(near, labels[:, [order.index(name) for name in CONTEXT]])


def identity(
    features: Float[Tensor, "N D"], later: Float[Tensor, "M D"], own: Int[Tensor, "M"]
) -> Found:
    """Share of scenes that are the nearest of all to their own picture at another time of day.

    Chance is 1/N.

    Args:
        features: Of all scenes.
        later: Of some of them `elsewhen`.
        own: The number of each of those among all.

    Raises:
        ValueError: There are not as many of both, or a number is not finite.
    """
    _fit(later, own)
    nearest = neighbours(features, later, 1).index[:, 0]
    return Found((nearest == own).double(), 1 / len(features))


def redrawn(scenes: Sequence[Scene]) -> tuple[Int[Tensor, "M"], list[Scene]]:
    """Numbers of the first `REDRAWN` scenes by daylight, and those scenes `elsewhen`.

    Raises:
        ValueError: There is none.
    """
    own = [i for i, scene in enumerate(scenes) if scene.time in _LATER][:REDRAWN]
    if not own:
        raise ValueError(f"all {len(scenes)} scenes are at night: take more, some by daylight")
    return torch.tensor(own), [elsewhen(scenes[i]) for i in own]


def elsewhen(scene: Scene) -> Scene:
    """The same place at another time of day: day → dawn → sunset → day; nothing else changes.

    Raises:
        ValueError: It is night. Stars come or go, and with them the details of the place.
    """
    if scene.time not in _LATER:
        raise ValueError(f"scene {scene.seed} is at {scene.time}: take one by daylight")
    return replace(scene, time=_LATER[scene.time])


def recall(query: Float[Tensor, "N D"], gallery: Float[Tensor, "N D"], k: int) -> Found:
    """Share of queries whose own item is among the k of the largest cosine, no mean taken off.

    Chance is k/N.

    Args:
        query: Of pictures, say.
        gallery: Of their captions, in the same order.
        k: 1 to N.

    Raises:
        ValueError: k is out of range, there are not as many of each, or a number is not finite.
    """
    _check(query, gallery)
    _fit(query, gallery)
    if not 1 <= k <= len(gallery):
        raise ValueError(f"recall at {k} of {len(gallery)}: choose 1 to {len(gallery)}")
    best = (directions(query) @ directions(gallery).T).topk(k, dim=1).indices
    hits = (best == torch.arange(len(query))[:, None]).any(dim=1)
    return Found(hits.double(), k / len(gallery))


def linear_probe(features: Float[Tensor, "N D"], labels: Int[Tensor, "N K"]) -> list[Found]:
    """Share of scenes of which a linear map of the features tells the class, label by label.

    The map is fitted to the first half of the scenes and tested on the second. Every class is a
    number of its own, 1 or −1, and the largest says the class; features are standardised, and the
    weight of the squared map is the one of `RIDGES` that is right most often when each scene of
    the first half is left out in turn (the largest of equals). Chance is always saying the class
    that is commonest in the first half.

    Args:
        features: One vector a scene.
        labels: The classes of each, a column a label.

    Raises:
        ValueError: Less than four scenes, a number is not finite, or there are not as many labels.
    """
    _fit(features, labels)
    if len(features) < 4:
        raise ValueError(f"{len(features)} scenes cannot be halved for a probe: give at least 4")
    half = len(features) // 2
    ridge = _Ridge(features[:half], features[half:])
    found = []
    for column in labels.unbind(dim=1):
        taught, asked = column[:half], column[half:]
        said = ridge.classes(taught, int(column.max()) + 1)
        commonest = taught.bincount().argmax()
        found.append(Found((said == asked).double(), _share(asked == commonest)))
    return found


class _Ridge:
    """Ridge regression of many labels from the same features, by one decomposition X = U S Vᵀ.

    Args:
        fit: Features whose classes are taught.
        test: Features whose classes are asked for.
    """

    def __init__(self, fit: Float[Tensor, "N D"], test: Float[Tensor, "M D"]) -> None:
        mean, std = fit.double().mean(dim=0), fit.double().std(dim=0)
        # A feature that never changes says nothing; dividing by its rounding would make it loud.
        scale = torch.where(std > 1e-6 * std.max(), std, torch.inf)
        self.u, self.s, v = torch.linalg.svd((fit.double() - mean) / scale, full_matrices=False)
        self.v = (test.double() - mean) / scale @ v.T

    def classes(self, taught: Int[Tensor, "N"], count: int) -> Int[Tensor, "M"]:
        """The classes of the test features."""
        targets = 2 * F.one_hot(taught, count).double() - 1  # "N C"
        middle = targets.mean(dim=0)
        inner = self.u.T @ (targets - middle)
        right = [_share(self._left_out(targets, inner, r) == taught) for r in RIDGES]
        ridge = RIDGES[right.index(max(right))]
        shrunk = (self.s / (self.s.square() + ridge))[:, None]
        return (self.v @ (shrunk * inner) + middle).argmax(dim=1)

    def _left_out(
        self, targets: Float[Tensor, "N C"], inner: Float[Tensor, "R C"], ridge: float
    ) -> Int[Tensor, "N"]:
        """Classes of the taught features, each by the map that was fitted without it."""
        kept = self.s.square() / (self.s.square() + ridge)
        fitted = self.u @ (kept[:, None] * inner) + targets.mean(dim=0)
        lever = (self.u.square() @ kept + 1 / len(targets)).clamp(max=1 - 1e-9)[:, None]
        return (targets - (targets - fitted) / (1 - lever)).argmax(dim=1)


def _share(right: Tensor) -> float:
    return right.double().mean().item()


def _fit(features: Tensor, others: Tensor) -> None:
    if len(features) != len(others):
        raise ValueError(f"{len(features)} rows do not fit {len(others)}: give one for each scene")
    _check(features)


def _check(*clouds: Tensor) -> None:
    for cloud in clouds:
        if not bool(cloud.isfinite().all()):
            raise ValueError("a vector is not finite: the pictures or the encoder are broken")
