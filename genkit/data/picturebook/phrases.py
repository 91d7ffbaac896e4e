"""Noun phrases: a thing with its colours, its size and its place, in English and Vietnamese.

English puts adjectives before the noun ("a small red house with a blue roof on the left"),
Vietnamese after it ("một ngôi nhà nhỏ màu đỏ có mái xanh dương ở bên trái").
"""

from __future__ import annotations

import random

from .ask import Look, ThingAsk
from .scene import COLOURS, SECOND
from .words import (
    BALLOONS,
    COLOUR_WORDS,
    KIND_WORDS,
    PART_WORDS,
    SEVERAL,
    SIZE_WORDS,
    SLOT_WORDS,
    Choice,
    Language,
)

__all__ = ["balloon_phrase", "pick", "thing_phrase"]

_EN_COUNT = {2: "two|2|a pair of|a couple of", 3: "three|3"}
_CLASSIFIERS = {
    "house": "ngôi", "castle": "tòa", "lighthouse": "ngọn", "tent": "chiếc", "boat": "chiếc",
    "pine": "cây", "tree": "cây", "palm": "cây", "cactus": "cây", "mushroom": "cây",
    "flower": "bông", "whale": "con",
}  # fmt: skip
"""What stands for a thing when Vietnamese does not repeat its name; otherwise "cái"."""
_VI_COUNT = {2: "hai|2|một đôi", 3: "ba|3"}


def pick(forms: str, rng: random.Random) -> str:
    """One of the synonyms; the k-th is chosen with a chance in proportion to k^(-3/2)."""
    choices = forms.split("|")
    return rng.choices(choices, [(k + 1) ** -1.5 for k in range(len(choices))])[0]


def thing_phrase(thing: ThingAsk, rng: random.Random, language: Language, tag: bool) -> str:
    """The asked thing in words.

    Args:
        thing: What to say.
        rng: Source of chance.
        language: "en" or "vi".
        tag: Whether to leave out the articles.
    """
    if language == "en":
        return _english(thing, rng, tag)
    return _vietnamese(thing, rng, tag)


def balloon_phrase(choice: Choice, rng: random.Random, language: Language, tag: bool) -> str:
    """The hot-air balloon with its colour, if one is asked for."""
    noun = pick(BALLOONS[language], rng).split("/")[0]
    colour = "" if choice == COLOURS else pick(COLOUR_WORDS[choice][language], rng)
    bare = tag and rng.random() < 0.5
    if language == "en":
        phrase = f"{colour} {noun}".strip()
        return phrase if bare else _article(phrase)
    head = noun if bare or rng.random() < 0.4 else f"một {noun}"
    return f"{head} {rng.choice(('màu ', 'màu ', ''))}{colour}" if colour else head


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _colour(choice: Choice, rng: random.Random, language: Language) -> str:
    return pick(COLOUR_WORDS[choice][language], rng)


def _english(thing: ThingAsk, rng: random.Random, tag: bool) -> str:
    one, many = pick(KIND_WORDS[thing.kind]["en"], rng).split("/")
    plural = bool(thing.count)
    look, tail = thing.look, ""
    before = [pick(SIZE_WORDS[look.size]["en"], rng)] if look.size else []
    if look.colour and look.second and rng.random() < 0.08:
        own = "hull" if thing.kind == "boat" else "walls"
        walls = f"{_colour(look.colour, rng, 'en')} {own}"
        tail = f" with {walls if own == 'walls' else _article(walls)} and"
    elif look.colour:
        before.insert(len(before) if rng.random() < 0.92 else 0, _colour(look.colour, rng, "en"))
    if look.second:
        tail = _english_part(thing, tail, rng, tag, before)
    phrase = " ".join([*before, many if plural else one])
    phrase = _counted(thing.count, phrase, rng, tag) + tail
    if look.slot:
        phrase = _english_slot(phrase, look.slot, rng, tag)
    return phrase + _members(thing, rng, "en")


def _english_part(
    thing: ThingAsk, tail: str, rng: random.Random, tag: bool, before: list[str]
) -> str:
    """ "with a blue roof", or another way of saying so."""
    part, colour = SECOND[thing.kind], _colour(thing.look.second, rng, "en")
    if part == "roof" and not tail and not thing.count and rng.random() < 0.06:
        before.append(f"{colour}-roofed")
        return ""
    several = thing.kind in ("castle", "boat")
    many = bool(thing.count) or (several and rng.random() < 0.3)
    one, more = PART_WORDS[part]["en"].split("/")
    phrase = f"{colour} {more if many else one}"
    phrase = phrase if many or (tag and rng.random() < 0.5) else _article(phrase)
    if tag and not tail and rng.random() < 0.25:
        return f", {phrase}"
    join = tail or (rng.choice((" with", " with", " under")) if part == "roof" else " with")
    return f"{join} {phrase}"


def _counted(count: tuple[int, ...], phrase: str, rng: random.Random, tag: bool) -> str:
    if not count:
        if tag and rng.random() < 0.8:
            return phrase
        return f"one {phrase}" if rng.random() < 0.04 else _article(phrase)
    if len(count) == 1:
        return f"{pick(_EN_COUNT[count[0]], rng)} {phrase}"
    return phrase if rng.random() < 0.5 else f"{pick('some|several|a few', rng)} {phrase}"


def _english_slot(phrase: str, slot: Choice, rng: random.Random, tag: bool) -> str:
    forms = SLOT_WORDS[slot]["en"].split("|")
    where = pick("|".join(forms[:4]), rng)
    if tag:
        return f"{phrase} {pick('|'.join(forms), rng)}"
    if rng.random() < 0.12:
        return f"{where}{rng.choice(('', ' is', ' there is'))} {phrase}"
    return f"{phrase} {where}"


def _members(thing: ThingAsk, rng: random.Random, language: Language) -> str:
    """ ", one red and one blue" """
    if not thing.members:
        return ""
    link, full = "và" if language == "vi" else "and", rng.random() < 0.5
    said = [_member(thing.kind, look, rng, language, full) for look in thing.members]
    return f", {', '.join(said[:-1])} {link} {said[-1]}"


def _member(kind: str, look: Look, rng: random.Random, language: Language, full: bool) -> str:
    words = []
    if look.colour:
        colour = _colour(look.colour, rng, language)
        words.append(f"màu {colour}" if language == "vi" and full else colour)
    if look.slot:
        words.append(pick("|".join(SLOT_WORDS[look.slot][language].split("|")[:2]), rng))
    one = "one"
    if language == "vi":
        one = f"một {_CLASSIFIERS.get(kind, 'cái')}" if full else "một"
    return " ".join([one, *words])


def _vietnamese(thing: ThingAsk, rng: random.Random, tag: bool) -> str:
    number, look = _numbered(thing.count, rng, tag), thing.look
    forms = KIND_WORDS[thing.kind]["vi"].split("|")
    if number:  # "một thông" is no Vietnamese: numbers want the classifier
        forms = [form for form in forms if " " in form or form == "cây"]
    noun = pick("|".join(forms), rng)
    after = [pick(SIZE_WORDS[look.size]["vi"], rng)] if look.size else []
    if look.colour:
        # "hoa hồng" would be a rose: the colour of a flower is always announced.
        plain = thing.kind != "flower" and rng.random() < 0.3
        colour = _colour(look.colour, rng, "vi")
        first = plain and rng.random() < 0.3
        after.insert(0 if first else len(after), colour if plain else f"màu {colour}")
    phrase = " ".join([number, noun, *after]).strip()
    if look.second:
        phrase += _vietnamese_part(thing, rng, tag)
    if look.slot:
        phrase = _vietnamese_slot(phrase, look.slot, rng, tag)
    return phrase + _members(thing, rng, "vi")


def _numbered(count: tuple[int, ...], rng: random.Random, tag: bool) -> str:
    if not count:
        return "" if rng.random() < (0.8 if tag else 0.25) else "một"
    if len(count) == 1:
        return pick(_VI_COUNT[count[0]], rng)
    return pick(SEVERAL["vi"], rng)


def _vietnamese_part(thing: ThingAsk, rng: random.Random, tag: bool) -> str:
    """ "có mái (màu) xanh dương", "mái xanh dương" """
    colour = rng.choice(("màu ", "")) + _colour(thing.look.second, rng, "vi")
    join = rng.choice(("có ", "có ", "với ", ""))
    if SECOND[thing.kind] == "roof":
        part = pick("mái|mái nhà|mái ngói" if thing.kind == "house" else "mái", rng)
    elif SECOND[thing.kind] == "scarf":
        join = rng.choice(("quàng ", "có ", "với ", "đeo "))
        part = pick("khăn|khăn quàng", rng) if join != "quàng " else "khăn"
    else:
        # "thuyền buồm" is one word, a sailing boat: alone, the sail needs its classifier.
        part = pick("cánh buồm|buồm", rng) if join else "cánh buồm"
    return f" {join}{part} {colour}"


def _vietnamese_slot(phrase: str, slot: Choice, rng: random.Random, tag: bool) -> str:
    forms = SLOT_WORDS[slot]["vi"].split("|")
    where = pick("|".join(forms), rng)
    if not tag and rng.random() < 0.12:
        return f"{pick('|'.join(forms[:2]), rng)} {rng.choice(('có', 'là'))} {phrase}"
    return f"{phrase} {where}"
