"""Names and colours of what is known of a scene, as figures and tables show them.

A colour of the picture book has its own; the other classes have colours that suggest them where
there is such a one, else those of a palette that is told apart on light and on dark ground.
"""

import random
from collections.abc import Mapping

from apps.settings import Refused
from apps.spaces import Attribute
from apps.text import LANGUAGES, Pair, say
from genkit.data.picturebook import Scene
from genkit.data.picturebook.scene import COLOURS, KINDS
from genkit.data.picturebook.words import COLOUR_WORDS, KIND_WORDS

__all__ = ["colour_of", "described", "name_of", "pair", "percent", "said", "value_name"]

NONE = "#9a9287"
PAINT: Mapping[str, str] = {
    "red": "#d42c28", "orange": "#f4841c", "yellow": "#e9c11c", "green": "#3c9c46",
    "blue": "#2c64ce", "purple": "#823eb4", "pink": "#f08cb4", "brown": "#7e4e2c",
    "white": "#f8f6f0", "black": "#2e2c36",
    "day": "#3f9fe0", "dawn": "#d98bb8", "sunset": "#e8742c", "night": "#4b51a8",
    "meadow": "#5fa845", "desert": "#dba739", "snow": "#a9bcd6", "sea": "#2c7cc0",
    "clear": "#e0a93a", "rain": "#3a6fb0", "snowfall": "#a9bcd6",
    "sun": "#eba822", "full moon": "#7f6fd0", "crescent moon": "#2fa39a",
    "bare": "#9b7048", "snowy": "#6d9fd6", "yes": "#d0478c", "none": NONE,
}  # fmt: skip
"""Class -> colour; a pair of classes of one attribute never looks alike."""
SHORT = 8
"""Fewest words of a caption: "a house" fits too much."""
TRIES = 20
PALETTE = (
    "#c9573a", "#2c7cc0", "#5fa845", "#8a5aa3", "#dba739", "#2f9f96", "#d0478c", "#7e5a3c",
    "#6f7de0", "#a3a838", "#e58f6b", "#4b7f5a", "#b0b4c4", "#5ac0e0", "#7d7a76",
)  # fmt: skip


def name_of(attribute: str) -> Pair:
    """The name of an attribute."""
    return pair(f"latents.attribute.{attribute}")


def value_name(attribute: Attribute, index: int) -> Pair:
    """The name of one of its classes."""
    value = attribute.classes[index]
    if value.isdecimal():
        return Pair(value, value)
    if value in KINDS:
        words = KIND_WORDS[value]
    elif value in COLOURS:
        words = COLOUR_WORDS[(value,)]
    else:
        return pair(f"latents.value.{value}")
    return Pair(*(words[language].split("|")[0].split("/")[0] for language in LANGUAGES))


def colour_of(attribute: Attribute, index: int) -> str:
    """The colour of one of its classes, as #rrggbb."""
    value = attribute.classes[index]
    if attribute.name in ("thing", "things", "clouds"):
        return PALETTE[index]
    return PAINT[value]


def described(scene: Scene) -> Pair:
    """A caption of a scene in each language that says enough to be told from others."""
    return Pair(*(_caption(scene, language) for language in LANGUAGES))


def pair(key: str) -> Pair:
    """A text of the locale as a value of other texts."""
    return Pair(*(say(language, key) for language in LANGUAGES))


def said(error: Refused) -> Pair:
    """The sentence of a refusal as a value of other texts."""
    return Pair(*(error.say(language) for language in LANGUAGES))


def percent(share: float) -> Pair:
    """A share of 1 as each language writes it."""
    text = f"{100 * share:.1f}"
    return Pair(f"{text}%", f"{text.replace('.', ',')}%")


def _caption(scene: Scene, language: str) -> str:
    rng = random.Random(scene.seed)
    texts = [scene.caption(rng, language) for _ in range(TRIES)]
    # As it is typed with diacritics, where there is a choice: the others look like a mistake.
    plain = [text for text in texts if language == "en" or not text.isascii()] or texts
    return next((text for text in plain if len(text.split()) >= SHORT), max(plain, key=len))
