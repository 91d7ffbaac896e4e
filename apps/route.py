"""The way of each model on one slider: what is seen at every place of it, and what is said.

The slider has 2 n + 1 places: 0 is the picture, n the far end, 2 n the picture that comes back.
The diffusion model has a state at every one of them. The VAE is at the picture, then in its cloud,
then back; the HVAE gives up its levels from the finest to the top and takes them up again.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apps.cards import table_file
from apps.mosaic import Tiles, colours, diverging, heat, mosaic, squares
from apps.section import formula
from apps.small import SIDE
from apps.text import Pair, both, number
from apps.ways import Found, Path, Road, apart, psnr

__all__ = ["COLUMNS", "ROWS", "WHITE", "WIDTH", "decibels", "routes", "table"]

ROWS = ("vae", "hvae", "noise", "flow")
COLUMNS = ("state", "look", "off")
"""Pictures of a row: where it is, what that stands for, what differs."""
WHITE = 64
"""Grey levels that are white in the maps of what differs."""
WIDTH = 12
"""Pictures in a row of a sheet."""


@dataclass(frozen=True)
class Stop:
    """A place on a way.

    Args:
        state: A picture, as 8 bits.
        look: The picture that it stands for.
        off: What differs, root of the mean square over the colours, in [−1, 1].
        said: The line about it, as HTML in both languages.
        psnr: Of `look`, in dB.
    """

    state: Tiles
    look: Float[Tensor, "3 H W"]
    off: Float[Tensor, "H W"]
    said: str
    psnr: float


@dataclass(frozen=True)
class Way:
    """The stops of a model, and which of them is seen at each place of the slider."""

    stops: list[Stop]
    places: list[int]


def ways(found: Found, x: Float[Tensor, "3 H W"], steps: int) -> dict[str, Way]:
    """The ways that are known."""
    known = {"vae": _vae(found, x, steps), "hvae": _hvae(found, x, steps)}
    if found.road is not None:
        known |= {
            "noise": _diffusion(found.road, found.road.noisy, x),
            "flow": _diffusion(found.road, found.road.flow, x),
        }
    return known


def routes(found: Found, x: Float[Tensor, "3 H W"], steps: int) -> dict[str, Any]:
    """The ways for the browser: a sheet for each, and which picture stands where."""
    answer = {}
    for name, way in ways(found, x, steps).items():
        sheet = [tiles for stop in way.stops for tiles in _pictures(stop)]
        answer[name] = {
            "sheet": mosaic(sheet, WIDTH, gap=0),
            "places": way.places,
            "said": [stop.said for stop in way.stops],
        }
    return answer


def table(found: Found, x: Float[Tensor, "3 H W"], steps: int) -> dict[str, str]:
    """The file of all ways: PSNR in dB of what each place stands for."""
    known, road = ways(found, x, steps), found.road
    lines = []
    for i in range(2 * steps + 1):
        up = min(i, 2 * steps - i)
        times = (road.times[up], road.alpha[up], road.sigma[up]) if road else ("", "", "")
        values = [known[r].stops[known[r].places[i]].psnr if r in known else "" for r in ROWS]
        lines.append((i, *times, *values))
    columns = ",".join(("place,t,alpha,sigma", *(f"psnr_{row}" for row in ROWS)))
    return table_file("compare-way.csv", columns, lines)


def _vae(found: Found, x: Float[Tensor, "3 H W"], steps: int) -> Way:
    """The picture, the cloud, the picture of its middle."""
    cloud = found.cloud
    codes = squares(diverging(cloud.mean / 3), SIDE)
    of = str(cloud.mean.numel())
    inside = both("ways.at.cloud", of=of, psnr=decibels(psnr(cloud.back, x)))
    stops = [
        _start(x),
        Stop(codes, cloud.back, cloud.spread, inside, psnr(cloud.back, x)),
        _end(cloud.back, x, both("ways.at.back", psnr=decibels(psnr(cloud.back, x)))),
    ]
    places = [0 if 2 * i < steps else 1 if 2 * i <= 3 * steps else 2 for i in range(2 * steps + 1)]
    return Way(stops, places)


def _hvae(found: Found, x: Float[Tensor, "3 H W"], steps: int) -> Way:
    """The picture, then what pictures are like that share k levels with it."""
    ladder = found.ladder
    of, stops = len(ladder.names), [_start(x)]
    for k, drawn in enumerate(ladder.kept):
        mean = drawn.mean(dim=0)
        near = psnr(mean, x)
        values = {"k": str(k), "of": str(of), "psnr": decibels(near)}
        if k == 0:
            said = both("ways.at.none", **values)
        else:
            said = both("ways.at.levels", level=ladder.names[k - 1], **values)
        state = _tile(drawn[0])
        off = apart(drawn) if k < of else _rms(mean - x)
        stops.append(Stop(state, mean, off, said, near))
    share = (abs(i - steps) / steps for i in range(2 * steps + 1))
    places = [1 + round(of * one) for one in share]
    return Way(stops, [0, *places[1:]])


def _diffusion(road: Road, path: Path, x: Float[Tensor, "3 H W"]) -> Way:
    stops, steps = [], len(road.times) - 1
    for i, (state, look) in enumerate(zip(path.states, path.looks)):
        up = min(i, 2 * steps - i)
        power = max(1.0, math.hypot(road.alpha[up], road.sigma[up]))
        near = psnr(look, x)
        values = {
            "t": number(road.times[up] if up else 0.0, 2),
            "ratio": number(road.sigma[up] / road.alpha[up], 2),
            "psnr": decibels(near),
        }
        said = formula(both("ways.at.time", **values))
        stops.append(Stop(_tile(state / power), look, _rms(look - x), said, near))
    return Way(stops, list(range(2 * steps + 1)))


def _start(x: Float[Tensor, "3 H W"]) -> Stop:
    return Stop(_tile(x), x, torch.zeros_like(x[0]), both("ways.at.picture"), math.inf)


def _end(look: Float[Tensor, "3 H W"], x: Float[Tensor, "3 H W"], said: str) -> Stop:
    return Stop(_tile(look), look, _rms(look - x), said, psnr(look, x))


def _pictures(stop: Stop) -> tuple[Tiles, Tiles, Tiles]:
    """Its three pictures, in the order of `COLUMNS`."""
    return stop.state, _tile(stop.look), heat(stop.off[None] * 127.5 / WHITE)


def _tile(x: Float[Tensor, "3 H W"]) -> Tiles:
    return colours(x[None])


def _rms(x: Float[Tensor, "3 H W"]) -> Float[Tensor, "H W"]:
    return x.square().mean(dim=0).sqrt()


def decibels(value: float) -> Pair:
    """Of a ratio, with one decimal place."""
    if math.isinf(value):
        return Pair("∞", "∞")
    text = f"{value:.1f}"
    return Pair(text, text.replace(".", ","))
