"""Figures as inline SVG: curves on shared axes, and the frame of a histogram.

Nothing has a colour of its own: a line of side `a` is var(--gk-a), text and axes follow the page
(`static/page.css`), so that a figure turns dark with it and needs no second drawing. The letters
are 13 units high in a figure of 340, which is 340 to 700 pixels wide on a screen.

What moves with the time slider is drawn by the browser: the upright line `.gk-now` of each chart,
and the area `[data-histogram]`.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apps.text import LANGUAGES

__all__ = [
    "BINS",
    "RANGE",
    "Across",
    "Curve",
    "Frame",
    "chart",
    "decimal",
    "histogram",
    "steps",
]

LEFT, TOP, BOTTOM = 50, 10, 32
BINS, RANGE = 56, 3.5
"""Bars of a histogram, and how far it goes to either side."""
PEAK = 0.9
"""Density at the upper edge of a histogram; a clean picture is cut off there."""
LINE = 22
"""Least distance of the names at the ends of curves."""


@dataclass(frozen=True)
class Frame:
    """The outline of a figure, in units of which its letters have 13."""

    width: int = 340
    height: int = 210
    right: int = 8

    @property
    def span(self) -> int:
        """Width between the axes' ends."""
        return self.width - LEFT - self.right

    def x(self, share: float) -> float:
        """Place of a share of the horizontal axis."""
        return LEFT + self.span * share

    def y(self, value: float, low: float, high: float) -> float:
        """Place of a value on the upright axis."""
        return round(TOP + (self.height - TOP - BOTTOM) * (high - value) / (high - low), 2)


@dataclass(frozen=True)
class Across:
    """The horizontal axis from its first tick to its last; time may run backwards on it."""

    ticks: Sequence[float] = (0, 0.25, 0.5, 0.75, 1)
    log: bool = False

    def share(self, x: float) -> float:
        """0 at the first tick, 1 at the last."""
        first, last = self.ticks[0], self.ticks[-1]
        if self.log:
            return math.log(x / first) / math.log(last / first)
        return (x - first) / (last - first)


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Args:
        side: a, b or s1 … s6, which gives the colour.
        x: On the axis.
        y: Values; those that are not finite (or not positive, on a logarithmic axis) are left out.
        marks: Dots, such as where the steps of a grid fall, (x, y) each.
        label: Its name, written at its last point; empty for none.
        thin: Whether it is one of many that stand back behind another.
    """

    side: str
    x: Sequence[float]
    y: Sequence[float]
    marks: Sequence[tuple[float, float]] = ()
    label: str = ""
    thin: bool = False


FRAME, TIME = Frame(), Across()


def chart(
    curves: Sequence[Curve],
    name: str,
    log: bool = False,
    across: Across = TIME,
    limits: tuple[float, float] | None = None,
    frame: Frame = FRAME,
    now: bool = True,
) -> str:
    """The curves over a common axis, by default k/T from 0 to 1.

    Args:
        curves: Lines and marks.
        name: What is drawn, for those who cannot see it; it is escaped by the caller.
        log: Whether the upright axis is logarithmic.
        across: The horizontal axis.
        limits: Values that the upright axis holds in any case; None: those of the curves.
        frame: The outline.
        now: Whether there is an upright line that follows the slider.
    """
    shown = [_visible(curve, log) for curve in curves]
    values = [y for points, _ in shown for _, y in points] or ([] if limits else [0.0, 1.0])
    values += [math.log10(y) if log else y for y in limits or ()]
    low, high, ticks = _axis(min(values), max(values), log)
    body = [_horizontal(tick, frame.y(tick, low, high), log, frame) for tick in ticks]
    body += [_vertical(across.share(x), f"{x:g}", frame) for x in across.ticks]
    ends = []
    for curve, both in zip(curves, shown):
        points, marks = (
            [(frame.x(across.share(x)), frame.y(y, low, high)) for x, y in one] for one in both
        )
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        kind = f"gk-{curve.side} gk-thin" if curve.thin else f"gk-{curve.side}"
        body.append(f'<polyline class="{kind}" points="{line}"/>')
        body += [f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in marks]
        if points and curve.label:
            ends.append((points[-1][1], curve))
    if now:
        bottom = frame.height - BOTTOM
        body.append(f'<line class="gk-now" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{bottom}"/>')
    return _svg(name, "".join(body) + _labels(ends, frame), frame)


def histogram(side: str, name: str) -> str:
    """Axes and the bell curve of N(0, 1); the browser fills in the bars of the slider's time."""
    xs = np.linspace(-RANGE, RANGE, 81)
    bell = np.exp(-(xs**2) / 2) / math.sqrt(2 * math.pi)
    scaled = (xs + RANGE) / (2 * RANGE)
    line = " ".join(f"{FRAME.x(x):.1f},{FRAME.y(y, 0, PEAK):.1f}" for x, y in zip(scaled, bell))
    ticks = "".join(_vertical((v + RANGE) / (2 * RANGE), f"{v:+d}" if v else "0") for v in TICKS)
    base = FRAME.y(0, 0, PEAK)
    area = (
        f'<path class="gk-area gk-{side}" data-histogram="{side}" data-left="{LEFT}" '
        f'data-width="{FRAME.span / BINS:.4f}" data-base="{base}" '
        f'data-unit="{(base - TOP) / PEAK:.3f}" data-top="{TOP}"/>'
    )
    grid = "".join(_horizontal(v, FRAME.y(v, 0, PEAK)) for v in (0, 0.2, 0.4, 0.6, 0.8))
    return _svg(name, f'{grid}{ticks}{area}<polyline class="gk-bell" points="{line}"/>')


TICKS = (-3, -2, -1, 0, 1, 2, 3)


def steps(longest: float) -> list[float]:
    """Ticks of an axis from 0 that holds this value."""
    return _axis(0.0, longest or 1.0, False)[2]


def _svg(name: str, body: str, frame: Frame = FRAME) -> str:
    wide = "" if frame == FRAME else " gk-wide"
    return (
        f'<svg class="gk-chart{wide}" viewBox="0 0 {frame.width} {frame.height}" role="img" '
        f'aria-label="{name}" data-left="{LEFT}" data-span="{frame.span}">{body}</svg>'
    )


def _horizontal(value: float, y: float, log: bool = False, frame: Frame = FRAME) -> str:
    text = _power(round(value)) if log else decimal(f"{value:g}")
    return (
        f'<line class="gk-rule" x1="{LEFT}" x2="{frame.width - frame.right}" y1="{y}" y2="{y}"/>'
        f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _vertical(share: float, text: str, frame: Frame = FRAME) -> str:
    anchor = "end" if share == 1 and frame == FRAME else "middle"
    return (
        f'<text x="{frame.x(share):.1f}" y="{frame.height - 12}" text-anchor="{anchor}">'
        f"{decimal(text)}</text>"
    )


def _labels(ends: Sequence[tuple[float, Curve]], frame: Frame) -> str:
    """The names of the curves at the right edge, moved apart where they would touch."""
    texts, free, x, bottom = [], -math.inf, frame.x(1) + 8, frame.height - BOTTOM
    ends = sorted(ends, key=lambda end: end[0])
    for left, (y, curve) in zip(range(len(ends), 0, -1), ends):
        # As low as the line above it asks, and high enough for those below it.
        free = min(max(y + 4, free + LINE), bottom - LINE * (left - 1))
        texts.append(
            f'<text class="gk-name-of gk-{curve.side}" x="{x:.1f}" y="{free:.1f}">'
            f"{html.escape(curve.label)}</text>"
        )
    return "".join(texts)


def decimal(text: str) -> str:
    """The text of a number, with a decimal comma where the page speaks Vietnamese."""
    text = text.replace("-", "−")
    if "." not in text:
        return text
    texts = dict(zip(LANGUAGES, (text, text.replace(".", ","))))
    return "".join(f'<tspan lang="{one}">{each}</tspan>' for one, each in texts.items())


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
