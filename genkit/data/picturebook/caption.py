"""Captions: what a person would type to get this picture, in English or Vietnamese.

    caption(scene, rng, language) = describe(plan(scene, rng, language), rng, language)

`plan` decides what is said, `describe` says it: as a list ("red house, blue roof, night"), as a
sentence ("a red house with a blue roof in the snow at night, with two clouds") or as anything in
between. A caption is never false about its scene.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from .ask import SCENE_LABELS, Ask
from .phrases import balloon_phrase, pick, thing_phrase
from .plan import Detail, everything, plan
from .scene import Scene
from .scenery import SCENE_WORDS
from .words import LANGUAGES, Choice, Language, fold

__all__ = ["EXAMPLES", "canonical", "caption", "describe"]

_LONGEST = 50
"""Words and commas of a caption, at most: about 60 word pieces."""
_OBJECTS = ("light", "mountains", "clouds", "rainbow", "balloon")
"""Labels that are things one can see; the others say when and where."""
_WITH = {"en": ("with", "with", "and"), "vi": ("với", "có", "cùng với")}
_AND = {"en": "and", "vi": "và"}
_OPENINGS = {
    "en": ("a picture of", "a drawing of", "a painting of", "a landscape with"),
    "vi": ("bức tranh", "tranh vẽ", "phong cảnh có", "một bức tranh vẽ"),
}

EXAMPLES: dict[Language, tuple[str, ...]] = {
    "en": (
        "a red house with a blue roof on the left, snowy mountains, at night",
        "a small boat with a white sail at sea, sunset, two clouds and a hot-air balloon",
        "two pines and a snowman in the snow, under a full moon",
        "a large white castle with purple roofs, a rainbow, mountains, in the morning",
        "three flowers on a meadow, one red, one yellow and one white, the sun",
        "a whale on the left and a white lighthouse on the right, by the sea at dawn",
    ),
    "vi": (
        "một ngôi nhà màu đỏ có mái xanh dương ở bên trái, núi tuyết, ban đêm",
        "một chiếc thuyền nhỏ có cánh buồm trắng trên biển, hoàng hôn, hai đám mây, khinh khí cầu",
        "hai cây thông và một người tuyết trên tuyết, dưới trăng tròn",
        "một lâu đài lớn màu trắng có mái tím, cầu vồng, núi, vào buổi sáng",
        "hai cây xương rồng và một chiếc lều màu cam trên sa mạc, trăng khuyết, ban đêm",
        "cá voi ở bên trái, ngọn hải đăng màu trắng ở bên phải, trên biển, lúc bình minh",
    ),
}
"""Prompts that show what the picture book can draw."""


def caption(scene: Scene, rng: random.Random, language: str, detail: Detail | None = None) -> str:
    """One of very many captions of this scene.

    Args:
        scene: The truth.
        rng: Source of chance; every draw is another paraphrase.
        language: "en" or "vi".
        detail: How much is said; without it, as much as people say, now more and now less.

    Raises:
        ValueError: If the language is another one.
    """
    tongue = next((known for known in LANGUAGES if known == language), None)
    if tongue is None:
        raise ValueError(f"language {language!r} is not spoken here; use 'en' or 'vi'")
    ask = plan(scene, rng, tongue, detail)
    stars = scene.time == "night" and scene.weather == "clear"
    for _ in range(20):
        text = describe(ask, rng, tongue, stars)
        if len(text.replace(",", " ,").split()) <= _LONGEST:
            break
        ask = _shorter(ask, rng)
    return text


def canonical(scene: Scene, language: Language) -> str:
    """The caption that says everything about the scene, always in the same words."""
    ask, rng = everything(scene), _First()
    things = [thing_phrase(thing, rng, language, False) for thing in ask.things]
    asked = [(label, getattr(ask, label)) for label in SCENE_LABELS]
    return ", ".join(things + [_scene_phrase(*item, rng, language, "noun") for item in asked])


class _First(random.Random):
    """A source of chance that always takes the first and commonest way."""

    def random(self) -> float:
        return 0.5

    def choices(self, population: Sequence[str], *_: object, **__: object) -> list[str]:  # type: ignore[override]
        return [population[0]]


def describe(ask: Ask, rng: random.Random, language: Language, stars: bool = True) -> str:
    """The ask in words.

    Args:
        ask: What is to be said, as made by `plan`.
        rng: Source of chance.
        language: "en" or "vi".
        stars: Whether a night may be called starry.
    """
    style = rng.choices((_tags, _list, _sentence), (0.2, 0.4, 0.4))[0]
    text = style(ask, rng, language, stars)
    if rng.random() < 0.06 and ask.things and style is not _tags:
        text = f"{rng.choice(_OPENINGS[language])} {text}"
    if rng.random() < (0.45 if style is _sentence else 0.15):
        text = text[0].upper() + text[1:] + ("." if rng.random() < 0.6 else "")
    if language == "vi" and rng.random() < 0.05:
        text = fold(text)
    return text


def _shorter(ask: Ask, rng: random.Random) -> Ask:
    """The ask without one of its scene attributes, or without the places of its things."""
    asked = [label for label in SCENE_LABELS if getattr(ask, label)]
    if asked and rng.random() < 0.7:
        return replace(ask, **{rng.choice(asked): ()})
    things = tuple(replace(thing, look=replace(thing.look, size=())) for thing in ask.things)
    return replace(ask, things=things)


def _absent(label: str, choice: Choice) -> bool:
    return label in _OBJECTS and choice[0] in ("none", "0")


def _scene_phrase(
    label: str,
    choice: Choice,
    rng: random.Random,
    language: Language,
    form: str,
    stars: bool = True,
) -> str:
    """A form of this attribute: an "adverb", a "noun", or "any" of them."""
    if label == "balloon" and choice != ("none",):
        return balloon_phrase(choice, rng, language, form == "any")
    words = SCENE_WORDS[label, choice][language]
    if form == "adverb" and words.adverbs:
        forms = words.adverbs
    elif form == "any":
        both = (words.nouns, words.adverbs) if rng.random() < 0.6 else (words.adverbs, words.nouns)
        forms = "|".join(part for part in (*both, words.tags) if part)
        forms = words.tags if words.tags and rng.random() < 0.3 else forms
    else:
        forms = words.nouns
    if not stars:
        forms = "|".join(f for f in forms.split("|") if "star" not in f and "sao" not in f)
    return pick(forms, rng)


def _asked(ask: Ask, rng: random.Random) -> list[tuple[str, Choice]]:
    asked = [(label, getattr(ask, label)) for label in SCENE_LABELS if getattr(ask, label)]
    rng.shuffle(asked)
    return asked


def _tags(ask: Ask, rng: random.Random, language: Language, stars: bool) -> str:
    """Bare words between commas: "red house, night"."""
    things = [thing_phrase(thing, rng, language, True) for thing in ask.things]
    scene = [_scene_phrase(*item, rng, language, "any", stars) for item in _asked(ask, rng)]
    return ", ".join(scene + things if rng.random() < 0.25 else things + scene)


def _list(ask: Ask, rng: random.Random, language: Language, stars: bool) -> str:
    """Phrases between commas, some of them joined: "two pines in the snow, night and a cloud"."""
    things = [thing_phrase(thing, rng, language, False) for thing in ask.things]
    asked = _asked(ask, rng)
    if things and asked and asked[0][0] in ("time", "ground", "weather") and rng.random() < 0.6:
        things[-1] += " " + _scene_phrase(*asked.pop(0), rng, language, "adverb", stars)
    elif len(things) > 1 and rng.random() < 0.5:
        things = [_joined(things, language)]
    scene = [_scene_phrase(*item, rng, language, "any", stars) for item in asked]
    parts = scene + things if rng.random() < 0.2 else things + scene
    if len(parts) > 2 and rng.random() < 0.3:
        return _joined(parts, language)
    return ", ".join(parts)


def _sentence(ask: Ask, rng: random.Random, language: Language, stars: bool) -> str:
    """The things, where and when they are, and what else there is."""
    asked = _asked(ask, rng)
    absent = [item for item in asked if _absent(*item)]
    objects = [item for item in asked if item[0] in _OBJECTS and item not in absent]
    around = [item for item in asked if item[0] not in _OBJECTS]
    seen = [_scene_phrase(*item, rng, language, "noun") for item in objects]
    things = [thing_phrase(thing, rng, language, False) for thing in ask.things]
    when = [_scene_phrase(*item, rng, language, "adverb", stars) for item in around]
    subject = _joined(things or seen, language)
    late = _joined(seen, language) if things and seen else ""
    if rng.random() < 0.2 and when and subject:
        text = f"{' '.join(when)}, {_there_is(subject, rng, language)}"
    else:
        text = " ".join([part for part in (subject, *when) if part])
    if late:
        join = rng.choice(_WITH[language])
        text += rng.choice((f", {join} {late}", f", {join} {late}", f" {join} {late}"))
    for item in absent:
        text += ", " + _scene_phrase(*item, rng, language, "adverb")
    return text.removeprefix(", ")


def _there_is(subject: str, rng: random.Random, language: Language) -> str:
    if language == "vi":
        return rng.choice((f"có {subject}", subject))
    return subject


def _joined(parts: Sequence[str], language: Language) -> str:
    """a, b and c."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {_AND[language]} {parts[-1]}"
