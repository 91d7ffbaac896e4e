"""The ground truth of a picture: what is in it, where, how big and in which colour.

A `Scene` is everything that the picture book knows about one page. It is drawn from a seed,

    scene = Scene.random(seed),

and from it come the picture (`paint`), its line drawing, its semantic map, its caption
(`caption`) and its labels. The attributes are drawn independently of each other, except where
the world forbids it (no cactus in the snow, no sun at night), so that every combination can be
asked for and composition can be measured.

Conventions: a scene has one to three things, at most one in each slot, listed from left to right.
`colour` is the colour that names a thing ("a red house" has red walls, "a red boat" a red hull),
`second` the colour of its second part (roof, sail or scarf). Where the kind has none, it is None.

Held-out pairs. The pairs (kind, colour) in `HELD_OUT` never occur in `Scene.random` with the
default `held_out=False`, hence in no training set of a model that draws; `held_out=True` draws
scenes that each contain at least one of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from .canvas import Page

__all__ = [
    "COLOURED",
    "COLOURS",
    "GROUNDS",
    "HABITAT",
    "HELD_OUT",
    "KINDS",
    "LABELS",
    "LIGHTS",
    "MOUNTAINS",
    "SECOND",
    "SIZES",
    "SLOTS",
    "SPLITS",
    "TIMES",
    "VERSION",
    "WEATHERS",
    "Scene",
    "Thing",
]

VERSION = 1
"""Version of the world. A change of anything that is drawn or labelled increases it."""

COLOURS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black",
)  # fmt: skip
TIMES = ("day", "dawn", "sunset", "night")
GROUNDS = ("meadow", "desert", "snow", "sea")
WEATHERS = ("clear", "rain", "snowfall")
LIGHTS = ("none", "sun", "full moon", "crescent moon")
MOUNTAINS = ("none", "bare", "snowy")
SLOTS = ("left", "middle", "right")
SIZES = ("small", "large")

HABITAT: Mapping[str, tuple[str, ...]] = {
    "house": ("meadow", "desert", "snow"),
    "castle": ("meadow", "desert", "snow"),
    "windmill": ("meadow", "desert", "snow"),
    "lighthouse": ("sea", "meadow"),
    "tent": ("meadow", "desert", "snow"),
    "pine": ("meadow", "snow"),
    "tree": ("meadow", "snow"),
    "palm": ("desert", "sea"),
    "cactus": ("desert",),
    "flower": ("meadow",),
    "mushroom": ("meadow",),
    "snowman": ("snow",),
    "boat": ("sea",),
    "whale": ("sea",),
}
"""Each kind of thing, and the grounds on which it can stand."""

KINDS = tuple(HABITAT)
COLOURED = frozenset(KINDS) - {"pine", "palm", "cactus", "snowman", "whale"}
"""Kinds that have a colour of their own (the others always look the same)."""
SECOND: Mapping[str, str] = {
    "house": "roof",
    "castle": "roof",
    "boat": "sail",
    "snowman": "scarf",
}
"""Kinds that have a second coloured part, and its name."""

HELD_OUT = frozenset(
    {
        ("house", "purple"),
        ("house", "green"),
        ("castle", "pink"),
        ("castle", "orange"),
        ("windmill", "blue"),
        ("lighthouse", "orange"),
        ("tent", "brown"),
        ("tree", "pink"),
        ("flower", "blue"),
        ("mushroom", "yellow"),
        ("boat", "yellow"),
        ("boat", "purple"),
    }
)
"""Pairs (kind, colour) that no model that draws sees in training."""

SPLITS: Mapping[str, range] = {
    "train": range(0, 200_000),
    "validation": range(200_000, 210_000),
    "test": range(210_000, 220_000),
}
"""Seeds of the fixed splits; they never overlap."""

# More houses, trees and boats than whales: the things that people ask for first.
_WEIGHT = {"house": 3.0, "boat": 2.0, "tree": 1.5, "castle": 1.5}


@dataclass(frozen=True)
class Thing:
    """One thing that stands in the landscape.

    Args:
        kind: One of `KINDS`.
        slot: Where it stands: one of `SLOTS`.
        size: One of `SIZES`.
        colour: One of `COLOURS`, or None if the kind has no colour of its own.
        second: Colour of the second part (`SECOND`), or None if the kind has none.
    """

    kind: str
    slot: str
    size: str
    colour: str | None = None
    second: str | None = None


@dataclass(frozen=True)
class Scene:
    """Everything that the picture book knows about one page.

    Args:
        seed: Seed of the details that carry no label (exact places, shapes of hills and clouds).
        time, ground, weather, light, mountains: One of `TIMES`, `GROUNDS`, `WEATHERS`, `LIGHTS`,
            `MOUNTAINS`.
        clouds: Number of clouds, 0 to 3.
        rainbow: Whether a rainbow spans the sky.
        balloon: Colour of the hot-air balloon, or None without one.
        things: One to three things from left to right, at most one in a slot.
    """

    seed: int
    time: str
    ground: str
    weather: str
    light: str
    mountains: str
    clouds: int
    rainbow: bool
    balloon: str | None
    things: tuple[Thing, ...]

    @classmethod
    def random(cls, seed: int, held_out: bool = False) -> Scene:
        """The scene of this seed: the same in every process and on every machine.

        Args:
            seed: Any integer.
            held_out: Draw a scene with at least one pair of `HELD_OUT` instead of none.

        References:
            Held-out compositions as a test: "Compositional Abilities Emerge Multiplicatively"
            (Okawa et al., 2023), https://arxiv.org/abs/2310.09336
        """
        rng = random.Random(f"picturebook {VERSION} {seed} {held_out}")
        time = rng.choice(TIMES)
        ground = rng.choice(GROUNDS)
        weather = rng.choices(WEATHERS, _weather_weights(ground))[0]
        clouds = rng.choice((0, 1, 2, 3)) if weather == "clear" else rng.choice((1, 2, 3))
        lights = ("none", "full moon", "crescent moon") if time == "night" else ("none", "sun")
        return cls(
            seed=seed,
            time=time,
            ground=ground,
            weather=weather,
            light=rng.choice(lights),
            mountains=rng.choice(MOUNTAINS),
            clouds=clouds,
            rainbow=time != "night" and rng.random() < 0.2,
            balloon=rng.choice(COLOURS) if weather == "clear" and rng.random() < 0.25 else None,
            things=_random_things(rng, ground, held_out),
        )

    def render(self, size: int) -> Image.Image:
        """The picture, RGB, `size` × `size` pixels."""
        return self._page().render(size)

    def outline(self, size: int) -> Image.Image:
        """The line drawing: black ink on white, mode "L", `size` × `size` pixels."""
        return self._page().outline(size)

    def outline_of_land(self, size: int) -> Image.Image:
        """The same of hills, mountains and shores, behind things, too."""
        from .canvas import LAND

        return self._page().outline(size, LAND)

    def outline_of_things(self, size: int) -> Image.Image:
        """The same of all else: the things, and what is in the sky."""
        from .canvas import LAND, PARTS

        return self._page().outline(size, frozenset(PARTS) - LAND)

    def semantic_map(self, size: int) -> Image.Image:
        """The part at every pixel, an index into `canvas.PARTS`, mode "L"."""
        return self._page().semantic_map(size)

    def caption(self, rng: random.Random, language: str) -> str:
        """One of many true descriptions, in English ("en") or Vietnamese ("vi")."""
        from .caption import caption

        return caption(self, rng, language)

    def _page(self) -> Page:
        from .paint import compose

        return compose(self)

    def labels(self) -> dict[str, int]:
        """The class index of every label in `LABELS`."""
        values: dict[str, str] = {
            "time": self.time,
            "ground": self.ground,
            "weather": self.weather,
            "light": self.light,
            "mountains": self.mountains,
            "clouds": str(self.clouds),
            "rainbow": "yes" if self.rainbow else "none",
            "balloon": self.balloon or "none",
        }
        by_slot = {thing.slot: thing for thing in self.things}
        for slot in SLOTS:
            thing = by_slot.get(slot)
            values[f"{slot}.kind"] = thing.kind if thing else "none"
            values[f"{slot}.size"] = thing.size if thing else "none"
            values[f"{slot}.colour"] = (thing and thing.colour) or "none"
            values[f"{slot}.second"] = (thing and thing.second) or "none"
        return {name: LABELS[name].index(value) for name, value in values.items()}

    @classmethod
    def from_labels(cls, labels: Mapping[str, int], seed: int = 0) -> Scene:
        """The scene that these labels describe: the inverse of `labels`, details aside.

        The labels need not go together, for a reader answers each alone: a slot without a kind is
        empty, and a cactus has no roof, whatever the other labels say.
        """
        value = {name: classes[labels[name]] for name, classes in LABELS.items()}
        return cls(
            seed=seed,
            time=value["time"],
            ground=value["ground"],
            weather=value["weather"],
            light=value["light"],
            mountains=value["mountains"],
            clouds=int(value["clouds"]),
            rainbow=value["rainbow"] == "yes",
            balloon=_or_none(value["balloon"]),
            things=tuple(_things_from(value)),
        )


def _or_none(value: str) -> str | None:
    return None if value == "none" else value


def _things_from(value: Mapping[str, str]) -> Iterator[Thing]:
    for slot in SLOTS:
        kind = value[f"{slot}.kind"]
        if kind != "none":
            size = value[f"{slot}.size"]
            yield Thing(
                kind,
                slot,
                SIZES[0] if size == "none" else size,
                _or_none(value[f"{slot}.colour"]) if kind in COLOURED else None,
                _or_none(value[f"{slot}.second"]) if kind in SECOND else None,
            )


def _weather_weights(ground: str) -> tuple[float, float, float]:
    """Chances of clear sky, rain and snowfall: it does not snow in the desert or on the sea."""
    return {
        "meadow": (0.74, 0.16, 0.10),
        "desert": (0.90, 0.10, 0.00),
        "snow": (0.60, 0.00, 0.40),
        "sea": (0.80, 0.20, 0.00),
    }[ground]


def _random_things(rng: random.Random, ground: str, held_out: bool) -> tuple[Thing, ...]:
    slots = sorted(rng.sample(SLOTS, rng.choice((1, 2, 2, 3))), key=SLOTS.index)
    kinds = [kind for kind in KINDS if ground in HABITAT[kind]]
    weights = [_WEIGHT.get(kind, 1.0) for kind in kinds]
    # One scene in five repeats its first thing, so that "two pines" are not a rarity.
    drawn = [rng.choices(kinds, weights)[0] for _ in slots]
    if rng.random() < 0.2:
        drawn[1:2] = drawn[0:1] * len(drawn[1:2])
    things = [_random_thing(rng, kind, slot) for kind, slot in zip(drawn, slots, strict=True)]
    if held_out:
        index = rng.randrange(len(things))
        kind, colour = rng.choice(sorted(pair for pair in HELD_OUT if pair[0] in kinds))
        things[index] = replace(_random_thing(rng, kind, slots[index]), colour=colour)
    return tuple(things)


def _random_thing(rng: random.Random, kind: str, slot: str) -> Thing:
    size = rng.choice(SIZES)
    allowed = [colour for colour in COLOURS if (kind, colour) not in HELD_OUT]
    colour = rng.choice(allowed) if kind in COLOURED else None
    second = rng.choice(COLOURS) if kind in SECOND else None
    return Thing(kind, slot, size, colour, second)


_NONE = ("none",)
LABELS: Mapping[str, tuple[str, ...]] = {
    "time": TIMES,
    "ground": GROUNDS,
    "weather": WEATHERS,
    "light": LIGHTS,
    "mountains": MOUNTAINS,
    "clouds": ("0", "1", "2", "3"),
    "rainbow": ("none", "yes"),
    "balloon": _NONE + COLOURS,
} | {
    f"{slot}.{name}": _NONE + classes
    for slot in SLOTS
    for name, classes in {
        "kind": KINDS,
        "size": SIZES,
        "colour": COLOURS,
        "second": COLOURS,
    }.items()
}
"""Every label and its classes, in a fixed order: the sky and the land, then slot by slot."""
