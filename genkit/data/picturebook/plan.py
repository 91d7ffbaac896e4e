"""What a caption is going to say: a part of the scene, drawn at random.

    ask = plan(scene, rng, language)

is an `Ask` that the scene satisfies. `caption` puts it into words and `parse` reads it back, so
that the three are one identity:  parse(describe(plan(scene))).ask = plan(scene).

Short captions mention a thing or two, full ones nearly everything. Where several things are of a
kind, all of them are mentioned or none, so that numbers stay exact.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .ask import SCENE_LABELS, Ask, Look, ThingAsk
from .scene import COLOURS, Scene, Thing
from .scenery import SCENE_WORDS
from .words import Choice, Language

__all__ = ["COMPLETE", "Detail", "everything", "plan"]


@dataclass(frozen=True)
class Detail:
    """How much a caption says: the chance that it mentions each attribute.

    Args:
        things: A kind of thing.
        colour, second, size, slot: An attribute of a mentioned thing.
        scene: An attribute of the whole scene.
        absent: What is not there ("no clouds").
    """

    things: float
    colour: float
    second: float
    size: float
    slot: float
    scene: float
    absent: float


_DETAILS = (
    Detail(things=0.6, colour=0.7, second=0.25, size=0.15, slot=0.15, scene=0.18, absent=0.01),
    Detail(things=0.9, colour=0.85, second=0.55, size=0.25, slot=0.4, scene=0.5, absent=0.03),
    Detail(things=1.0, colour=1.0, second=0.9, size=0.5, slot=0.75, scene=0.9, absent=0.08),
)
_DETAIL_WEIGHTS = (0.28, 0.42, 0.30)
COMPLETE = Detail(things=1.0, colour=1.0, second=1.0, size=1.0, slot=1.0, scene=1.0, absent=0.1)
"""Says all that is there: more than people write, and what a model learns most from."""
_ABSENT = {
    "weather": "clear", "light": "none", "mountains": "none", "clouds": "0", "rainbow": "none",
    "balloon": "none",
}  # fmt: skip
"""The values that go without saying."""


def everything(scene: Scene) -> Ask:
    """The ask that demands the whole scene, attribute by attribute."""
    exact = {label: (value,) for label, value in _values(scene).items()}
    if scene.light == "none":
        exact["light"] = _no_light(scene)
    things = tuple(
        ThingAsk(thing.kind, (), _look(thing, ("colour", "second", "size", "slot")))
        for thing in scene.things
    )
    return Ask(**exact, things=things)


def plan(
    scene: Scene, rng: random.Random, language: Language, detail: Detail | None = None
) -> Ask:
    """A part of the scene that is worth a caption; never empty.

    Args:
        scene: The truth.
        rng: Source of chance.
        language: Vietnamese may say "xanh", which is blue or green.
        detail: How much is said; without it, as much as people say, now more and now less.
    """
    detail = detail or rng.choices(_DETAILS, _DETAIL_WEIGHTS)[0]
    chosen: dict[str, Choice] = {}
    for label, value in _values(scene).items():
        absent = _ABSENT.get(label) == value
        if rng.random() < (detail.absent if absent else detail.scene):
            chosen[label] = _choice(scene, label, value, rng)
    things = list(_things(scene, detail, rng, language))
    if not things and _lone(scene) and rng.random() < 0.6:
        things = [ThingAsk(scene.things[0].kind)]
    if rng.random() < 0.3:
        rng.shuffle(things)
    if not things and not chosen:
        chosen["ground"] = (scene.ground,)
    return Ask(**chosen, things=tuple(things))


def _lone(scene: Scene) -> bool:
    return sum(thing.kind == scene.things[0].kind for thing in scene.things) == 1


def _values(scene: Scene) -> dict[str, str]:
    """The value of every scene label, as `LABELS` spells it."""
    spelled = {
        "clouds": str(scene.clouds),
        "rainbow": "yes" if scene.rainbow else "none",
        "balloon": scene.balloon or "none",
    }
    return {label: spelled.get(label) or getattr(scene, label) for label in SCENE_LABELS}


def _no_light(scene: Scene) -> Choice:
    if scene.time == "night":
        return ("none", "sun")
    return ("none", "full moon", "crescent moon")


def _choice(scene: Scene, label: str, value: str, rng: random.Random) -> Choice:
    """The exact value mostly, sometimes a wider choice that has words ("clouds", "the moon")."""
    if label == "light" and value == "none":
        return _no_light(scene)
    if label == "balloon":
        return COLOURS if value != "none" and rng.random() < 0.2 else (value,)
    wider = [
        c
        for name, c in SCENE_WORDS
        if name == label and value in c and len(c) > 1 and "none" not in c
    ]
    exact = {("mountains", "bare"): 0.4, ("time", "day"): 0.85}.get((label, value), 0.8)
    return (value,) if not wider or rng.random() < exact else rng.choice(wider)


def _things(
    scene: Scene, detail: Detail, rng: random.Random, language: Language
) -> Iterator[ThingAsk]:
    for kind in dict.fromkeys(thing.kind for thing in scene.things):
        if rng.random() >= detail.things:
            continue
        same = [thing for thing in scene.things if thing.kind == kind]
        if len(same) == 1:
            look = _look(same[0], _mentioned(detail, rng))
            yield ThingAsk(kind, (), _vague(look, rng, language))
        elif rng.random() < 0.6:
            yield _group(same, detail, rng, language)
        else:
            yield from _singly(same, detail, rng)


def _mentioned(detail: Detail, rng: random.Random) -> tuple[str, ...]:
    names = ("colour", "second", "size", "slot")
    chances = (detail.colour, detail.second, detail.size, detail.slot)
    return tuple(n for n, chance in zip(names, chances, strict=True) if rng.random() < chance)


def _look(thing: Thing, names: Sequence[str]) -> Look:
    values = {name: getattr(thing, name) for name in names}
    return Look(**{name: (value,) for name, value in values.items() if value is not None})


def _vague(look: Look, rng: random.Random, language: Language) -> Look:
    """Vietnamese "xanh" for one blue or green thing in eight."""
    if language == "vi" and look.colour in {("green",), ("blue",)} and rng.random() < 0.12:
        return Look(("green", "blue"), look.second, look.size, look.slot)
    return look


def _group(
    same: Sequence[Thing], detail: Detail, rng: random.Random, language: Language
) -> ThingAsk:
    """A number of things of a kind: what they share, or what tells them apart."""
    count = (len(same),) if rng.random() < 0.85 else (2, 3)
    mentioned = [name for name in _mentioned(detail, rng) if name != "slot"]
    shared = [n for n in mentioned if len({getattr(thing, n) for thing in same}) == 1]
    look = _vague(_look(same[0], shared), rng, language)
    apart = []
    if "colour" in mentioned and "colour" not in shared and rng.random() < 0.7:
        apart = ["colour", "slot"] if rng.random() < detail.slot / 2 else ["colour"]
    elif rng.random() < detail.slot / 2:
        apart = ["slot"]
    members = tuple(_look(thing, apart) for thing in same) if apart else ()
    return ThingAsk(same[0].kind, (len(same),) if apart else count, look, members)


def _singly(same: Sequence[Thing], detail: Detail, rng: random.Random) -> Iterator[ThingAsk]:
    """Things of a kind one by one, each with the colour or the place that tells it apart."""
    distinct = len({thing.colour for thing in same}) == len(same)
    key = "colour" if distinct and rng.random() < 0.8 else "slot"
    for thing in same:
        yield ThingAsk(thing.kind, (), _look(thing, (key, *_mentioned(detail, rng))))
