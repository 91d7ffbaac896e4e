"""Attributes in a few words, for a list of what was asked: (English, Vietnamese)."""

from __future__ import annotations

from .scene import SECOND
from .scenery import SCENE_WORDS
from .words import (
    BALLOONS,
    COLOUR_WORDS,
    KIND_WORDS,
    PART_WORDS,
    SIZE_WORDS,
    SLOT_WORDS,
    Choice,
    Language,
)

__all__ = ["balloon_text", "count_text", "kind_text", "look_text", "scene_text"]

Texts = tuple[str, str]

_EN_NUMBERS = ("no", "one", "two", "three")
_VI_NUMBERS = ("không có", "một", "hai", "ba")
_LABELS_VI = {
    "time": "thời gian", "ground": "mặt đất", "weather": "thời tiết", "light": "ánh sáng",
    "mountains": "núi", "clouds": "mây", "rainbow": "cầu vồng", "balloon": "khinh khí cầu",
}  # fmt: skip


def _first(forms: str) -> str:
    return forms.split("|")[0].split("/")[0]


def _bare(phrase: str) -> str:
    """Without its article."""
    for article in ("a ", "an ", "the "):
        phrase = phrase.removeprefix(article)
    return phrase


def scene_text(label: str, choice: Choice) -> Texts:
    """ "night", "two clouds", "full moon" """
    words = SCENE_WORDS.get((label, choice))
    if words is not None:
        return _bare(_first(words["en"].nouns)), _first(words["vi"].nouns)
    if len(choice) == 1:  # "5 clouds"
        return f"{label}: {choice[0]}", f"{_LABELS_VI[label]}: {choice[0]}"
    english, vietnamese = zip(*(scene_text(label, (value,)) for value in choice), strict=True)
    return f"{label}: {' or '.join(english)}", f"{_LABELS_VI[label]}: {' hoặc '.join(vietnamese)}"


def balloon_text(choice: Choice) -> Texts:
    """ "hot-air balloon" or, with a colour, "hot-air balloon: red" """
    english, vietnamese = _first(BALLOONS["en"]), _first(BALLOONS["vi"])
    if not choice:
        return english, vietnamese
    return f"{english}: {_colour(choice, 'en')}", f"{vietnamese}: màu {_colour(choice, 'vi')}"


def kind_text(kind: str) -> Texts:
    """ "house" """
    return _first(KIND_WORDS[kind]["en"]), _first(KIND_WORDS[kind]["vi"])


def count_text(kind: str, count: tuple[int, ...]) -> Texts:
    """ "two houses" """
    one, many = KIND_WORDS[kind]["en"].split("|")[0].split("/")
    name = _first(KIND_WORDS[kind]["vi"])
    if len(count) > 1:
        return f"several {many}", f"vài {name}"
    number = count[0]
    english = _EN_NUMBERS[number] if number < 4 else str(number)
    vietnamese = _VI_NUMBERS[number] if number < 4 else str(number)
    return f"{english} {one if number == 0 else many}", f"{vietnamese} {name}"


def look_text(kind: str, name: str, choice: Choice) -> Texts:
    """ "house: red", "house: blue roof", "house: on the left" """
    english, vietnamese = kind_text(kind)
    if name in ("colour", "second"):
        colours: Texts = (_colour(choice, "en"), f"màu {_colour(choice, 'vi')}")
        if name == "second":
            part = PART_WORDS[SECOND.get(kind, "roof")]
            colours = f"{colours[0]} {_first(part['en'])}", f"{_first(part['vi'])} {colours[1]}"
        return f"{english}: {colours[0]}", f"{vietnamese}: {colours[1]}"
    table = SIZE_WORDS if name == "size" else SLOT_WORDS
    en, vi = (" / ".join(_first(table[(value,)][t]) for value in choice) for t in ("en", "vi"))
    return f"{english}: {en}", f"{vietnamese}: {vi}"


def _colour(choice: Choice, language: Language) -> str:
    words = COLOUR_WORDS.get(choice)
    if words and words[language]:
        return _first(words[language])
    return (" or " if language == "en" else " hoặc ").join(
        _first(COLOUR_WORDS[(value,)][language]) for value in choice
    )
