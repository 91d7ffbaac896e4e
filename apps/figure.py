"""Figures as inline SVG: curves of two schedules on shared axes, and the frame of a histogram.

Nothing has a colour of its own: lines are var(--gk-a) and var(--gk-b), text and axes follow the
page (`static/page.css`), so that a figure turns dark with it and needs no second drawing. The
letters are 13 units high in a figure of 340, which is 340 to 700 pixels wide on a screen.

What moves with the time slider is drawn by the browser: the upright line `.gk-now` of each chart,
and the area `[data-histogram]`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["BINS", "RANGE", "Curve", "chart", "histogram"]

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 50, 8, 10, 32
BINS, RANGE = 56, 3.5
"""Bars of a histogram, and how far it goes to either side."""
PEAK = 0.9
"""Density at the upper edge of a histogram; a clean picture is cut off there."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Args:
        side: a or b, which gives the colour.
        x: Between 0 and 1.
        y: Values; those that are not finite (or not positive, on a logarithmic axis) are left out.
        marks: Where the steps of a grid fall, (x, y) each.
    """

    side: str
    x: Sequence[float]
    y: Sequence[float]
    marks: Sequence[tuple[float, float]] = ()


def chart(curves: Sequence[Curve], name: str, log: bool = False) -> str:
    """The curves over k/T from 0 to 1.

    Args:
        curves: Lines and marks.
        name: What is drawn, for those who cannot see it; it is escaped by the caller.
        log: Whether the axis is logarithmic.
    """
    shown = [_visible(curve, log) for curve in curves]
    values = [y for points, _ in shown for _, y in points] or [0.0, 1.0]
    low, high, ticks = _axis(min(values), max(values), log)
    body = [_horizontal(tick, _y(tick, low, high), log) for tick in ticks]
    body += [_vertical(x) for x in (0, 0.25, 0.5, 0.75, 1)]
    for curve, (points, marks) in zip(curves, shown):
        line = " ".join(f"{_x(x):.1f},{_y(y, low, high):.1f}" for x, y in points)
        body.append(f'<polyline class="gk-{curve.side}" points="{line}"/>')
        body += [
            f'<circle class="gk-{curve.side}" cx="{_x(x):.1f}" cy="{_y(y, low, high):.1f}" r="3"/>'
            for x, y in marks
        ]
    now = f'<line class="gk-now" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    return _svg(name, "".join(body) + now)


def histogram(side: str, name: str) -> str:
    """Axes and the bell curve of N(0, 1); the browser fills in the bars of the slider's time."""
    xs = np.linspace(-RANGE, RANGE, 81)
    bell = np.exp(-(xs**2) / 2) / math.sqrt(2 * math.pi)
    scaled = (xs + RANGE) / (2 * RANGE)
    line = " ".join(f"{_x(x):.1f},{_y(y, 0, PEAK):.1f}" for x, y in zip(scaled, bell))
    ticks = "".join(_vertical((v + RANGE) / (2 * RANGE), f"{v:+d}" if v else "0") for v in TICKS)
    base = _y(0, 0, PEAK)
    area = (
        f'<path class="gk-area gk-{side}" data-histogram="{side}" data-left="{LEFT}" '
        f'data-width="{(WIDTH - LEFT - RIGHT) / BINS:.4f}" data-base="{base}" '
        f'data-unit="{(base - TOP) / PEAK:.3f}" data-top="{TOP}"/>'
    )
    grid = "".join(_horizontal(v, _y(v, 0, PEAK), False) for v in (0, 0.2, 0.4, 0.6, 0.8))
    return _svg(name, f'{grid}{ticks}{area}<polyline class="gk-bell" points="{line}"/>')


TICKS = (-3, -2, -1, 0, 1, 2, 3)


def _svg(name: str, body: str) -> str:
    return (
        f'<svg class="gk-chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}" '
        f'data-left="{LEFT}" data-span="{WIDTH - LEFT - RIGHT}">{body}</svg>'
    )


def _x(x: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * x


def _y(y: float, low: float, high: float) -> float:
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low), 2)


def _horizontal(value: float, y: float, log: bool) -> str:
    text = _power(round(value)) if log else f"{value:g}".replace("-", "−")
    return (
        f'<line class="gk-rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _vertical(x: float, text: str = "") -> str:
    anchor = "end" if x == 1 else "middle"
    return (
        f'<text x="{_x(x):.1f}" y="{HEIGHT - 12}" text-anchor="{anchor}">'
        f"{text.replace('-', '−') or f'{x:g}'}</text>"
    )


def _power(exponent: int) -> str:
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


Points = list[tuple[float, float]]


def _visible(curve: Curve, log: bool) -> tuple[Points, Points]:
    """Points and marks that can be drawn, the values as logarithms where the axis is."""

    def seen(points: Sequence[tuple[float, float]]) -> Points:
        finite = [(x, y) for x, y in points if math.isfinite(y) and (y > 0 or not log)]
        return [(x, math.log10(y)) for x, y in finite] if log else finite

    return seen(list(zip(curve.x, curve.y))), seen(curve.marks)


def _axis(low: float, high: float, log: bool) -> tuple[float, float, list[float]]:
    """(lower end, upper end, ticks): round numbers that hold all values."""
    step = float(math.ceil((high - low) / 5)) or 1.0 if log else _round((high - low) / 4 or 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return first * step, last * step, [step * i for i in range(first, last + 1)]


def _round(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))
