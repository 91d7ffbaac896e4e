"""How each kind of thing is drawn: one small function a kind, in the coordinates of `Pen`.

A function gets the pen, the RGB of the thing's colour and of its second part, and the `Setting`
that it stands in (a pine carries snow, windows shine at night, a palm on the sea has an island).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .canvas import Colour, Pen, ellipse, shade

__all__ = ["DRAW", "PALETTE", "Setting", "draw_balloon"]

PALETTE: Mapping[str, Colour] = {
    "red": (212, 44, 40),
    "orange": (244, 132, 28),
    "yellow": (250, 212, 52),
    "green": (60, 156, 70),
    "blue": (44, 100, 206),
    "purple": (130, 62, 180),
    "pink": (246, 150, 188),
    "brown": (126, 78, 44),
    "white": (248, 246, 240),
    "black": (46, 44, 54),
}
_WOOD: Colour = (112, 72, 44)
_DARK: Colour = (58, 46, 50)
_CREAM: Colour = (246, 232, 206)
_GLASS: Colour = (178, 214, 236)
_LAMP: Colour = (255, 224, 120)
_LEAF: Colour = (44, 128, 74)


@dataclass(frozen=True)
class Setting:
    """What a thing needs to know of its surroundings.

    Args:
        ground: One of `scene.GROUNDS`.
        night: Whether windows and lamps shine.
        turn: A number in [0, 1) that varies details without a label.
    """

    ground: str
    night: bool
    turn: float


def _window(pen: Pen, x: float, y: float, half: float, setting: Setting) -> None:
    pane = [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
    if setting.night:
        pen.glow(pane, _LAMP)
    else:
        pen.polygon(pane, _GLASS)


def _house(pen: Pen, wall: Colour, roof: Colour, setting: Setting) -> None:
    pen.box(0.22, 0.62, 0.36, 0.98, shade(_WOOD, -0.1))
    pen.box(-0.42, 0, 0.42, 0.5, wall)
    pen.box(0.24, 0, 0.42, 0.5, shade(wall, -0.16), line=False)
    pen.polygon([(-0.54, 0.46), (-0.32, 0.9), (0.32, 0.9), (0.54, 0.46)], roof)
    pen.polygon(
        [(-0.54, 0.46), (-0.51, 0.53), (0.51, 0.53), (0.54, 0.46)], shade(roof, -0.22), line=False
    )
    pen.box(-0.09, 0, 0.11, 0.3, _DARK)
    _window(pen, -0.26, 0.26, 0.085, setting)
    _window(pen, 0.27, 0.26, 0.085, setting)


def _castle(pen: Pen, wall: Colour, roof: Colour, setting: Setting) -> None:
    pen.box(-0.4, 0, 0.4, 0.46, wall)
    for i in range(4):
        pen.box(-0.24 + 0.13 * i, 0.46, -0.17 + 0.13 * i, 0.54, wall)
    for x in (-0.38, 0.38):
        pen.box(x - 0.14, 0, x + 0.14, 0.66, shade(wall, 0.1))
        pen.box(x + 0.05, 0, x + 0.14, 0.66, shade(wall, -0.14), line=False)
        pen.polygon([(x - 0.19, 0.64), (x, 1.04), (x + 0.19, 0.64)], roof)
        pen.polygon([(x, 1.04), (x + 0.06, 0.64), (x + 0.19, 0.64)], shade(roof, -0.2), line=False)
        _window(pen, x - 0.02, 0.44, 0.055, setting)
    pen.polygon([(-0.11, 0), *ellipse(0, 0.2, 0.11, 0.11, 180, 0), (0.11, 0)], _DARK)


def _windmill(pen: Pen, body: Colour, _: Colour, setting: Setting) -> None:
    pen.polygon([(-0.27, 0), (0.27, 0), (0.17, 0.62), (-0.17, 0.62)], body)
    pen.polygon([(0.1, 0), (0.27, 0), (0.17, 0.62), (0.08, 0.62)], shade(body, -0.16), line=False)
    pen.polygon([*ellipse(0, 0.6, 0.21, 0.17, 0, 180)], _WOOD)
    pen.box(-0.08, 0, 0.08, 0.2, _DARK)
    _window(pen, 0, 0.38, 0.055, setting)
    for quarter in range(4):
        angle = math.radians(20 + 50 * setting.turn + 90 * quarter)
        along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))

        def at(u: float, v: float, a: tuple = along, b: tuple = across) -> tuple[float, float]:
            return u * a[0] + v * b[0], 0.66 + u * a[1] + v * b[1]

        pen.polygon([at(0.1, 0.0), at(0.44, 0.0), at(0.44, 0.14), at(0.1, 0.11)], _CREAM)
        pen.polygon([at(0, -0.02), at(0.46, -0.02), at(0.46, 0.02), at(0, 0.02)], _DARK)
    pen.disc(0, 0.66, 0.045, 0.045, _DARK, line=False)


def _lighthouse(pen: Pen, stripe: Colour, _: Colour, setting: Setting) -> None:
    if setting.ground == "sea":
        rock = (124, 118, 120)
        pen.polygon([(-0.44, -0.06), (-0.3, 0.1), (0.05, 0.14), (0.34, 0.08), (0.46, -0.06)], rock)
    pale = _CREAM if stripe != PALETTE["white"] else (196, 192, 190)
    for i in range(5):
        low, high = 0.06 + 0.15 * i, 0.21 + 0.15 * i
        a, b = 0.22 - 0.1 * low, 0.22 - 0.1 * high
        pen.polygon([(-a, low), (a, low), (b, high), (-b, high)], stripe if i % 2 == 0 else pale)
    pen.polygon(
        [(0.1, 0.06), (0.214, 0.06), (0.139, 0.81), (0.06, 0.81)], shade(stripe, -0.3), line=False
    )
    pen.box(-0.19, 0.81, 0.19, 0.86, _DARK)
    lamp = [(-0.11, 0.86), (0.11, 0.86), (0.11, 1.0), (-0.11, 1.0)]
    pen.glow(lamp, (255, 236, 150) if setting.night else pen.lit((255, 236, 170)))
    pen.polygon([(-0.16, 0.99), (0, 1.16), (0.16, 0.99)], stripe)


def _tent(pen: Pen, cloth: Colour, _: Colour, setting: Setting) -> None:
    pen.polygon([(-0.56, 0), (0.0, 0.8), (0.56, 0)], cloth)
    pen.polygon([(0.0, 0.8), (0.56, 0), (0.3, 0)], shade(cloth, -0.2), line=False)
    inside = [(-0.17, 0), (0.0, 0.56), (0.14, 0)]
    if setting.night:
        pen.glow(inside, _LAMP)
    else:
        pen.polygon(inside, _DARK)
    pen.polygon([(-0.04, 0.78), (0.04, 0.78), (0.03, 0.92), (-0.03, 0.92)], _WOOD)


def _pine(pen: Pen, _: Colour, __: Colour, setting: Setting) -> None:
    pen.box(-0.07, 0, 0.07, 0.2, _WOOD)
    for low, high, half in ((0.14, 0.52, 0.38), (0.38, 0.76, 0.3), (0.62, 1.06, 0.22)):
        pen.polygon([(-half, low), (0, high), (half, low)], _LEAF)
        pen.polygon([(0, high), (half, low), (0.3 * half, low)], shade(_LEAF, -0.18), line=False)
        if setting.ground == "snow":
            cap = high - 0.4 * (high - low)
            pen.polygon(
                [(-0.4 * half, cap), (0, high + 0.01), (0.4 * half, cap), (0, cap + 0.04)],
                (250, 250, 255),
                line=False,
            )


def _tree(pen: Pen, leaves: Colour, _: Colour, setting: Setting) -> None:
    pen.polygon([(-0.09, 0), (0.09, 0), (0.06, 0.5), (-0.06, 0.5)], _WOOD)
    pen.disc(-0.2, 0.54, 0.23, 0.22, leaves)
    pen.disc(0.2, 0.54, 0.23, 0.22, shade(leaves, -0.12))
    pen.disc(0, 0.75, 0.29, 0.28, leaves)
    pen.disc(-0.09, 0.83, 0.13, 0.11, shade(leaves, 0.18), line=False)


def _palm(pen: Pen, _: Colour, __: Colour, setting: Setting) -> None:
    if setting.ground == "sea":
        pen.polygon(
            ellipse(0, -0.02, 0.44, 0.12, 0, 180) + [(-0.44, -0.06), (0.44, -0.06)],
            (232, 204, 140),
        )
    bend = 0.2 * (1 if setting.turn < 0.5 else -1)
    left = [(-0.07, 0), (-0.05 + 0.4 * bend, 0.4), (-0.04 + bend, 0.76)]
    right = [(0.04 + bend, 0.76), (0.06 + 0.4 * bend, 0.4), (0.08, 0)]
    pen.polygon(left + right, (150, 106, 64))
    green = (62, 160, 84)
    for angle in (-30, 15, 55, 125, 165, 210):
        a = math.radians(angle)
        tip = (bend + 0.42 * math.cos(a), 0.77 + 0.27 * math.sin(a) - 0.06)
        mid = (bend + 0.22 * math.cos(a), 0.77 + 0.24 * math.sin(a) + 0.08)
        low = (bend + 0.2 * math.cos(a), 0.77 + 0.16 * math.sin(a) - 0.02)
        pen.polygon([(bend, 0.79), mid, tip, low], green if angle < 90 else shade(green, -0.14))
    pen.disc(bend - 0.03, 0.72, 0.05, 0.05, (110, 66, 38), line=False)
    pen.disc(bend + 0.05, 0.73, 0.05, 0.05, (126, 78, 44), line=False)


def _arm(pen: Pen, side: float, low: float, high: float, green: Colour) -> None:
    pen.box(min(0, 0.3 * side), low, max(0, 0.3 * side), low + 0.13, green)
    pen.polygon(
        [
            (side * 0.2, low),
            *ellipse(side * 0.28, high, 0.08, 0.08, 180, 0)[:: int(side)],
            (side * 0.36, low),
        ],
        green,
    )


def _cactus(pen: Pen, _: Colour, __: Colour, setting: Setting) -> None:
    green = (72, 150, 92)
    flip = 1 if setting.turn < 0.5 else -1
    _arm(pen, -flip, 0.34, 0.62, green)
    _arm(pen, flip, 0.24, 0.52, green)
    pen.polygon([(-0.13, 0), *ellipse(0, 0.82, 0.13, 0.13, 180, 0), (0.13, 0)], green)
    pen.polygon(
        [(0.04, 0), (0.04, 0.9), *ellipse(0, 0.82, 0.13, 0.13, 60, 0), (0.13, 0)],
        shade(green, -0.16),
        line=False,
    )
    pen.disc(0, 0.97, 0.09, 0.06, (240, 110, 150))


def _flower(pen: Pen, petal: Colour, _: Colour, setting: Setting) -> None:
    stem = (54, 130, 58)
    pen.box(-0.04, 0, 0.04, 0.6, stem)
    pen.polygon([(0, 0.1), (-0.3, 0.36), (-0.26, 0.14)], stem)
    pen.polygon([(0, 0.16), (0.3, 0.4), (0.26, 0.18)], shade(stem, -0.14))
    for i in range(6):
        a = math.radians(60 * i + 30)
        pen.disc(
            0.22 * math.cos(a),
            0.7 + 0.22 * math.sin(a),
            0.15,
            0.15,
            petal if i % 2 else shade(petal, -0.1),
        )
    middle = PALETTE["orange"] if petal == PALETTE["yellow"] else (252, 220, 90)
    pen.disc(0, 0.7, 0.13, 0.13, middle)


def _mushroom(pen: Pen, cap: Colour, _: Colour, setting: Setting) -> None:
    pen.polygon([(-0.17, 0), (0.17, 0), (0.12, 0.46), (-0.12, 0.46)], _CREAM)
    pen.polygon(
        [(0.05, 0), (0.17, 0), (0.12, 0.46), (0.05, 0.46)], shade(_CREAM, -0.14), line=False
    )
    pen.polygon([(-0.5, 0.42), *ellipse(0, 0.44, 0.5, 0.46, 180, 0), (0.5, 0.42)], cap)
    pen.polygon(
        [(-0.5, 0.42), (-0.48, 0.5), (0.48, 0.5), (0.5, 0.42)], shade(cap, -0.2), line=False
    )
    dot = (250, 246, 236) if cap != PALETTE["white"] else (206, 170, 140)
    for x, y, r in ((-0.26, 0.62, 0.075), (0.04, 0.74, 0.09), (0.3, 0.6, 0.07)):
        pen.disc(x, y, r, r, dot, line=False)


def _snowman(pen: Pen, _: Colour, scarf: Colour, setting: Setting) -> None:
    snow, dim = (250, 250, 254), (206, 216, 236)
    for y, r in ((0.24, 0.28), (0.58, 0.21), (0.84, 0.16)):
        pen.disc(0, y, r, r * 0.98, dim)
        pen.disc(-0.04, y + 0.02, r * 0.82, r * 0.84, snow, line=False)
    pen.box(-0.17, 0.66, 0.17, 0.76, scarf)
    pen.polygon([(0.06, 0.7), (0.18, 0.7), (0.22, 0.4), (0.1, 0.4)], shade(scarf, -0.15))
    pen.box(-0.2, 0.95, 0.2, 0.99, _DARK)
    pen.box(-0.12, 0.97, 0.12, 1.14, _DARK)
    for x in (-0.08, 0.05):
        pen.disc(x, 0.89, 0.022, 0.022, _DARK, line=False)
    pen.polygon([(-0.02, 0.86), (-0.02, 0.81), (0.16, 0.82)], PALETTE["orange"])


def _boat(pen: Pen, hull: Colour, sail: Colour, setting: Setting) -> None:
    pen.box(-0.03, 0.2, 0.03, 1.06, _WOOD)
    pen.polygon([(0.06, 0.3), (0.06, 1.02), (0.5, 0.34)], sail)
    pen.polygon([(-0.06, 0.32), (-0.06, 0.9), (-0.36, 0.36)], shade(sail, -0.14))
    pen.polygon([(-0.54, 0.24), (0.56, 0.24), (0.36, -0.04), (-0.36, -0.04)], hull)
    pen.polygon(
        [(-0.44, 0.08), (0.45, 0.08), (0.36, -0.04), (-0.36, -0.04)], shade(hull, -0.2), line=False
    )


def _whale(pen: Pen, _: Colour, __: Colour, setting: Setting) -> None:
    flip = 1 if setting.turn < 0.5 else -1
    skin = (84, 112, 150)

    def turned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(flip * x, y) for x, y in points]

    pen.polygon(
        turned(
            [
                (0.34, 0.1),
                (0.5, 0.5),
                (0.32, 0.62),
                (0.56, 0.6),
                (0.74, 0.72),
                (0.64, 0.48),
                (0.6, 0.0),
            ]
        ),
        skin,
    )
    pen.polygon(turned([(-0.55, 0), *ellipse(-0.05, 0.12, 0.52, 0.38, 180, 0), (0.5, 0)]), skin)
    pen.polygon(
        turned([(-0.55, 0), (-0.52, 0.14), (0.1, 0.1), (0.3, 0)]), (214, 224, 234), line=False
    )
    pen.disc(flip * -0.3, 0.26, 0.035, 0.04, _DARK, line=False)
    drop = (206, 232, 250)
    for lean in (-0.12, 0.12):
        pen.polygon(
            [(flip * -0.1, 0.5), (flip * -0.1 + lean, 0.82), (flip * -0.1 + 1.7 * lean, 0.7)], drop
        )


DRAW: Mapping[str, Callable[[Pen, Colour, Colour, Setting], None]] = {
    "house": _house,
    "castle": _castle,
    "windmill": _windmill,
    "lighthouse": _lighthouse,
    "tent": _tent,
    "pine": _pine,
    "tree": _tree,
    "palm": _palm,
    "cactus": _cactus,
    "flower": _flower,
    "mushroom": _mushroom,
    "snowman": _snowman,
    "boat": _boat,
    "whale": _whale,
}
"""The drawing of every kind in `scene.KINDS`."""


def draw_balloon(pen: Pen, cloth: Colour) -> None:
    """A hot-air balloon; the origin is below its basket."""
    pen.polygon([(-0.2, 0.34), (-0.08, 0.14), (0.08, 0.14), (0.2, 0.34)], shade(_WOOD, 0.2))
    pen.polygon([*ellipse(0, 0.66, 0.36, 0.36, 200, -20)[::-1], (0.14, 0.3), (-0.14, 0.3)], cloth)
    pen.polygon(ellipse(0, 0.66, 0.12, 0.36), shade(cloth, 0.22), line=False)
    pen.polygon(
        [
            *ellipse(0, 0.66, 0.36, 0.36, 60, -60)[::-1],
            *ellipse(0, 0.66, 0.2, 0.36, -60, 60)[::-1],
        ],
        shade(cloth, -0.16),
        line=False,
    )
    pen.box(-0.1, 0, 0.1, 0.16, _WOOD)
