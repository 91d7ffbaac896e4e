"""From a scene to a page: the sky, the land, the weather, then the things.

    page = compose(scene);  page.render(128), page.outline(128), page.semantic_map(128)

The page is written back to front: sky, light, rainbow, clouds, balloon, mountains, land, weather,
and the things from the farthest to the nearest. The sky is divided into five columns and each
thing in the sky gets its own, so that everything with a label can be seen. One light falls on
everything: colour · multiply + add, by the time of day; lamps and windows shine by themselves.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .canvas import Colour, Page, Pen, Shape, ellipse, mix, shade
from .scene import SLOTS, Scene, Thing
from .things import DRAW, PALETTE, Setting, draw_balloon

__all__ = ["compose"]


@dataclass(frozen=True)
class _Light:
    """Sky colours and the light of a time of day (see the module's formula)."""

    top: Colour
    bottom: Colour
    multiply: tuple[float, float, float]
    add: tuple[float, float, float]


_LIGHT: Mapping[str, _Light] = {
    "day": _Light((92, 170, 238), (206, 234, 252), (1.0, 1.0, 1.0), (0, 0, 0)),
    "dawn": _Light((158, 152, 214), (252, 214, 206), (0.92, 0.86, 0.9), (12, 4, 14)),
    "sunset": _Light((96, 62, 130), (252, 148, 84), (0.92, 0.76, 0.68), (16, 4, 6)),
    "night": _Light((12, 16, 50), (44, 54, 108), (0.68, 0.68, 0.76), (4, 8, 24)),
}
_LAND: Mapping[str, tuple[Colour, Colour]] = {
    "meadow": ((142, 200, 98), (104, 172, 78)),
    "desert": ((240, 212, 150), (224, 186, 114)),
    "snow": ((222, 230, 244), (244, 248, 253)),
    "sea": ((70, 146, 206), (42, 108, 178)),
}
"""Far and near colour of each ground."""
_RAINBOW = ("red", "orange", "yellow", "green", "blue", "purple")
_COLUMNS = (0.1, 0.3, 0.5, 0.7, 0.9)
_SLOT_X = dict(zip(SLOTS, (0.2, 0.5, 0.8), strict=True))
_HEIGHT = {"small": (0.19, 0.22), "large": (0.31, 0.34)}
_GREY_SKY: Colour = (150, 158, 172)


def compose(scene: Scene) -> Page:
    """The page of this scene: the same shapes for the same scene, always."""
    rng = random.Random(f"details {scene.seed}")
    light = _LIGHT[scene.time]
    top, bottom = light.top, light.bottom
    if scene.weather != "clear":
        grey = _tint(_GREY_SKY, light)
        top, bottom = mix(top, grey, 0.6), mix(bottom, grey, 0.45)
    page = Page(top, bottom, horizon=0.66)
    _sky(page, scene, light, rng)
    _mountains(page, scene, light, rng)
    _land(page, scene, light, rng)
    _weather(page, scene, light, rng)
    _things(page, scene, light, rng)
    return page


def _tint(colour: Colour, light: _Light) -> Colour:
    return Pen(Page(colour, colour, 1), None, 0, 0, 1, light.multiply, light.add).lit(colour)


def _pen(page: Page, part: str | None, x: float, y: float, scale: float, light: _Light) -> Pen:
    return Pen(page, part, x, y, scale, light.multiply, light.add)


def _sky(page: Page, scene: Scene, light: _Light, rng: random.Random) -> None:
    columns = list(_COLUMNS)
    rng.shuffle(columns)
    if scene.time == "night" and scene.weather == "clear":
        _stars(page, rng)
    if scene.rainbow:
        _rainbow(page, rng)
    if scene.light != "none":
        _light(page, scene, columns.pop(), rng)
    for _ in range(scene.clouds):
        _cloud(page, scene, light, columns.pop(), rng)
    if scene.balloon:
        x = min(0.88, max(0.12, columns.pop() + rng.uniform(-0.02, 0.02)))
        pen = _pen(page, "balloon", x, rng.uniform(0.26, 0.36), 0.24, light)
        draw_balloon(pen, PALETTE[scene.balloon])


def _stars(page: Page, rng: random.Random) -> None:
    for _ in range(rng.randint(14, 20)):
        x, y, r = rng.uniform(0.02, 0.98), rng.uniform(0.02, 0.5), rng.uniform(0.006, 0.01)
        page.shapes.append(Shape(tuple(ellipse(x, y, r, r)), (244, 240, 214), None, line=False))


def _rainbow(page: Page, rng: random.Random) -> None:
    x, radius = rng.uniform(0.4, 0.6), rng.uniform(0.46, 0.54)
    sky = mix(page.top, page.bottom, 0.6)
    for i, name in enumerate(_RAINBOW):
        outer, inner = radius - 0.02 * i, radius - 0.02 * (i + 1)
        ring = ellipse(x, 0.7, outer, outer, 180, 360) + ellipse(x, 0.7, inner, inner, 360, 180)
        colour = mix(sky, PALETTE[name], 0.62)
        page.shapes.append(Shape(tuple(ring), colour, "rainbow", line=i == 0))


def _light(page: Page, scene: Scene, x: float, rng: random.Random) -> None:
    y = rng.uniform(0.27, 0.35) if scene.time in ("dawn", "sunset") else rng.uniform(0.13, 0.22)
    radius = 0.075
    colour = {"day": (255, 226, 92), "dawn": (255, 220, 150), "sunset": (255, 196, 84)}.get(
        scene.time, (246, 240, 204)
    )
    disc = ellipse(x, y, radius, radius)
    if scene.light == "crescent moon":
        side = rng.choice((-1, 1))
        start = 90 if side > 0 else -90
        inner = ellipse(
            x + side * 0.55 * radius, y, 0.8 * radius, 0.84 * radius, start + 25, start + 155
        )
        disc = ellipse(x, y, radius, radius, start - 33, start + 213) + inner[::-1]
    elif scene.light == "sun":
        halo = mix(colour, mix(page.top, page.bottom, y / page.horizon), 0.62)
        page.shapes.append(
            Shape(tuple(ellipse(x, y, 1.4 * radius, 1.4 * radius)), halo, None, False)
        )
    page.shapes.append(Shape(tuple(disc), colour, "light"))
    if scene.light == "full moon":
        for dx, dy, r in ((-0.3, 0.2, 0.2), (0.3, -0.25, 0.26), (0.25, 0.4, 0.14)):
            spot = ellipse(x + dx * radius, y + dy * radius, r * radius, r * radius)
            page.shapes.append(Shape(tuple(spot), shade(colour, -0.1), "light", line=False))


def _cloud(page: Page, scene: Scene, light: _Light, x: float, rng: random.Random) -> None:
    white = {"clear": (252, 252, 255), "rain": (112, 118, 136), "snowfall": (226, 230, 240)}
    colour = mix(_tint(white[scene.weather], light), page.bottom, 0.12)
    x += rng.uniform(-0.015, 0.015)
    y, w = rng.uniform(0.09, 0.24), rng.uniform(0.075, 0.088)
    under = ellipse(x, y + 0.028, w, 0.024)
    page.shapes.append(Shape(tuple(under), shade(colour, -0.1), "cloud"))
    for dx, dy, r in ((-0.5, 0.012, 0.42), (0.5, 0.01, 0.44), (0.02, -0.012, 0.6)):
        puff = ellipse(x + dx * w, y + dy, r * w, 0.85 * r * w)
        page.shapes.append(Shape(tuple(puff), colour, "cloud"))


def _mountains(page: Page, scene: Scene, light: _Light, rng: random.Random) -> None:
    count = rng.randint(1, 3)
    places = rng.sample((0.12, 0.34, 0.5, 0.66, 0.88), count)
    if scene.mountains == "none":
        return
    for x in sorted(places, key=lambda place: abs(place - 0.5), reverse=True):
        height, half = rng.uniform(0.21, 0.29), rng.uniform(0.21, 0.28)
        rock = rng.choice(((128, 118, 132), (116, 122, 140), (140, 122, 118)))
        pen = _pen(page, "mountain", x, 0.68, 1.0, light)
        lean = rng.uniform(-0.03, 0.03)
        pen.polygon([(-half, 0), (lean, height), (half, 0)], rock)
        pen.polygon([(lean, height), (half, 0), (0.25 * half, 0)], shade(rock, -0.14), line=False)
        if scene.mountains == "snowy":
            _snow_cap(pen, half, height, lean)


def _snow_cap(pen: Pen, half: float, height: float, lean: float) -> None:
    def at(share: float, side: float) -> tuple[float, float]:
        """The point `share` of the way down, `side` (-1 to 1) of the way across."""
        return lean + side * share * (half + abs(lean)) * 0.98, height * (1 - share)

    zigzag = [at(0.4, -1), at(0.3, -0.45), at(0.46, -0.1), at(0.32, 0.3), at(0.4, 0.95)]
    pen.polygon([(lean, height), *zigzag], (248, 250, 255))


def _land(page: Page, scene: Scene, light: _Light, rng: random.Random) -> None:
    far, near = _LAND[scene.ground]
    pen = _pen(page, scene.ground, 0, 1, 1.0, light)
    if scene.ground == "sea":
        bands = [(0.34, far), (0.22, mix(far, near, 0.5)), (0.1, near)]
        swell = 0.006
    else:
        bands = [(0.36, far), (0.25, near)]
        swell = 0.03
    for level, colour in bands:
        phase, waves = rng.uniform(0, 2 * math.pi), rng.uniform(0.8, 1.6)
        crest = [
            (x / 16, level + swell * math.sin(phase + waves * 2 * math.pi * x / 16))
            for x in range(-1, 18)
        ]
        # Beyond the page, so that a line drawing has no frame.
        pen.polygon([(-0.1, -0.1), *crest, (1.1, -0.1)], colour)
    if scene.ground == "sea":
        for _ in range(5):
            x, y = rng.uniform(0.06, 0.94), rng.uniform(0.04, 0.28)
            pen.polygon(
                [(x - 0.05, y), (x, y + 0.013), (x + 0.05, y), (x, y - 0.002)],
                shade(far, 0.3),
                False,
            )


def _weather(page: Page, scene: Scene, light: _Light, rng: random.Random) -> None:
    if scene.weather == "rain":
        drop = mix(_tint((214, 232, 250), light), (255, 255, 255), 0.1)
        for x, y in _scattered(rng, 26):
            points = ((x, y), (x + 0.012, y), (x - 0.010, y + 0.062), (x - 0.022, y + 0.062))
            page.shapes.append(Shape(points, drop, None, line=False))
    elif scene.weather == "snowfall":
        for x, y in _scattered(rng, 28):
            r = rng.uniform(0.009, 0.013)
            page.shapes.append(
                Shape(tuple(ellipse(x, y, r, r)), (250, 250, 255), None, line=False)
            )


def _scattered(rng: random.Random, count: int) -> Sequence[tuple[float, float]]:
    """Points spread evenly but irregularly: one in each cell of a grid, row by row shifted."""
    columns = 6
    rows = math.ceil(count / columns)
    cells = [(c, r) for r in range(rows) for c in range(columns)][:count]
    return [
        (
            (c + 0.5 * (r % 2) + rng.uniform(0.1, 0.6)) / columns,
            (r + rng.uniform(0.1, 0.8)) / rows * 0.94,
        )
        for c, r in cells
    ]


def _things(page: Page, scene: Scene, light: _Light, rng: random.Random) -> None:
    placed = []
    for slot in SLOTS:  # one draw a slot, used or not: details never depend on other slots
        place = rng.uniform(-0.02, 0.02), rng.random(), rng.random(), rng.random()
        placed += [(place, thing) for thing in scene.things if thing.slot == slot]
    for (dx, near, grow, turn), thing in sorted(placed, key=lambda item: item[0][1]):
        low, high = _HEIGHT[thing.size]
        scale = low + (high - low) * grow
        y = 0.79 + 0.12 * near
        _thing(page, scene, light, thing, (_SLOT_X[thing.slot] + dx, y, scale, turn))


def _thing(
    page: Page, scene: Scene, light: _Light, thing: Thing, place: tuple[float, float, float, float]
) -> None:
    x, y, scale, turn = place
    pen = _pen(page, thing.kind, x, y, scale, light)
    ground = _LAND[scene.ground][1]
    shadow = shade(ground, 0.22) if scene.ground == "sea" else shade(ground, -0.16)
    under = ellipse(x + 0.03 * scale, y + 0.01, 0.5 * scale, 0.07 * scale)
    page.shapes.append(Shape(tuple(under), _tint(shadow, light), None, line=False))
    setting = Setting(scene.ground, scene.time == "night", turn)
    white = PALETTE["white"]
    DRAW[thing.kind](
        pen,
        PALETTE.get(thing.colour or "", white),
        PALETTE.get(thing.second or "", white),
        setting,
    )
