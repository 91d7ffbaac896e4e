"""Every sentence of the pages in every language, and how components follow the language.

    say("vi", "draw.value")        one text in one language
    both("status.step", step=3)    the text in all languages, of which the page shows one (CSS)
    Words                          the components of a page whose texts change with the language

A locale is one flat JSON file, `locale/<language>.json`, key -> text with {named} gaps. Both
files have the same keys. Values that fill a gap of `both` are escaped for HTML; a value that is
itself a text of two languages is a `Pair`.
"""

import functools
import html
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gradio.components import Component

__all__ = [
    "LANGUAGES",
    "Pair",
    "Words",
    "both",
    "fixed",
    "locale",
    "number",
    "or_none",
    "pick",
    "say",
    "spans",
]

LANGUAGES: Mapping[str, str] = {"en": "English", "vi": "Tiếng Việt"}
"""Each language and its own name, the default first."""

PROPERTIES = ("label", "info", "placeholder", "value")
"""The properties of a component that a locale can hold, as `<key>.<property>`."""

C = TypeVar("C", bound=Component)


@dataclass(frozen=True)
class Pair:
    """One value in both languages."""

    english: str
    vietnamese: str

    def __getitem__(self, language: str) -> str:
        return self.vietnamese if language == "vi" else self.english


@functools.cache
def locale(language: str) -> Mapping[str, str]:
    """The texts of one language of `LANGUAGES`."""
    path = Path(__file__).parent / "locale" / f"{language}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def say(language: str, key: str, **values: Any) -> str:
    """The text in one language, as plain text."""
    return locale(language)[key].format(**{k: pick(v, language) for k, v in values.items()})


def both(key: str, **values: Any) -> str:
    """The text in every language as HTML: one <span lang="…"> each; the values are escaped."""
    spans = []
    for language in LANGUAGES:
        safe = {k: _isolated(pick(v, language)) for k, v in values.items()}
        body = html.escape(locale(language)[key], quote=False).format(**safe)
        spans.append(f'<span lang="{language}">{body}</span>')
    return "".join(spans)


def pick(value: Any, language: str) -> Any:
    """The side of a `Pair` that this language reads; any other value as it is."""
    return value[language] if isinstance(value, Pair) else value


def number(value: float, digits: int = 4) -> Pair:
    """A number of a few digits as each language writes it: 0.5, 3.2·10⁻⁵ and 0,5, 3,2·10⁻⁵."""
    if math.isnan(value):
        return Pair("–", "–")
    if math.isinf(value):
        return Pair(*(["∞" if value > 0 else "−∞"] * 2))
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = int(exponent)
    if value and not -digits < power < 6:
        raised = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa}·10{raised}"
    else:
        places = max(digits - 1 - power, 0) if abs(value) >= 1 else digits
        text = f"{value:.{places}f}"
    text = text.replace("-", "−")
    return Pair(text, text.replace(".", ","))


def fixed(value: float, digits: int = 2) -> Pair:
    """A number with so many digits behind the point, as each language writes it."""
    text = f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"
    return Pair(text, text.replace(".", ","))


def or_none(value: float) -> float | None:
    """The number, or None for what JSON has no number for."""
    return value if math.isfinite(value) else None


def spans(value: Pair) -> str:
    """A pair as HTML, of which the page shows one side."""
    if value.english == value.vietnamese:
        return value.english
    return "".join(f'<span lang="{one}">{value[one]}</span>' for one in LANGUAGES)


def _isolated(value: Any) -> Any:
    # <bdi>: a right-to-left word of a prompt must not turn the sentence around it.
    return f"<bdi>{html.escape(value)}</bdi>" if isinstance(value, str) else value


class Words:
    """The components of one page whose texts follow the language.

    `add` makes a component with its English texts and remembers it; `updates(language)` are the
    properties of all of them in another language, in the order of `components`.
    """

    def __init__(self) -> None:
        self.components: list[Component] = []
        self._keys: list[str] = []
        self._choices: list[list[tuple[Pair, Any]]] = []

    def add(self, kind: type[C], key: str, **options: Any) -> C:
        """A component of this kind with the texts `<key>.label`, `<key>.info`, … of the locale.

        Its id in the page is gk-<key>, dots replaced by dashes. Choices whose names are pairs
        follow the language, too.
        """
        options.setdefault("elem_id", element(key))
        choices = [one for one in options.get("choices", ()) if isinstance(one[0], Pair)]
        if choices:
            options["choices"] = _chosen(choices, "en")
        component = kind(**_texts(key, "en"), **options)
        self.components.append(component)
        self._keys.append(key)
        self._choices.append(choices)
        return component

    def updates(self, language: str) -> list[dict[str, Any]]:
        """One update per component, as the browser understands it."""
        return [
            {"__type__": "update"}
            | _texts(key, language)
            | ({"choices": _chosen(choices, language)} if choices else {})
            for key, choices in zip(self._keys, self._choices)
        ]

    def titles(self, language: str) -> dict[str, str]:
        """Element id -> one-line help of the controls that have no place for it (buttons)."""
        texts = locale(language)
        keys = zip(self.components, self._keys)
        return {
            str(component.elem_id): texts[f"{key}.title"]
            for component, key in keys if f"{key}.title" in texts
        }  # fmt: skip


def element(key: str) -> str:
    """The id of a component in the page."""
    return "gk-" + key.replace(".", "-")


def _texts(key: str, language: str) -> dict[str, str]:
    texts = locale(language)
    return {p: texts[f"{key}.{p}"] for p in PROPERTIES if f"{key}.{p}" in texts}


def _chosen(choices: list[tuple[Pair, Any]], language: str) -> list[tuple[str, Any]]:
    return [(name[language], value) for name, value in choices]
