"""What is inside: the maps of the VAE's cloud and draws from it, and the levels of the HVAE."""

import math
from inspect import signature

import torch
from jaxtyping import Float
from torch import Tensor

from apps.cards import table_file
from apps.mosaic import colours, diverging, heat, mosaic
from apps.route import WHITE, decibels
from apps.text import Pair, both, number, spans
from apps.ways import FEW, Cloud, Ladder, apart, psnr
from genkit.models.hvae import HVAE

__all__ = [
    "LEVELS",
    "LIVE",
    "cloud_file",
    "cloud_slots",
    "draws_file",
    "ladder_file",
    "ladder_rows",
    "ladder_slots",
]

LEVELS = sum(signature(HVAE).parameters["counts"].default)
"""Levels of the embedded HVAE, whose places are there before it has answered."""
LIVE = ("numbers", "nats", "bits", "sigma", "spread")
"""Numbers of the cloud in its explanation."""
COLUMNS = 8
"""Maps and draws in a row."""


def cloud_slots(cloud: Cloud, x: Float[Tensor, "3 H W"]) -> dict[str, str]:
    """The pictures and the sentence; maps in the order of their KL, the largest first."""
    nats = cloud.nats.flatten(1).sum(dim=1)
    order = nats.argsort(descending=True)
    spread = heat(cloud.spread[None] * 127.5 / WHITE)
    missing = heat((cloud.back - x).square().mean(dim=0, keepdim=True).sqrt() * 127.5 / WHITE)
    total, bits = float(nats.sum()), float(nats.sum()) / math.log(2)
    half = int((nats[order].cumsum(0) < total / 2).sum()) + 1
    values = {
        "numbers": str(cloud.mean.numel()),
        "nats": number(total, 4),
        "bits": number(bits, 4),
        "half": str(half),
        "channels": str(len(nats)),
        "sigma": number(float(cloud.std.median()), 2),
        "spread": number(float(cloud.spread.square().mean().sqrt()) * 127.5, 2),
        "psnr": decibels(psnr(cloud.back, x)),
    }
    live = {f"cloud-{name}": _spans(values[name]) for name in LIVE}
    return live | {
        "mu": _image(mosaic([diverging(cloud.mean[order] / 3)], COLUMNS, 2, 4)),
        "sigma": _image(mosaic([heat(cloud.std[order])], COLUMNS, 2, 4)),
        "draws": _image(mosaic([colours(cloud.draws)], COLUMNS, 2)),
        "x": _image(mosaic([colours(x[None])], 1)),
        "middle": _image(mosaic([colours(cloud.back[None])], 1)),
        "missing": _image(mosaic([missing], 1)),
        "spread": _image(mosaic([spread], 1)),
        "cloud": both("ways.cloud.now", **values),
    }


def cloud_file(cloud: Cloud) -> dict[str, str]:
    """μ, σ and KL of every number of z."""
    _, height, width = cloud.mean.shape
    table = torch.stack((cloud.mean, cloud.std, cloud.nats), dim=-1).flatten(0, 2).tolist()
    places = [(i // (height * width), i // width % height, i % width) for i in range(len(table))]
    lines = [(*place, *values) for place, values in zip(places, table)]
    return table_file("compare-cloud.csv", "channel,row,column,mu,sigma,kl_nats", lines)


def draws_file(cloud: Cloud) -> dict[str, str]:
    """How far the draws lie apart at every pixel."""
    lines = [
        (i, j, 127.5 * value)
        for i, row in enumerate(cloud.spread.tolist())
        for j, value in enumerate(row)
    ]
    return table_file("compare-spread.csv", "row,column,deviation_grey_levels", lines)


def ladder_slots(ladder: Ladder, x: Float[Tensor, "3 H W"]) -> dict[str, str]:
    """The rows of the figure and the sentence about the largest gain."""
    near = [psnr(one.mean(dim=0), x) for one in ladder.kept]
    gains = [b - a for a, b in zip(near, near[1:])]
    best = max(range(len(gains)), key=gains.__getitem__)
    values = {
        "none": decibels(near[0]),
        "all": decibels(near[-1]),
        "level": ladder.names[best],
        "gain": decibels(gains[best]),
        "of": str(len(ladder.names)),
    }
    dims = x.numel()
    return {
        "ladder": both("ways.ladder.now", **values),
        "rungs": ladder_rows([_rung(ladder, k, near[k], dims) for k in range(len(near))]),
        "ladder-of": values["of"],
        "ladder-none": spans(values["none"]),
        "ladder-all": spans(values["all"]),
    }


def ladder_rows(rows: list[tuple[str, str, str]]) -> str:
    """(name, line, picture) of every row as HTML; without rows, as many empty ones."""
    empty = (both("ways.rung.level", level="–"), "&nbsp;", "")
    return "".join(
        f'<div class="gk-rung"><p><b>{name}</b><span>{line}</span></p><div>{picture}</div></div>'
        for name, line, picture in rows or [empty] * (LEVELS + 1)
    )


def ladder_file(ladder: Ladder, x: Float[Tensor, "3 H W"]) -> dict[str, str]:
    """A line for every number of levels that are kept."""
    costs = {part.name: part.bits for part in ladder.bill.parts}
    lines = []
    for k, drawn in enumerate(ladder.kept):
        name = ladder.names[k - 1] if k else ""
        spread = 127.5 * float(apart(drawn).square().mean().sqrt())
        numbers = ladder.numbers[k - 1] if k else 0
        lines.append((k, name, numbers, costs.get(name, 0.0), psnr(drawn.mean(dim=0), x), spread))
    columns = "kept,level,numbers,kl_bits_per_dim,psnr_of_mean_db,spread_grey_levels"
    return table_file("compare-levels.csv", columns, lines)


def _rung(ladder: Ladder, k: int, near: float, dims: int) -> tuple[str, str, str]:
    drawn = ladder.kept[k]
    spread = heat(apart(drawn)[None] * 127.5 / WHITE)
    shown = drawn if len(drawn) == FEW else drawn.expand(FEW, *drawn.shape[1:])
    tiles = [colours(shown), colours(drawn.mean(dim=0)[None]), spread]
    picture = _image(mosaic(tiles, FEW + 2, 2))
    if k == 0:
        return both("ways.rung.none"), both("ways.rung.near", psnr=decibels(near)), picture
    name = ladder.names[k - 1]
    bits = next(part.bits for part in ladder.bill.parts if part.name == name) * dims
    line = both("ways.rung.costs", psnr=decibels(near), bits=number(bits, 3))
    return both("ways.rung.level", level=name), line, picture


def _spans(value: str | Pair) -> str:
    return value if isinstance(value, str) else spans(value)


def _image(url: str) -> str:
    return f'<img class="gk-pixels" src="{url}" alt="">'
