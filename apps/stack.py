"""Stacked bars as inline SVG: what a number is the sum of, several of them on one axis.

Nothing has a colour of its own (see `figure`): a part of side `s1` is var(--gk-s1), and parts of
one side are told apart by their shade, the first being full. Lines of text are both languages'.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.figure import decimal, steps

__all__ = ["Bar", "Piece", "shades", "stacked"]

WIDTH, LEFT, RIGHT, TOP, ROW, HEIGHT, FOOT = 620, 84, 96, 6, 52, 30, 34
"""In units of which the letters have 13."""
SHADES = (1.0, 0.72, 0.5, 0.34)
"""Of the parts of one side, again and again."""


@dataclass(frozen=True)
class Piece:
    """A part of a bar.

    Args:
        side: s1 … s7, which gives the colour.
        value: Its length; what is below 0 has none.
    """

    side: str
    value: float


@dataclass(frozen=True)
class Bar:
    """A sum.

    Args:
        name: Beside the bar.
        pieces: From the axis outwards.
        error: Half the length of the whisker at its end.
        text: After the bar, as HTML of SVG.
    """

    name: str
    pieces: Sequence[Piece]
    error: float = 0.0
    text: str = ""


def shades(pieces: Sequence[Piece]) -> list[float]:
    """Opacity of every part of a bar."""
    seen: dict[str, int] = {}
    found = []
    for piece in pieces:
        found.append(SHADES[seen.get(piece.side, 0) % len(SHADES)])
        seen[piece.side] = seen.get(piece.side, 0) + 1
    return found


def stacked(bars: Sequence[Bar], name: str, limit: float = 0.0) -> str:
    """The bars below each other on one axis from 0.

    Args:
        bars: Of which the places are there even if they have no pieces.
        name: What is drawn, for those who cannot see it; escaped by the caller.
        limit: The value that the axis holds in any case.
    """
    longest = max([limit, *(sum(p.value for p in bar.pieces) + bar.error for bar in bars)])
    ticks = steps(longest)
    span = (WIDTH - LEFT - RIGHT) / ticks[-1]
    bottom = TOP + ROW * len(bars)
    body = [_tick(LEFT + span * tick, tick, bottom) for tick in ticks]
    body += [_bar(bar, TOP + ROW * i, span) for i, bar in enumerate(bars)]
    return (
        f'<svg class="gk-chart gk-wide gk-stack" viewBox="0 0 {WIDTH} {bottom + FOOT}" '
        f'role="img" aria-label="{name}">{"".join(body)}</svg>'
    )


def _tick(x: float, value: float, bottom: float) -> str:
    return (
        f'<line class="gk-rule" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>'
        f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{decimal(f"{value:g}")}</text>'
    )


def _bar(bar: Bar, top: float, span: float) -> str:
    y, x = top + (ROW - HEIGHT) / 2, float(LEFT)
    middle = y + HEIGHT / 2
    body = [f'<text class="gk-bar-name" x="0" y="{middle + 5}">{bar.name}</text>']
    for piece, shade in zip(bar.pieces, shades(bar.pieces)):
        length = max(piece.value, 0.0) * span
        body.append(
            f'<rect class="gk-{piece.side}" x="{x:.2f}" y="{y}" width="{length:.2f}" '
            f'height="{HEIGHT}" fill-opacity="{shade}"/>'
        )
        x += length
    if bar.error > 0:
        low, high = x - bar.error * span, x + bar.error * span
        body.append(
            f'<path class="gk-whisker" d="M{low:.2f} {middle}H{high:.2f}'
            f'M{low:.2f} {middle - 5}v10M{high:.2f} {middle - 5}v10"/>'
        )
        x = high
    if bar.pieces:
        body.append(f'<text class="gk-sum" x="{x + 8:.1f}" y="{middle + 5}">{bar.text}</text>')
    return "".join(body)
