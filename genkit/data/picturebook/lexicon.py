"""From letters to words: a prompt as a sequence of items of the vocabulary.

    items(text) = the longest phrases of the table, from left to right

Text is compared in Unicode normal form C and in lower case. The words of the prompt's own language
come first, then those of the other one; in a Vietnamese prompt also words typed without diacritics
("nha do"), of their several meanings the commonest.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from .scenery import ALSO, SCENE_WORDS
from .words import (
    BALLOONS,
    COLOUR_WORDS,
    FILLERS,
    KIND_WORDS,
    LANGUAGES,
    LINKS,
    NUMBERS,
    PART_WORDS,
    SEVERAL,
    SIZE_WORDS,
    SLOT_WORDS,
    Choice,
    Language,
    fold,
)

__all__ = ["Item", "items", "language"]

_TOKEN = re.compile(r"[^\W_]+|[,.;:!?\n|/&+()…،。、]|\S")
_SEPARATORS = frozenset(",.;:!?\n|/()…،。、")


@dataclass(frozen=True)
class Item:
    """A word or phrase of the vocabulary, or a word outside it.

    Args:
        role: "scene", "balloon", "kind", "part", "colour", "size", "slot", "number", "several",
            "sky", "and", "with", "article", "no", "parted", "filler", "stop" (a comma or full
            stop) or "unknown".
        value: The label, the kind, the part or the number, if the role has one.
        choice: The accepted values of a scene word, a colour, a size or a slot.
        language: The language of the word; adjectives stand before the noun in English, after it
            in Vietnamese.
        plural: Whether a kind stands in the plural.
        text: As typed.
    """

    role: str
    value: str | int = ""
    choice: Choice = ()
    language: Language = "en"
    plural: bool = False
    text: str = ""


Phrase = tuple[str, ...]


def _tokens(text: str) -> list[tuple[str, int, int]]:
    """Words and signs with their place; hyphens, quotes and invisible signs are left out."""
    found = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token[0].isalnum() or token in "&+" or token in _SEPARATORS or _is_symbol(token):
            found.append((token.lower(), match.start(), match.end()))
    return found


def _is_symbol(sign: str) -> bool:
    """Emoji and the like, which want to say something."""
    return unicodedata.category(sign) in ("So", "Sc")


def _entries(tongue: Language) -> Iterator[tuple[str, Item]]:
    """Every phrase of a language; later ones do not replace earlier ones."""

    def several(forms: str, item: Item) -> Iterator[tuple[str, Item]]:
        return ((form, item) for form in forms.split("|") if form)

    for (label, choice), words in SCENE_WORDS.items():
        forms = words[tongue]
        for group in (forms.adverbs, forms.nouns, forms.tags):
            yield from several(group, Item("scene", label, choice, tongue))
    for form, (label, choice) in ALSO[tongue].items():
        yield form, Item("scene", label, choice, tongue)
    yield from several(BALLOONS[tongue].replace("/", "|"), Item("balloon", language=tongue))
    for table, role in ((COLOUR_WORDS, "colour"), (SIZE_WORDS, "size"), (SLOT_WORDS, "slot")):
        for choice, names in table.items():
            yield from several(names[tongue], Item(role, "", choice, tongue))
    for kind, names in KIND_WORDS.items():
        for form in names[tongue].split("|"):
            one, *many = form.split("/")
            yield one, Item("kind", kind, (), tongue)
            yield from ((word, Item("kind", kind, (), tongue, plural=True)) for word in many)
    for part, names in PART_WORDS.items():
        yield from several(names[tongue].replace("/", "|"), Item("part", part, (), tongue))
    for form, number in NUMBERS[tongue].items():
        yield form, Item("number", number, (), tongue)
    for figure in range(100):
        yield str(figure), Item("number", figure, (), tongue)
    yield from several(SEVERAL[tongue], Item("several", language=tongue))
    yield from ((form, Item(role, language=tongue)) for form, role in LINKS[tongue].items())
    yield from several(FILLERS[tongue], Item("filler", language=tongue))


@cache
def _lexicon(tongue: Language) -> dict[Phrase, Item]:
    lexicon: dict[Phrase, Item] = {}
    for form, item in _entries(tongue):
        lexicon.setdefault(tuple(token for token, _, _ in _tokens(form)), item)
    return lexicon


# "co" is có, cỏ; "trang" trắng, trăng; "la" là, lá: the commoner role wins.
_FOLDED_FIRST = ("with", "and", "colour", "kind", "filler", "part", "scene", "number")


@cache
def _folded() -> dict[Phrase, Item]:
    """Vietnamese without diacritics."""
    lexicon: dict[Phrase, Item] = {}
    for phrase, item in _lexicon("vi").items():
        plain = tuple(fold(word) for word in phrase)
        rival = lexicon.get(plain, item)
        lexicon[plain] = min(rival, item, key=_folded_rank)
    return lexicon


def _folded_rank(item: Item) -> int:
    return _FOLDED_FIRST.index(item.role) if item.role in _FOLDED_FIRST else 0


@cache
def _vocabulary(tongue: Language) -> frozenset[str]:
    phrases = [*_lexicon(tongue), *(_folded() if tongue == "vi" else ())]
    return frozenset(word for phrase in phrases for word in phrase)


def language(text: str) -> Language:
    """The language of most of the known words; English if there is no telling."""
    words = [token for token, _, _ in _tokens(unicodedata.normalize("NFC", text))]
    english, vietnamese = (sum(word in _vocabulary(t) for word in words) for t in LANGUAGES)
    return "vi" if vietnamese > english else "en"


@cache
def _longest(tongue: Language) -> int:
    return max(len(phrase) for phrase in _lexicon(tongue))


def _match(words: list[str], start: int, tongue: Language) -> tuple[Item, int] | None:
    """The longest phrase that begins here, in this language or else in the other one."""
    other: Language = "en" if tongue == "vi" else "vi"
    folding = tongue == "vi"
    for length in range(_longest(tongue), 0, -1):
        phrase = tuple(words[start : start + length])
        item = _lexicon(tongue).get(phrase)
        if item is None and folding:
            item = _folded().get(phrase)
        if item is not None:
            return item, len(phrase)
    for length in range(_longest(other), 0, -1):
        phrase = tuple(words[start : start + length])
        if phrase in _lexicon(other):
            return _lexicon(other)[phrase], len(phrase)
    return None


def items(text: str) -> list[Item]:
    """The prompt as items, with neighbouring unknown words joined."""
    text = unicodedata.normalize("NFC", text)
    tongue, tokens = language(text), _tokens(text)
    words = [token for token, _, _ in tokens]
    found: list[Item] = []
    place = 0
    unknown_from, unknown_to = 0, -1
    while place < len(words):
        begin, end = tokens[place][1:]
        item, length = _single(words[place], tongue), 1
        if item is None:
            item, length = _match(words, place, tongue) or (Item("unknown", language=tongue), 1)
        end = tokens[place + length - 1][2]
        if item.role == "unknown" and found and found[-1].role == "unknown":
            if end - unknown_from <= 40 and begin - unknown_to <= 1:
                found.pop()
                begin = unknown_from
        if item.role == "unknown":
            unknown_from, unknown_to = begin, end
        found.append(
            Item(item.role, item.value, item.choice, item.language, item.plural, text[begin:end])
        )
        place += length
    return found


def _single(word: str, tongue: Language) -> Item | None:
    """Signs, which are the same in every language."""
    if word in _SEPARATORS:
        return Item("stop", language=tongue)
    if word in "&+":
        return Item("and", language=tongue)
    return None
