"""The atlas: the book of scenes, its four spaces and what was measured of them, made once.

Everything is made when it is first asked for and kept as long as the process lives: drawing 2,000
scenes, four encoders, planes, neighbours and probes take about ten seconds on two cores. What is
made is the same for every visitor, so nothing of a visitor is kept here.

An encoder whose checkpoint is not there leaves its place empty and a sentence in it; the others
work. It is looked for again at the next request.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apps import claims, spaces
from apps.claims import Verdict
from apps.common import Studio
from apps.forward import check_whole
from apps.legend import pair
from apps.settings import LIMITS, Refused, check_choice
from apps.spaces import ATTRIBUTES, ENCODERS, SIZE, Array, Attribute, Book, Space
from apps.text import both
from genkit.data.picturebook import Scene
from genkit.probes import Found

__all__ = ["Atlas", "Measured", "Query", "check_attribute"]

UNREADABLE = (OSError, ValueError, FloatingPointError)
"""What goes wrong with a checkpoint: it is not there, damaged, of another family or not finite."""


@dataclass(frozen=True, eq=False)
class Query:
    """A picture that is asked about.

    Args:
        picture: "H W 3", 0 … 255.
        seed: Of the scene; None for a visitor's own picture.
        index: Where it stands in the book; None if it does not.
    """

    picture: Array
    seed: int | None
    index: int | None


@dataclass(frozen=True, eq=False)
class Measured:
    """What is known of all spaces; everything by the name of the encoder.

    Args:
        probes, agreements: What was found of each attribute.
        aspects: Aspect -> encoder -> what was found.
        shared: (encoder, encoder) -> share of common neighbours.
    """

    probes: Mapping[str, list[Found]]
    agreements: Mapping[str, list[Found]]
    aspects: Mapping[str, Mapping[str, Found]]
    shared: Mapping[tuple[str, str], float]

    def verdict(self, aspect: str) -> Verdict:
        """What became of the claim about an aspect."""
        return claims.judged(aspect, self.aspects[aspect])

    def chance(self, aspect: str) -> float:
        """The same without any encoder."""
        return next(iter(self.aspects[aspect].values())).chance


@dataclass(eq=False)
class Kept:
    """What has been made so far."""

    book: Book | None = None
    again: tuple[Array, Array] = (np.zeros(0), np.zeros(0))
    attributes: dict[str, Attribute] = field(default_factory=dict)
    spaces: dict[str, Space] = field(default_factory=dict)
    planes: dict[str, Array] = field(default_factory=dict)
    redrawn: dict[str, Array] = field(default_factory=dict)
    missing: dict[str, Refused] = field(default_factory=dict)
    measured: Measured | None = None


class Atlas:
    """The spaces over one studio; `ready` makes them, one visitor at a time (`common.HEAVY`)."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.kept = Kept()

        # Closures, as in `handlers.Desk`: the studio stays in its process.
        def embed(name: str, pictures: Array) -> Iterator[Array]:
            encoder = ENCODERS[name]
            yield from spaces.embedded(studio.model(encoder.checkpoint), encoder, pictures)

        def decode(vectors: Array) -> Iterator[Array]:
            yield spaces.decoded(studio.model(ENCODERS["vae"].checkpoint), vectors)

        self._embed = studio.on_gpu(embed)
        self._decode = studio.on_gpu(decode)

    @property
    def book(self) -> Book:
        """The scenes, after `ready`."""
        assert self.kept.book is not None
        return self.kept.book

    @property
    def measured(self) -> Measured:
        """What was measured, after `ready`."""
        assert self.kept.measured is not None
        return self.kept.measured

    def ready(self) -> Iterator[tuple[int, int, str]]:
        """(parts done, parts in all, what is being done) until all is there that can be."""
        kept, total = self.kept, spaces.COUNT
        if kept.book is None or len(kept.book.scenes) != total:
            self.kept = kept = Kept()
            for book in spaces.drawn(total):
                done = len(book.scenes)
                yield done, 2 * total, both("latents.drawing", done=done, all=total)
            kept.attributes = {name: spaces.attribute(name, book.scenes) for name in ATTRIBUTES}
            kept.again = claims.redrawn(book)
            kept.book = book
        for step, name in enumerate(ENCODERS):
            if name not in kept.spaces:
                text = both("latents.embedding", name=pair(f"latents.name.{name}"))
                yield total + step * total // (len(ENCODERS) + 1), 2 * total, text
                yield from self._enter(name, total + step * total // (len(ENCODERS) + 1), text)
        if kept.measured is None or set(kept.measured.probes) != set(kept.spaces):
            yield 2 * total - 1, 2 * total, both("latents.measuring")
            kept.measured = self._measure()

    def check(self) -> None:
        """There is at least one space, after `ready`.

        Raises:
            Refused: None of the checkpoints is there.
        """
        if not self.kept.spaces:
            raise next(iter(self.kept.missing.values()))

    def settle(self, name: str) -> Array:
        """The t-SNE plane of a space; seconds, the first time."""
        if name not in self.kept.planes:
            self.kept.planes[name] = spaces.tsne(self.kept.spaces[name].vectors)
        return self.kept.planes[name]

    def vectors(self, pictures: Sequence[Array]) -> dict[str, Array]:
        """Encoder -> "M D", the vectors of some pictures in the spaces that are there."""
        batch = np.stack(pictures)
        return {name: np.concatenate(list(self._embed(name, batch))) for name in self.kept.spaces}

    def decoded(self, vectors: Array) -> Array:
        """ "M H W 3", the VAE's pictures of points of its space."""
        return next(iter(self._decode(vectors)))

    def query(self, seed: Any, own: bytes | None) -> Query:
        """The picture that is asked about: a visitor's own, or the scene of a seed.

        Raises:
            Refused: The seed is none.
        """
        if own is not None:
            return Query(np.frombuffer(own, np.uint8).reshape(SIZE, SIZE, 3), None, None)
        seed = check_whole("seed", seed, *LIMITS["seed"])
        picture = np.asarray(Scene.random(seed).render(SIZE))
        return Query(picture, seed, self.book.index(seed))

    def places(self, name: str, vectors: Array) -> dict[str, list[list[float]] | None]:
        """Where new vectors stand in each view of a space; None where the view is not made."""
        where, plane = self.kept.spaces[name], self.kept.planes.get(name)
        found: dict[str, list[list[float]] | None] = {
            "pca": where.place(vectors).astype(float).tolist(),
            "tsne": None,
        }
        if plane is not None:
            near = where.nearest(vectors, spaces.GUIDES)
            found["tsne"] = spaces.settled(plane, *near).astype(float).tolist()
        return found

    def _enter(self, name: str, step: int, text: str) -> Iterator[tuple[int, int, str]]:
        """Embeds the book by one encoder, or notes why not."""
        kept = self.kept
        pictures = np.concatenate([self.book.pictures, kept.again[1]])
        parts: list[Array] = []
        try:
            for part in self._embed(name, pictures):
                parts.append(part)
                yield step, 2 * spaces.COUNT, text
        except UNREADABLE as error:
            checkpoint = ENCODERS[name].checkpoint
            kept.missing[name] = Refused("latents.missing", name=checkpoint, reason=str(error))
            return
        vectors = np.concatenate(parts)
        count = len(self.book.scenes)
        kept.missing.pop(name, None)
        kept.redrawn[name] = vectors[count:]
        kept.spaces[name] = spaces.space(vectors[:count])

    def _measure(self) -> Measured:
        kept, labels = self.kept, list(self.kept.attributes.values())
        # In the order in which they are shown, whichever was there first.
        known = {name: kept.spaces[name] for name in ENCODERS if name in kept.spaces}
        own = kept.again[0]
        found = {
            name: claims.aspects(self.book, one, kept.redrawn[name], own)
            for name, one in known.items()
        }
        return Measured(
            probes={name: claims.readable(one.vectors, labels) for name, one in known.items()},
            agreements={name: claims.agreements(one.near, labels) for name, one in known.items()},
            aspects={
                aspect: {name: each[aspect] for name, each in found.items()}
                for aspect in claims.CLAIMS
            },
            shared={
                (a, b): claims.shared(known[a].near, known[b].near) for a in known for b in known
            },
        )


def check_attribute(value: Any) -> str:
    """The name of something by which points can be coloured."""
    return check_choice("attribute", value, ATTRIBUTES)
