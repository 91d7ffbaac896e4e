"""Spaces: the vectors that four encoders give the same scenes, and what lies near what in them.

An encoder turns a picture x into a vector v(x). Two pictures are near in its space if their
vectors point in nearly the same direction from its middle, and the distance of two pictures is
that of these directions (`genkit.probes`). A space of 128 dimensions or more is looked at in two
ways, both of which go by the Euclidean distance ‖v − w‖ of the vectors instead:

    pca     the plane in which the vectors vary most: a shadow, in which a line stays a line; what
            is near in the space is near in it, but not the other way round
    tsne    points of a plane that are near where vectors are; distances between groups, and how
            wide a group is, mean nothing, and a new vector has no place but near its neighbours

and crossed by a

    line    v(s) = (1 − s) v(A) + s v(B),  s from 0 to 1

All of it is a function of the checkpoints: the scenes are those of the first seeds of the test
split, which no encoder has seen.

References:
    Visualizing Data using t-SNE (van der Maaten and Hinton, 2008)
        https://www.jmlr.org/papers/v9/vandermaaten08a.html
    How to Use t-SNE Effectively (Wattenberg et al., 2016)  https://distill.pub/2016/misread-tsne
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from genkit import probes
from genkit.data.picturebook import Scene
from genkit.data.picturebook.book import cached
from genkit.data.picturebook.scene import COLOURS, KINDS, LABELS, SPLITS, VERSION
from genkit.data.picturebook.source import to_uint8, to_unit
from genkit.models.vae import VAE

__all__ = [
    "ATTRIBUTES",
    "COUNT",
    "ENCODERS",
    "SIZE",
    "Attribute",
    "Book",
    "Encoder",
    "Line",
    "Matches",
    "Space",
    "attribute",
    "decoded",
    "drawn",
    "embedded",
    "line",
    "settled",
    "space",
    "stored",
    "tsne",
]

COUNT = 2000
"""Scenes in every space."""
SIZE = 32
"""Side of their pictures in pixels."""
PART, BATCH = 250, 100
REDUCED = 50
"""Principal components that t-SNE starts from, as its authors advise."""
PERPLEXITY, ITERATIONS = 30, 500
GUIDES = 5
"""Neighbours that give a new picture its place in the t-SNE plane."""

Array = np.ndarray


@runtime_checkable
class Matches(probes.Encoder, Protocol):
    """A model that has vectors for captions in the same space."""

    def embed_text(self, captions: Sequence[str]) -> torch.Tensor: ...


@dataclass(frozen=True)
class Encoder:
    """One of the four: its checkpoint, and what that must be."""

    checkpoint: str
    kind: type


ENCODERS: Mapping[str, Encoder] = {
    "convnet": Encoder("book32_convnet", probes.Encoder),
    "vae": Encoder("book32_vae", VAE),
    "vit": Encoder("book32_vit", probes.Encoder),
    "contrastive": Encoder("book32_contrastive", Matches),
}
"""The four, in the order in which they are shown."""


@dataclass(frozen=True, eq=False)
class Book:
    """The scenes that are looked at.

    Args:
        scenes: Their ground truth.
        pictures: "N H W 3", 0 … 255.
        maps: "N H W", the part of the scene at every pixel.
    """

    scenes: tuple[Scene, ...]
    pictures: Array
    maps: Array

    def index(self, seed: int | None) -> int | None:
        """Where the scene of a seed stands, if it is among them."""
        first = self.scenes[0].seed
        known = seed is not None and first <= seed < first + len(self.scenes)
        return seed - first if known and seed is not None else None


@dataclass(frozen=True)
class Attribute:
    """Something that is known of every scene: classes[values[i]] is what scene i has.

    Args:
        name: Its key in the texts.
        classes: Names of the values; the first may be "none".
        values: "N".
        partial: Whether scenes of class 0 ("none") are left out of what is measured: the colour
            of the house can be asked for only where there is a house.
    """

    name: str
    classes: tuple[str, ...]
    values: Array
    partial: bool = False

    @property
    def asked(self) -> Array:
        """Scenes of which it is measured, as indices."""
        return np.flatnonzero(self.values > 0) if self.partial else np.arange(len(self.values))


ATTRIBUTES = (
    "time", "ground", "weather", "light", "mountains", "clouds", "rainbow", "balloon", "thing",
    "house", "things",
)  # fmt: skip
"""What points can be coloured by and probes are asked for."""


@dataclass(frozen=True, eq=False)
class Space:
    """The vectors of one encoder and what was computed of them.

    Args:
        vectors: "N D".
        centre: "D", their mean.
        axes: "D 2", the two directions in which they vary most.
        shares: Share of the variance along each.
        near: "N K" the `NEAREST` other scenes of each, the nearest first.
        apart: Median distance of a scene from its nearest neighbour: the unit of distances.
    """

    vectors: Array
    centre: Array
    axes: Array
    shares: tuple[float, float]
    near: Array
    apart: float

    def place(self, vectors: Array) -> Array:
        """ "M 2", where vectors fall in the plane of the PCA."""
        return (vectors - self.centre) @ self.axes

    def nearest(self, vectors: Array, k: int, without: Sequence[int] = ()) -> tuple[Array, Array]:
        """("M K" scenes, "M K" distances), the nearest first.

        Args:
            vectors: "M D".
            k: How many.
            without: Scenes that do not count.
        """
        known, query = map(torch.from_numpy, (self.vectors, np.ascontiguousarray(vectors)))
        found = probes.neighbours(known, query, k, without)
        return found.index.numpy(), found.distance.numpy()

    def distance(self, a: Array, b: Array) -> float:
        """How far two vectors "D" are apart."""
        pair = torch.from_numpy(np.stack([a, b]) - self.centre)
        first, second = probes.directions(pair)
        return float((first - second).norm())


@dataclass(frozen=True, eq=False)
class Line:
    """A straight line in one space.

    Args:
        s: "M", from 0 at A to 1 at B.
        points: "M D".
        near: "M" the nearest scene of each point, A and B left out.
        distance: "M" how far it is.
    """

    s: Array
    points: Array
    near: Array
    distance: Array


def drawn(count: int) -> Iterator[Book]:
    """The first scenes of the test split, more and more of them; kept on disk where that goes."""
    seeds = SPLITS["test"][:count]
    scenes: list[Scene] = []
    parts: list[Array] = []
    for start in range(0, count, PART):
        some = [Scene.random(seed) for seed in seeds[start : start + PART]]
        name = f"latents-v{VERSION}-{SIZE}-{some[0].seed}-{len(some)}"
        parts.append(stored(name, (len(some), SIZE, SIZE, 4), some, _page))
        scenes += some
        pages = np.concatenate(parts)
        yield Book(tuple(scenes), pages[..., :3], pages[..., 3])


def stored(
    name: str, shape: tuple[int, ...], scenes: Sequence[Scene], row: Callable[[Scene], Array]
) -> Array:
    """A row of bytes for each scene, from the cache of pictures or for it.

    Args:
        name: Of the file; must say everything that the rows depend on.
        shape: Of all rows.
        scenes: What is drawn.
        row: Draws one.
    """
    try:
        return np.array(cached(name, shape, np.uint8, lambda: map(row, scenes)))
    except OSError:  # a host without a disk to write on draws again at each start
        return np.stack(list(map(row, scenes)))


def attribute(name: str, scenes: Sequence[Scene]) -> Attribute:
    """The attribute of this name: a label, or what is made of several.

    thing: kind of the first thing from the left; house: colour of the first house; things: how
    many.
    """
    if name == "thing":
        values = [KINDS.index(scene.things[0].kind) for scene in scenes]
        return Attribute(name, KINDS, np.array(values))
    if name == "things":
        return Attribute(name, ("1", "2", "3"), np.array([len(one.things) - 1 for one in scenes]))
    if name == "house":
        colours = (_first_house(scene) for scene in scenes)
        values = [COLOURS.index(colour) + 1 if colour else 0 for colour in colours]
        return Attribute(name, ("none", *COLOURS), np.array(values), partial=True)
    values = [scene.labels()[name] for scene in scenes]
    return Attribute(name, LABELS[name], np.array(values))


def embedded(model: Any, encoder: Encoder, pictures: Array) -> Iterator[Array]:
    """The vectors "B D" of pictures "N H W 3", some at a time.

    Raises:
        ValueError: The model is of another family, or for pictures of another size.
        FloatingPointError: A number of a vector is not finite.
    """
    if not isinstance(model, encoder.kind) or model.size != SIZE:
        raise ValueError(
            f"{encoder.checkpoint} is a {type(model).__name__}, which does not do for pictures of "
            f"{SIZE}×{SIZE} what this page asks of it: train it by the recipe of that name"
        )
    device = next(model.parameters()).device
    for start in range(0, len(pictures), BATCH):
        some = torch.from_numpy(np.ascontiguousarray(pictures[start : start + BATCH]))
        with torch.inference_mode():
            vectors = probes.vector(model, to_unit(some.permute(0, 3, 1, 2)).to(device))
        found = vectors.float().cpu().numpy()
        if not np.isfinite(found).all():
            raise FloatingPointError("a vector is not finite")
        yield found


def decoded(model: Any, vectors: Array) -> Array:
    """ "M H W 3", the pictures 0 … 255 that a VAE makes of points "M D" of its space."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        blank = torch.zeros(1, 3, SIZE, SIZE, device=device)
        shape = model.encode(blank)[0].posterior.mean.shape[1:]
        z = torch.from_numpy(np.ascontiguousarray(vectors)).to(device).reshape(-1, *shape)
        pictures = model.decode((z,)).mean
    return to_uint8(pictures).permute(0, 2, 3, 1).cpu().numpy()


def space(vectors: Array) -> Space:
    """The space of these vectors: its plane and who is near whom."""
    centre = vectors.mean(axis=0)
    axes, shares = _components(vectors - centre, 2)
    near = probes.neighbours(torch.from_numpy(vectors))
    apart = float(np.median(near.distance[:, 0].numpy()))
    both = float(shares[0]), float(shares[1])
    return Space(vectors, centre, axes, both, near.index.numpy(), apart)


def tsne(vectors: Array) -> Array:
    """ "N 2", points of a plane that are near where vectors are; the same for the same vectors."""
    from sklearn.manifold import TSNE

    centred = vectors - vectors.mean(axis=0)
    axes, _ = _components(centred, REDUCED)
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    way = TSNE(perplexity=perplexity, max_iter=ITERATIONS, init="pca", random_state=0, n_jobs=1)
    return way.fit_transform((centred @ axes).astype(np.float32))


def settled(points: Array, near: Array, distance: Array) -> Array:
    """ "M 2", a place in the t-SNE plane for new vectors: the mean of their neighbours' places.

    A neighbour at half the distance weighs four times as much, one at no distance alone.

    Args:
        points: "N 2", the plane.
        near: "M K", the neighbours of each new vector.
        distance: "M K", how far they are.
    """
    weights = 1 / np.maximum(distance[:, :GUIDES], 1e-6) ** 2
    weights /= weights.sum(axis=1, keepdims=True)
    return (points[near[:, :GUIDES]] * weights[..., None]).sum(axis=1)


def line(where: Space, a: Array, b: Array, count: int, without: Sequence[int] = ()) -> Line:
    """The line from a to b in `count` points, its ends included.

    Args:
        where: The space.
        a, b: "D", the vectors of two pictures.
        count: Points.
        without: Scenes that are the two pictures themselves.
    """
    s = np.linspace(0, 1, count)
    points = ((1 - s)[:, None] * a + s[:, None] * b).astype(np.float32)
    near, distance = where.nearest(points, 1, without)
    return Line(s, points, near[:, 0], distance[:, 0])


def _components(centred: Array, count: int) -> tuple[Array, Array]:
    """("D count" directions of largest variance, share of the variance of each).

    The largest number of each is positive, so that no figure is mirrored by rounding.
    """
    covariance = np.cov(centred.T.astype(np.float64)).reshape(centred.shape[1], -1)
    values, axes = np.linalg.eigh(covariance)
    values, axes = values[::-1][:count], axes[:, ::-1][:, :count]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    whole = max(float(np.trace(covariance)), 1e-12)
    return axes * signs, values / whole


def _page(scene: Scene) -> Array:
    """ "H W 4", the picture and the part at every pixel."""
    picture, parts = scene.render(SIZE), scene.semantic_map(SIZE)
    return np.dstack([np.asarray(picture), np.asarray(parts)])


def _first_house(scene: Scene) -> str | None:
    return next((thing.colour for thing in scene.things if thing.kind == "house"), None)
