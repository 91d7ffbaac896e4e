"""Probes: what an encoder's space keeps near, and what can be read from it with a ruler.

Near is what has a large cosine after the mean m of the space is taken off,

    near(u, v) = cos(u − m, v − m),

for the features of a net are often all positive, and then all point in one direction. What is
claimed of such spaces becomes four numbers, each beside what chance gives. For the k nearest
neighbours of every scene:

    content     Jaccard index |A ∩ B|/|A ∪ B| of the kinds of things in a scene and a neighbour
    structure   distance of their pictures, pixel by pixel, in units of that of any two scenes
                (less is nearer; chance is 1)
    context     share of neighbours with the same ground, time of day and weather, mean of three
    identity    share of scenes that are found, as the nearest of all, from a picture of the same
                place at another time of day

and for every label a linear probe: a map from features to classes, fitted to one half of the
scenes by least squares and tested on the other, beside always saying the commonest class.

References:
    Understanding intermediate layers using linear classifier probes (Alain and Bengio, 2017)
        https://arxiv.org/abs/1610.01644
    Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021;
        retrieval as a measure)  https://arxiv.org/abs/2103.00020
    The Elements of Statistical Learning (Hastie, Tibshirani and Friedman, 2009; section 7.10 and
        equation 5.26, leaving one out without fitting again)
        https://hastie.su.domains/ElemStatLearn/
"""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from genkit.data.picturebook.scene import LABELS, Scene
from genkit.data.picturebook.source import to_unit
from genkit.model import Model
from genkit.models.encoders import kinds_of
from genkit.models.vae import VAE

__all__ = [
    "CONTEXT",
    "Encoder",
    "Found",
    "agreement",
    "content",
    "context",
    "elsewhen",
    "identity",
    "linear_probe",
    "neighbours",
    "recall",
    "structure",
    "vectors",
]

CONTEXT = ("ground", "time", "weather")
"""The labels that say where and when."""
BATCH = 250
RIDGES = tuple(10.0**power for power in range(5, -4, -1))
"""Weights of the squared map that a probe chooses from, in units of a feature's variance."""
_LATER = {"day": "dawn", "dawn": "sunset", "sunset": "day"}


@runtime_checkable
class Encoder(Protocol):
    """An encoder: it turns a picture into a vector."""

    size: int

    def embed(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Found:
    """A measured number, and what one finds without knowing anything.

    Args:
        value: Measured.
        chance: The same for features that say nothing.
    """

    value: float
    chance: float


@torch.no_grad()
def vectors(model: Model, pictures: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
    """The vector of each picture, on the processor: `embed`, or the means of q(z | x) of a VAE.

    Raises:
        ValueError: The model has no vector of a picture, or the pictures have another size.
    """
    if not isinstance(model, Encoder | VAE):
        raise ValueError(
            f"a {type(model).__name__} has no vector of a picture; take an encoder, such as "
            "book32_convnet, or a VAE"
        )
    weight = next(model.parameters())
    found = []
    for some in pictures.split(BATCH):
        x = to_unit(some).to(weight.device)
        if isinstance(model, VAE):
            found.append(model.encode(x)[0].posterior.mean.flatten(1))
        else:
            found.append(model.embed(x))
    return torch.cat(found).float().cpu()


def neighbours(
    features: Float[Tensor, "N D"], query: Float[Tensor, "B D"], k: int
) -> Int[Tensor, "B k"]:
    """Numbers of the k features nearest to each query, nearest first; see `near` above.

    Args:
        features: What is searched; their mean is taken off both.
        query: What is looked for.
        k: How many, 1 to N.

    Raises:
        ValueError: k is out of range, or a number is not finite.
    """
    _check(features, query)
    if not 1 <= k <= len(features):
        raise ValueError(
            f"{k} neighbours among {len(features)} pictures: choose 1 to {len(features)}"
        )
    mean = features.mean(dim=0)
    return (_unit(query - mean) @ _unit(features - mean).T).topk(k, dim=1).indices


def agreement(
    features: Float[Tensor, "N D"], labels: Int[Tensor, "N K"], k: int = 5
) -> dict[str, Found]:
    """Share of the k nearest neighbours of a scene that have its class, label by label.

    Chance is the share of pairs of different scenes that have the same class.

    Args:
        features: One vector a scene.
        labels: Their labels, in the order of `LABELS`.
        k: How many neighbours, the scene itself not counted; 1 to N − 1.

    Raises:
        ValueError: k is out of range, a number is not finite, or there are not as many labels.
    """
    _fit(features, labels)
    same = labels[_others(features, k)] == labels[:, None]  # "N k K"
    shares = same.double().mean(dim=(0, 1)).tolist()
    return {
        name: Found(share, _same(column))
        for name, share, column in zip(LABELS, shares, labels.unbind(dim=1), strict=True)
    }


def content(features: Float[Tensor, "N D"], labels: Int[Tensor, "N K"], k: int = 5) -> Found:
    """How far neighbours show the same kinds of things, wherever they stand: Jaccard index.

    Chance is the mean over all pairs of different scenes.

    Raises:
        ValueError: As `agreement`.
    """
    _fit(features, labels)
    kinds = kinds_of(labels).double()
    both = kinds @ kinds.T
    count = kinds.sum(dim=1)
    jaccard = both / (count[:, None] + count - both)  # every scene has a thing
    return _near(jaccard, features, k)


def structure(
    features: Float[Tensor, "N D"], pictures: UInt8[Tensor, "N 3 H W"], k: int = 5
) -> Found:
    """Distance of the pictures of neighbours in units of that of any two scenes; chance is 1.

    The distance is the Euclidean one of all pixels: near is what has the same colours in the same
    places.

    Raises:
        ValueError: k is out of range, a number is not finite, or there are not as many pictures.
    """
    _fit(features, pictures)
    x = to_unit(pictures).flatten(1)
    found = _near(torch.cdist(x, x).double(), features, k)
    return Found(found.value / found.chance, 1.0)


def context(features: Float[Tensor, "N D"], labels: Int[Tensor, "N K"], k: int = 5) -> Found:
    """Share of neighbours that agree on where and when: the mean `agreement` of `CONTEXT`.

    Raises:
        ValueError: As `agreement`.
    """
    by_name = agreement(features, labels, k)
    return Found(
        sum(by_name[name].value for name in CONTEXT) / len(CONTEXT),
        sum(by_name[name].chance for name in CONTEXT) / len(CONTEXT),
    )


def identity(features: Float[Tensor, "N D"], later: Float[Tensor, "N D"]) -> Found:
    """Share of scenes that are the nearest of all to their own picture at another time of day.

    Chance is 1/N.

    Args:
        features: Of scenes by daylight.
        later: Of the same scenes `elsewhen`, in the same order.

    Raises:
        ValueError: There are not as many of each, or a number is not finite.
    """
    _fit(features, later)
    nearest = neighbours(features, later, 1)[:, 0]
    own = torch.arange(len(features))
    return Found((nearest == own).double().mean().item(), 1 / len(features))


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
    best = (_unit(query) @ _unit(gallery).T).topk(k, dim=1).indices
    hits = (best == torch.arange(len(query))[:, None]).any(dim=1)
    return Found(hits.double().mean().item(), k / len(gallery))


def linear_probe(features: Float[Tensor, "N D"], labels: Int[Tensor, "N K"]) -> dict[str, Found]:
    """Share of scenes of which a linear map of the features tells the class, label by label.

    The map is fitted to the first half of the scenes and tested on the second. Every class is a
    number of its own, 1 or −1, and the largest says the class; features are standardised, and the
    weight of the squared map is the one of `RIDGES` that is right most often when each scene of
    the first half is left out in turn (the largest of equals). Chance is always saying the class
    that is commonest in the first half.

    Args:
        features: One vector a scene.
        labels: Their labels, in the order of `LABELS`.

    Raises:
        ValueError: Less than four scenes, a number is not finite, or there are not as many labels.
    """
    _fit(features, labels)
    if len(features) < 4:
        raise ValueError(f"{len(features)} scenes cannot be halved for a probe: give at least 4")
    half = len(features) // 2
    ridge = _Ridge(features[:half], features[half:])
    found = {}
    for name, column in zip(LABELS, labels.unbind(dim=1), strict=True):
        taught, asked = column[:half], column[half:]
        said = ridge.classes(taught, len(LABELS[name]))
        commonest = taught.bincount().argmax()
        found[name] = Found(_share(said == asked), _share(asked == commonest))
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


def _near(matrix: Float[Tensor, "N N"], features: Float[Tensor, "N D"], k: int) -> Found:
    """The mean of a relation of scenes over neighbours, and over all pairs of different ones."""
    pairs = len(matrix) * (len(matrix) - 1)
    chance = (matrix.sum() - matrix.trace()) / pairs
    value = matrix.gather(1, _others(features, k)).mean()
    return Found(value.item(), chance.item())


def _others(features: Float[Tensor, "N D"], k: int) -> Int[Tensor, "N k"]:
    """Numbers of the k nearest neighbours of every scene, itself left out."""
    if not 1 <= k < len(features):
        raise ValueError(
            f"{k} neighbours of {len(features)} scenes: choose 1 to {len(features) - 1}"
        )
    _check(features, features)
    unit = _unit(features - features.mean(dim=0))
    return (unit @ unit.T).fill_diagonal_(-torch.inf).topk(k, dim=1).indices


def _same(column: Int[Tensor, "N"]) -> float:
    """Share of pairs of different scenes with the same class."""
    counts, n = column.bincount().double(), len(column)
    return ((counts * (counts - 1)).sum() / (n * (n - 1))).item()


def _unit(x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    return F.normalize(x.double(), dim=1)


def _share(right: Tensor) -> float:
    return right.double().mean().item()


def _fit(features: Tensor, others: Tensor) -> None:
    if len(features) != len(others):
        raise ValueError(
            f"{len(features)} vectors do not fit {len(others)} rows: give one row for each vector"
        )
    _check(features)


def _check(*clouds: Tensor) -> None:
    for cloud in clouds:
        if not bool(cloud.isfinite().all()):
            raise ValueError("a vector is not finite: the pictures or the encoder are broken")
