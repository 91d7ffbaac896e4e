"""The pictures as the page shows them: a grid of cards, previews and results in the same places.

Everything is HTML with both languages inside (the page shows one) and with the pictures as data
URLs: previews as small JPEG, results as the very PNG file that the download saves, with its
receipt. Nothing is written to disk, and the grid keeps its places from the first frame on.
"""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from apps.text import Pair, both

__all__ = ["Card", "Mark", "grid", "jpeg_url", "png_url", "progress", "verdict"]

PREVIEW_QUALITY = 85


@dataclass(frozen=True)
class Mark:
    """One attribute that was asked for: its words in both languages, and whether it is there."""

    words: Pair
    found: bool


@dataclass(frozen=True)
class Card:
    """One place of the grid: empty, a preview, or a finished picture with its receipt.

    Args:
        url: Data URL of the picture; empty before the first preview.
        seed: Its seed.
        done: Whether this is the finished picture.
        marks: What was asked for and whether it was found; None before the reader has read it.
        seen: Caption of what the reader sees.
    """

    url: str = ""
    seed: int = 0
    done: bool = False
    marks: tuple[Mark, ...] | None = None
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


def verdict(file: Image.Image, again: Image.Image, sentences: Sequence[str]) -> str:
    """The picture of a receipt beside the one that was drawn again, and what follows."""
    pictures = "".join(
        f'<figure><img src="{jpeg_url(image)}" alt=""><figcaption>{both(key)}</figcaption></figure>'
        for image, key in ((file, "verify.file"), (again, "verify.again"))
    )
    lines = "".join(f"<li>{sentence}</li>" for sentence in sentences)
    return f'<div class="gk-verdict">{pictures}<ul>{lines}</ul></div>'


def _blank() -> str:
    return f'<figure class="gk-card gk-blank"><div class="gk-frame">{_HILLS}</div>' + (
        f"<figcaption>{both('cards.blank')}</figcaption></figure>"
    )


def _card(card: Card) -> str:
    picture = '<div class="gk-wait"></div>'
    if card.url:
        kind = "gk-done" if card.done else "gk-preview"
        picture = f'<img class="{kind}" src="{card.url}" alt="" decoding="sync">'
    caption = _caption(card) if card.done else f"<figcaption>{_seed(card)}</figcaption>"
    return f'<figure class="gk-card"><div class="gk-frame">{picture}</div>{caption}</figure>'


def _caption(card: Card) -> str:
    name = f"genkit-{card.seed}.png"
    save = f'<a class="gk-save" download="{name}" href="{card.url}">{both("cards.save")}</a>'
    return f'<figcaption><div class="gk-line">{_seed(card)}{save}</div>{_found(card)}</figcaption>'


def _seed(card: Card) -> str:
    return f'<span class="gk-seed">{both("cards.seed", seed=card.seed)}</span>'


def _found(card: Card) -> str:
    """Asked / found: the count, then every attribute with ✓ or ✗."""
    if card.marks is None:
        return ""
    seen = f"<p class='gk-seen'>{both('cards.seen', seen=card.seen)}</p>"
    if not card.marks:
        return f"<p class='gk-score'>{both('cards.nothing')}</p>{seen}"
    found = sum(mark.found for mark in card.marks)
    score = both("cards.score", found=found, asked=len(card.marks))
    items = "".join(map(_mark, card.marks))
    return f"<p class='gk-score'>{score}</p><ul class='gk-marks'>{items}</ul>{seen}"


def _mark(mark: Mark) -> str:
    sign, kind = ("✓", "yes") if mark.found else ("✗", "no")
    told = both(f"cards.{kind}")
    words = "".join(
        f'<span lang="{language}">{html.escape(mark.words[language])}</span>'
        for language in ("en", "vi")
    )
    return (
        f'<li class="gk-{kind}"><b aria-hidden="true">{sign}</b>'
        f'<span class="gk-hidden">{told}</span>{words}</li>'
    )


_HILLS = """<svg viewBox="0 0 128 128" aria-hidden="true"><circle cx="92" cy="36" r="11"
 class="gk-sun"/><path d="M0 92 34 52 58 80 80 58 128 98V128H0Z" class="gk-far"/><path
 d="M0 100Q36 82 70 98T128 96V128H0Z" class="gk-near"/></svg>"""
