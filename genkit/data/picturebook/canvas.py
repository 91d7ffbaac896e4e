"""A display list of flat shapes, and the three ways to look at it.

A page is a list of `Shape`s in painter's order, back to front, in page coordinates: x to the right
and y down, both from 0 to 1, so that a page has no resolution until it is drawn. One list gives

* the picture: every shape filled with its colour, supersampled and averaged down,
* the outline: every shape filled white with a black contour, so that what is hidden stays hidden,
* the semantic map: every shape filled with the index of its part, without smoothing.

`Pen` writes shapes in the coordinates of one thing: the origin on the ground below its middle,
y up, its height about 1.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from PIL import Image, ImageDraw

__all__ = [
    "LAND",
    "PARTS",
    "PART_COLOURS",
    "Colour",
    "Page",
    "Pen",
    "Point",
    "Shape",
    "coloured",
    "ellipse",
    "mix",
    "shade",
]

Point = tuple[float, float]
Colour = tuple[int, int, int]

PARTS = (
    "sky", "light", "cloud", "rainbow", "balloon", "mountain", "meadow", "desert", "snow", "sea",
    "house", "castle", "windmill", "lighthouse", "tent", "pine", "tree", "palm", "cactus",
    "flower", "mushroom", "snowman", "boat", "whale",
)  # fmt: skip
"""Classes of the semantic map; the index is the pixel value."""
LAND = frozenset({"mountain", "meadow", "desert", "snow", "sea"})
"""Those on which things stand; the others are things, on the ground and in the sky."""

PART_COLOURS: Mapping[str, Colour] = MappingProxyType(
    {
        "sky": (132, 196, 244),
        "light": (255, 214, 64),
        "cloud": (190, 192, 204),
        "rainbow": (243, 140, 205),
        "balloon": (226, 48, 48),
        "mountain": (142, 132, 128),
        "meadow": (140, 203, 96),
        "desert": (236, 206, 140),
        "snow": (216, 228, 252),
        "sea": (42, 110, 190),
        "house": (196, 104, 72),
        "castle": (150, 128, 184),
        "windmill": (250, 176, 140),
        "lighthouse": (255, 128, 118),
        "tent": (246, 146, 30),
        "pine": (18, 84, 58),
        "tree": (52, 150, 62),
        "palm": (150, 160, 36),
        "cactus": (60, 186, 146),
        "flower": (220, 50, 150),
        "mushroom": (160, 28, 56),
        "snowman": (150, 232, 222),
        "boat": (112, 66, 34),
        "whale": (62, 68, 132),
    }
)
"""In which a map is shown and painted: natural where that leaves no two alike."""

SUPERSAMPLE = 3


@dataclass(frozen=True)
class Shape:
    """A filled polygon.

    Args:
        points: Corners in page coordinates.
        colour: RGB, 0 to 255.
        part: One of `PARTS`, or None for weather and stars, which belong to what is behind them.
        line: Whether a line drawing shows its contour (shadows and highlights have none).
    """

    points: tuple[Point, ...]
    colour: Colour
    part: str | None
    line: bool = True


@dataclass
class Page:
    """A display list, with the sky's gradient behind it.

    Args:
        top: Colour of the sky at y = 0.
        bottom: Colour of the sky at y = `horizon`.
        horizon: Height of the horizon, in page coordinates.
    """

    top: Colour
    bottom: Colour
    horizon: float
    shapes: list[Shape] = field(default_factory=list)

    def render(self, size: int) -> Image.Image:
        """The picture, RGB, `size` × `size` pixels."""
        side = size * SUPERSAMPLE
        image = self._sky(side)
        draw = ImageDraw.Draw(image)
        for shape in self.shapes:
            draw.polygon(_pixels(shape.points, side), fill=shape.colour)
        return image.reduce(SUPERSAMPLE)

    def outline(self, size: int, of: Collection[str] = PARTS) -> Image.Image:
        """The line drawing: black on white, grey levels, `size` × `size` pixels.

        Args:
            size: Side in pixels.
            of: The parts that are drawn, as if there were no others.
        """
        side = size * SUPERSAMPLE
        image = Image.new("L", (side, side), 255)
        draw = ImageDraw.Draw(image)
        width = max(SUPERSAMPLE, round(side / 85))
        for shape in self.shapes:
            if shape.line and shape.part in of:
                draw.polygon(_pixels(shape.points, side), fill=255, outline=0, width=width)
        return image.reduce(SUPERSAMPLE)

    def semantic_map(self, size: int) -> Image.Image:
        """The part at every pixel as an index into `PARTS`, mode "L", `size` × `size` pixels."""
        image = Image.new("L", (size, size), PARTS.index("sky"))
        draw = ImageDraw.Draw(image)
        for shape in self.shapes:
            if shape.part is not None:
                draw.polygon(_pixels(shape.points, size), fill=PARTS.index(shape.part))
        return image

    def _sky(self, side: int) -> Image.Image:
        column = Image.new("RGB", (1, side))
        end = self.horizon * side
        column.putdata([mix(self.top, self.bottom, min(1.0, y / end)) for y in range(side)])
        return column.resize((side, side), Image.Resampling.NEAREST)


def _pixels(points: Iterable[Point], side: int) -> list[Point]:
    # Pillow counts pixel centres as integers: half a pixel less than a continuous coordinate.
    return [(x * side - 0.5, y * side - 0.5) for x, y in points]


def coloured(parts: Image.Image) -> Image.Image:
    """A semantic map, mode "L", in the colours of its parts; a value that is no part is white."""
    shown, palette = parts.copy(), [PART_COLOURS[part] for part in PARTS]
    palette += [(255, 255, 255)] * (256 - len(palette))
    shown.putpalette([channel for colour in palette for channel in colour])
    return shown.convert("RGB")


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour that lies `share` (0 to 1) of the way from a to b."""
    red, green, blue = (round(u + (v - u) * share) for u, v in zip(a, b, strict=True))
    return red, green, blue


def shade(colour: Colour, by: float) -> Colour:
    """A lighter (by > 0) or darker (by < 0) colour; ±1 is white or black."""
    return mix(colour, (255, 255, 255) if by > 0 else (0, 0, 0), abs(by))


def ellipse(
    x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360
) -> list[Point]:
    """Points on an ellipse from angle `start` to `stop`, in degrees, counted towards +y."""
    count = max(6, round(abs(stop - start) / 11))
    angles = (math.radians(start + (stop - start) * i / count) for i in range(count + 1))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


@dataclass(frozen=True)
class Pen:
    """Draws the shapes of one thing on a page.

    Args:
        page: Where the shapes go.
        part: Their class in the semantic map.
        x, y: The point of the page that is the thing's origin.
        scale: Height of the thing, in page coordinates.
        multiply, add: The light that falls on it: colour · multiply + add, channel by channel.
    """

    page: Page
    part: str | None
    x: float
    y: float
    scale: float
    multiply: tuple[float, float, float]
    add: tuple[float, float, float]

    def lit(self, colour: Colour) -> Colour:
        """The colour as it looks in this light."""
        channels = zip(colour, self.multiply, self.add, strict=True)
        red, green, blue = (min(255, round(c * m + a)) for c, m, a in channels)
        return red, green, blue

    def polygon(self, points: Sequence[Point], colour: Colour, line: bool = True) -> None:
        """A polygon in this light."""
        self.glow(points, self.lit(colour), line)

    def glow(self, points: Sequence[Point], colour: Colour, line: bool = True) -> None:
        """A polygon that shines by itself: its colour is used as it is."""
        place = tuple((self.x + u * self.scale, self.y - v * self.scale) for u, v in points)
        self.page.shapes.append(Shape(place, colour, self.part, line))

    def box(
        self, left: float, low: float, right: float, high: float, colour: Colour, line: bool = True
    ) -> None:
        """A rectangle."""
        self.polygon([(left, low), (right, low), (right, high), (left, high)], colour, line)

    def disc(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, line: bool = True
    ) -> None:
        """An ellipse."""
        self.polygon(ellipse(x, y, rx, ry), colour, line)
