"""A prompt, understood: the part of a scene that it asks for.

An `Ask` is a partial scene. Each of its attributes is a *choice*, the tuple of values that satisfy
it, in the order of `LABELS`; the empty tuple asks for nothing. "Mountains" accepts bare and snowy
ones, "no mountains" only ("none",). `Ask.check(found)` compares it with a scene and answers with
one `Check` per asked attribute.

Asked things are assigned to found things of their kind so that most attributes agree: the best of
all assignments, tried one by one (a scene holds at most three things).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import permutations

from .scene import COLOURS, LABELS, Scene, Thing
from .scenery import TINTS
from .tell import balloon_text, count_text, kind_text, look_text, scene_text
from .words import Choice

__all__ = ["SCENE_LABELS", "Ask", "Check", "Look", "ThingAsk"]

SCENE_LABELS = (
    "time", "ground", "weather", "light", "mountains", "clouds", "rainbow", "balloon",
)  # fmt: skip
"""The labels of the whole scene, which are also the first fields of an `Ask`."""

_MOST = 8
"""Wishes for one kind that are tried for the best assignment: of more than three, some fail."""


@dataclass(frozen=True)
class Check:
    """Whether one asked attribute was found.

    Args:
        english, vietnamese: The attribute in a few words: "house: red", "ngôi nhà: màu đỏ".
        ok: Whether it was found.
    """

    english: str
    vietnamese: str
    ok: bool


@dataclass(frozen=True)
class Look:
    """How a thing is to look, and where it is to stand.

    Args:
        colour, second, size, slot: Accepted values of the attributes of a `Thing`.
    """

    colour: Choice = ()
    second: Choice = ()
    size: Choice = ()
    slot: Choice = ()


@dataclass(frozen=True)
class ThingAsk:
    """One thing, or several of a kind, that a prompt asks for.

    Args:
        kind: One of `KINDS`.
        count: Accepted numbers; empty: at least one; (0,): none at all.
        look: What holds for each of them (a slot: for at least one of them).
        members: What holds for different ones: "two houses, one red and one blue".
    """

    kind: str
    count: tuple[int, ...] = ()
    look: Look = Look()
    members: tuple[Look, ...] = ()


@dataclass(frozen=True)
class Ask:
    """A partial scene: what a prompt asks for.

    Args:
        time, ground, weather, light, mountains, clouds, rainbow, balloon: Accepted values of these
            labels, as in `LABELS`; empty where nothing is asked.
        things: The asked things in the order of the prompt.
    """

    time: Choice = ()
    ground: Choice = ()
    weather: Choice = ()
    light: Choice = ()
    mountains: Choice = ()
    clouds: Choice = ()
    rainbow: Choice = ()
    balloon: Choice = ()
    things: tuple[ThingAsk, ...] = ()

    def check(self, found: Scene) -> tuple[Check, ...]:
        """One check for each asked attribute; a missing thing fails with all its attributes.

        Args:
            found: The scene that was seen, for example by the reader.
        """
        return (*self._check_scene(found), *self._check_things(found.things))

    def _check_scene(self, found: Scene) -> Iterator[Check]:
        labels = found.labels()
        for label in SCENE_LABELS:
            choice, value = getattr(self, label), LABELS[label][labels[label]]
            if label == "balloon" and choice and "none" not in choice:
                yield Check(*balloon_text(()), value != "none")
                if choice != COLOURS:
                    yield Check(*balloon_text(choice), value in choice)
            elif choice:
                yield Check(*scene_text(label, choice), value in choice)

    def _check_things(self, found: Sequence[Thing]) -> Iterator[Check]:
        checks: dict[int, tuple[Check, ...]] = {}
        for kind in dict.fromkeys(thing.kind for thing in self.things):
            places = [place for place, thing in enumerate(self.things) if thing.kind == kind]
            asked = [self.things[place] for place in places]
            seen = [thing for thing in found if thing.kind == kind]
            checks |= dict(zip(places, _best(asked, seen), strict=True))
        for place in sorted(checks):
            yield from checks[place]


def _wanted(asked: ThingAsk) -> int:
    """How many things of a scene this ask lays claim to."""
    return min(asked.count[0], 3) if asked.count else 1


def _best(asked: Sequence[ThingAsk], seen: Sequence[Thing]) -> list[tuple[Check, ...]]:
    """The checks of all asks for one kind under the best assignment of what was seen."""
    owners = [place for place, thing in enumerate(asked) for _ in range(_wanted(thing))]
    spare = max(0, len(seen) - len(owners))
    tried = asked[: owners[:_MOST][-1] + 1] if owners else asked
    rest = [tuple(_check(thing, [], 0, seen)) for thing in asked[len(tried) :]]
    best: list[tuple[Check, ...]] = []
    for slots in _assignments(min(len(owners), _MOST), len(seen)):
        given: list[list[Thing | None]] = [[] for _ in tried]
        for wish, owner in enumerate(owners[:_MOST]):
            given[owner].append(seen[slots[wish]] if wish in slots else None)
        checks = [
            tuple(_check(thing, have, spare, seen))
            for thing, have in zip(tried, given, strict=True)
        ]
        if not best or _score(checks) > _score(best):
            best = checks
    return best + rest


def _assignments(wishes: int, seen: int) -> Iterator[dict[int, int]]:
    """Every way to give each wish another seen thing, as far as they go: wish -> thing."""
    if wishes >= seen:
        for chosen in permutations(range(wishes), seen):
            yield {wish: thing for thing, wish in enumerate(chosen)}
    else:
        for chosen in permutations(range(seen), wishes):
            yield dict(enumerate(chosen))


def _score(checks: Sequence[tuple[Check, ...]]) -> int:
    return sum(check.ok for group in checks for check in group)


def _check(
    asked: ThingAsk, given: Sequence[Thing | None], spare: int, seen: Sequence[Thing]
) -> Iterator[Check]:
    """The checks of one ask, given the things that were assigned to it."""
    if asked.count == (0,):
        absent = not any(_matches(thing, asked.look) for thing in seen)
        yield Check(*count_text(asked.kind, asked.count), absent)
        return
    have = [thing for thing in given if thing is not None]
    yield Check(*kind_text(asked.kind), bool(have))
    if asked.count:
        alike = sum(_fits(thing, "colour", asked.look.colour) for thing in seen)
        right = len(have) + spare in asked.count
        right = right or (bool(asked.look.colour) and alike in asked.count)
        yield Check(*count_text(asked.kind, asked.count), right)
    for name in (field.name for field in fields(Look)):
        choice = getattr(asked.look, name)
        if choice:
            fits = [_fits(thing, name, choice) for thing in have]
            ok = any(fits) if name == "slot" else bool(fits) and all(fits)
            yield Check(*look_text(asked.kind, name, choice), ok)
    for place, member in enumerate(asked.members):
        thing = given[place] if place < len(given) else None
        for name in (field.name for field in fields(Look)):
            choice = getattr(member, name)
            if choice:
                ok = thing is not None and _fits(thing, name, choice)
                yield Check(*look_text(asked.kind, name, choice), ok)


def _fits(thing: Thing, name: str, choice: Choice) -> bool:
    """Whether this attribute of the thing is accepted; by nature a pine is green."""
    value = getattr(thing, name)
    if value is None and name == "colour":
        return bool(TINTS.get(thing.kind, frozenset()) & set(choice))
    return value in choice


def _matches(thing: Thing, look: Look) -> bool:
    asked = {field.name: getattr(look, field.name) for field in fields(Look)}
    return all(_fits(thing, name, choice) for name, choice in asked.items() if choice)
