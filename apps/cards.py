"""The pictures as the page shows them: a grid of cards, previews and results in the same places.

Everything is HTML with both languages inside (the page shows one) and with the pictures as data
URLs: previews as small JPEG, results as the very PNG file that the download saves, with its
receipt. Nothing is written to disk, and the grid keeps its places from the first frame on.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from apps.text import LANGUAGES, Pair, both

__all__ = [
    "Card",
    "Mark",
    "grid",
    "jpeg_url",
    "png_url",
    "progress",
    "table_file",
    "text_file",
    "verdict",
]

PREVIEW_QUALITY = 85


@dataclass(frozen=True)
class Mark:
    """One attribute that was asked for, and whether it is there (None: not yet looked at)."""

    words: Pair
    found: bool | None


@dataclass(frozen=True)
class Card:
    """One place of the grid: empty, a preview, or a finished picture with its receipt.

    Args:
        url: Data URL of the picture; empty before the first preview.
        seed: Its seed.
        done: Whether this is the finished picture.
        marks: What was asked for, and whether it was found.
        seen: Caption of what the reader sees; empty before it has looked.
    """

    url: str = ""
    seed: int = 0
    done: bool = False
    marks: tuple[Mark, ...] = ()
    seen: Pair = field(default_factory=lambda: Pair("", ""))


def grid(cards: Sequence[Card]) -> str:
    """The cards side by side; with none, a place that waits for the first picture."""
    if not cards:
        return f'<div class="gk-grid gk-one">{_blank()}</div>'
    size = "gk-one" if len(cards) == 1 else "gk-many"
    return f'<div class="gk-grid {size}">{"".join(map(_card, cards))}</div>'


def progress(step: int, steps: int, text: str) -> str:
    """A thin bar and a line of text (HTML), read out politely by screen readers."""
    share = 100 * step / max(steps, 1)
    busy = " gk-busy" if step < steps else ""
    return (
        f'<div class="gk-progress{busy}"><i style="width:{share:.0f}%"></i></div>'
        f'<p class="gk-status" role="status">{text}</p>'
    )


def jpeg_url(image: Image.Image) -> str:
    """A small JPEG as a data URL: ten times faster than PNG at 512²."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=PREVIEW_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def png_url(data: bytes) -> str:
    """A PNG file as a data URL."""
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def table_file(name: str, columns: str, rows: Iterable[Sequence[Any]]) -> dict[str, str]:
    """{name, address} of a table as a CSV file: the line of its columns, then its rows."""
    lines = [columns, *(",".join(map(_cell, row)) for row in rows)]
    return text_file(name, "text/csv", "\n".join(lines) + "\n")


def text_file(name: str, kind: str, text: str) -> dict[str, str]:
    """{name, address} of a text as a file of this media type."""
    data = base64.b64encode(text.encode()).decode("ascii")
    return {"name": name, "url": f"data:{kind};base64,{data}"}


def verdict(file: Image.Image, again: Image.Image, sentences: Sequence[str]) -> str:
    """The picture of a receipt beside the one that was drawn again, and what follows."""
    sides = ((jpeg_url(file), both("verify.file")), (jpeg_url(again), both("verify.again")))
    pictures = "".join(
        f'<figure><img src="{url}" alt=""><figcaption>{text}</figcaption></figure>'
        for url, text in sides
    )
    lines = "".join(f"<li>{sentence}</li>" for sentence in sentences)
    return f'<div class="gk-verdict">{pictures}<ul>{lines}</ul></div>'


def _cell(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _blank() -> str:
    return f'<figure class="gk-card gk-blank"><div class="gk-frame">{_HILLS}</div>' + (
        f"<figcaption>{both('cards.blank')}</figcaption></figure>"
    )


def _card(card: Card) -> str:
    picture = '<div class="gk-wait"></div>'
    if card.url:
        kind = "gk-done" if card.done else "gk-preview"
        picture = f'<img class="{kind}" src="{card.url}" alt="" decoding="sync">'
    return (
        f'<figure class="gk-card"><div class="gk-frame">{picture}</div>'
        f"<figcaption>{_line(card)}{_found(card)}</figcaption></figure>"
    )


def _line(card: Card) -> str:
    name, save = f"genkit-{card.seed}.png", ""
    if card.done:
        save = f'<a class="gk-save" download="{name}" href="{card.url}">{both("cards.save")}</a>'
    return f'<div class="gk-line">{_seed(card)}{save}</div>'


def _seed(card: Card) -> str:
    return f'<span class="gk-seed">{both("cards.seed", seed=card.seed)}</span>'


def _found(card: Card) -> str:
    """Asked / found: the count, then every attribute with ✓ or ✗, or with · while it is drawn.

    What is asked is known from the start, so these lines keep their places too.
    """
    score, items = both("cards.nothing"), ""
    if card.marks:
        found = sum(mark.found is True for mark in card.marks)
        key = "cards.score" if card.seen.english else "cards.asked"
        score = both(key, found=found, asked=len(card.marks))
        items = f"<ul class='gk-marks'>{''.join(map(_mark, card.marks))}</ul>"
    if not card.seen.english:
        return f"<p class='gk-asked'>{score}</p>{items}<p class='gk-seen'>&nbsp;</p>"
    seen = f"<summary>{both('cards.seen')}</summary>{both('cards.sight', seen=card.seen)}"
    return f"<p class='gk-score'>{score}</p>{items}<details class='gk-seen'>{seen}</details>"


_SIGNS = {True: ("✓", "yes"), False: ("✗", "no"), None: ("·", "pending")}


def _mark(mark: Mark) -> str:
    sign, kind = _SIGNS[mark.found]
    words = "".join(
        f'<span lang="{language}">{html.escape(mark.words[language])}</span>'
        for language in LANGUAGES
    )
    return (
        f'<li class="gk-{kind}"><b aria-hidden="true">{sign}</b>'
        f'<span class="gk-hidden">{both(f"cards.{kind}")}</span>{words}</li>'
    )


_HILLS = """<svg viewBox="0 0 128 128" aria-hidden="true"><circle cx="92" cy="36" r="11"
 class="gk-sun"/><path d="M0 92 34 52 58 80 80 58 128 98V128H0Z" class="gk-far"/><path
 d="M0 100Q36 82 70 98T128 96V128H0Z" class="gk-near"/></svg>"""
