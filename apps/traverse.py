"""Traverse: what single numbers of the VAE's code say, one after the other.

The numbers z_k of a code are ranked by what they say of a picture, on average over `PICTURES`
pictures of the validation split:

    K_k = E_x KL(q(z_k | x) ‖ N(0, 1))

A number of which K_k = 0 is noise to the decoder. For the `COUNT` most informative ones the code
of the page's picture stays as it is, and z_k alone goes from −3 to 3, that is 3 standard
deviations of its prior to either side; each point is turned back into a picture. The map beside
them is the standard deviation of every pixel along the way: where that number has a say.
"""

import math
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apps.cards import progress, table_file
from apps.classes import pixels, sheet_url
from apps.common import HEAVY, Studio, html_part, timed, told
from apps.forward import check_number, check_whole
from apps.quartet import finite, heat, load, scenes, tile, told_of
from apps.section import Live, answered, buttons, endpoint, formula, link, packed, place, wire
from apps.settings import check_language
from apps.small import SIDE, Small
from apps.text import Words, both, fixed, number, spans
from genkit.data.picturebook.scene import SPLITS
from genkit.models.vae import VAE
from genkit.quality import active_units

__all__ = ["Census", "Request", "Traverse", "Unit", "census", "section", "walk"]

PICTURES = 128
COUNT, MOST = 8, 16
"""Numbers of the code whose strips the page shows, and that an endpoint gives at most."""
PLACES, REACH = 25, 3.0
"""Points of a strip, and how far it goes to either side."""
THUMBS = 7
"""Points that a strip shows; the slider has them all."""


@dataclass(frozen=True, eq=False)
class Request:
    """A request that has been checked."""

    picture: Float[Tensor, "1 3 H W"]
    count: int
    places: int
    reach: float

    @property
    def values(self) -> Float[Tensor, " N"]:
        """Of z_k along a strip."""
        return torch.linspace(-self.reach, self.reach, self.places)


@dataclass(frozen=True, eq=False)
class Census:
    """What each number of the code says, over many pictures.

    Args:
        divergence: K_k in nats.
        active: Whether the mean of q(z_k | x) moves with the picture.
    """

    divergence: Float[Tensor, "C h w"]
    active: Tensor

    def ranked(self) -> list[tuple[int, ...]]:
        """The places of all numbers, the most informative first."""
        order = self.divergence.flatten().argsort(descending=True, stable=True)
        return [tuple(map(int, np.unravel_index(k, self.divergence.shape))) for k in order]


@dataclass(frozen=True, eq=False)
class Unit:
    """One number of the code, and the strip of pictures along it.

    Args:
        place: Channel, row and column.
        bits: K_k in bits.
        own: Its value in the picture's own code.
        strip: Pictures.
        effect: Standard deviation of the pixels along the strip, in units of [−1, 1].
    """

    place: tuple[int, ...]
    bits: float
    own: float
    strip: Float[Tensor, "N 3 H W"]
    effect: Float[Tensor, "H W"]


@dataclass(eq=False)
class Strips:
    """All strips of a request so far."""

    request: Request
    census: Census | None = None
    units: list[Unit] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return len(self.units) == self.request.count

    @property
    def share(self) -> float:
        """Of all information, what these units hold."""
        assert self.census is not None
        whole = self.census.divergence.double().sum().item() / math.log(2)
        return sum(one.bits for one in self.units) / max(whole, 1e-12)


class Traverse:
    """The handlers of the section over one studio."""

    def __init__(self, studio: Studio) -> None:
        self.small = Small(studio)
        self._lock = threading.Lock()
        self._census: Census | None = None

        # A closure, as in `handlers.Desk`: the studio stays in its process.
        def ran(request: Request, known: Census | None) -> Iterator[Census | Unit]:
            yield from walk(load("vae", studio.model), request, known)

        self._run = studio.on_gpu(ran)

    def show(self, language: Any, picture: bytes | None, seed: Any) -> Iterator[tuple[str, Any]]:
        """(status, answer for the browser) after every strip."""
        with told(language):
            begun = time.monotonic()
            request = checked(self.small.picture(picture, seed), COUNT, PLACES, REACH)
            for strips in self._strips(request):
                text = both("traverse.busy", done=len(strips.units), of=COUNT)
                answer: Any = gr.skip()
                if strips.done:
                    text = both("race.done", seconds=number(time.monotonic() - begun, 2))
                    answer = packed(_answer(strips))
                yield progress(len(strips.units), COUNT, text), answer

    def traverse(
        self,
        image: str = "",
        seed: int = 0,
        count: int = COUNT,
        places: int = PLACES,
        reach: float = REACH,
        language: str = "en",
    ) -> Iterator[dict[str, Any]]:
        """What the most informative numbers of the VAE's code do to a picture.

        `image` is a picture file in base64; empty: the scene of `seed`. For the `count` (1 to 16)
        numbers with the largest mean divergence from the prior: their place in the code, that
        divergence in bits, their value in this picture, and `places` (3 to 41) pictures in which
        they alone go from −`reach` to `reach` (0.1 to 6), side by side as PNG. Streams after
        every strip, complete when `done`.
        """
        with told(language):
            check_language(language)
            request = checked(self.small.sent(image, seed), count, places, reach)
            for strips in self._strips(request):
                yield _numbers(strips)

    def _strips(self, request: Request) -> Iterator[Strips]:
        strips = Strips(request)
        with self._lock:
            strips.census = self._census
        for event in timed(self._run(request, strips.census)):
            if isinstance(event, Unit):
                strips.units.append(event)
            else:
                strips.census = event
                with self._lock:
                    self._census = event
            yield strips


def checked(picture: Float[Tensor, "1 3 H W"], count: Any, places: Any, reach: Any) -> Request:
    """The request of these values.

    Raises:
        Refused: One of them is of the wrong type or out of its limits.
    """
    return Request(
        picture=picture,
        count=check_whole("count", count, 1, MOST),
        places=check_whole("places", places, 3, 41),
        reach=check_number("reach", reach, 0.1, 6),
    )


@torch.no_grad()
def census(model: VAE, pictures: Float[Tensor, "N 3 H W"]) -> Census:
    """What each number of the code says of these pictures, on average."""
    (level,) = model.encode(pictures.to(next(model.parameters()).device))
    means = level.posterior.mean.cpu()
    return Census(level.dimensions.mean(dim=0).cpu(), active_units(means))


@torch.no_grad()
def walk(model: VAE, request: Request, known: Census | None = None) -> Generator[Census | Unit]:
    """The census, then a strip for each of its most informative numbers.

    Args:
        model: The VAE.
        request: Checked.
        known: The census, if it has been taken before.
    """
    if known is None:
        known = census(model, scenes(SPLITS["validation"].start, PICTURES))
    yield known
    (level,) = model.encode(request.picture.to(next(model.parameters()).device))
    values = request.values.to(level.z)
    for spot in known.ranked()[: request.count]:
        z = level.z.repeat(len(values), 1, 1, 1)
        z[(slice(None), *spot)] = values
        strip = finite(model.decode([z]).mean)
        effect = strip.std(dim=0, unbiased=False).square().mean(dim=0).sqrt()
        bits = known.divergence[spot].item() / math.log(2)
        yield Unit(spot, bits, level.z[(0, *spot)].item(), strip, effect)


# The answer


def _answer(strips: Strips) -> dict[str, Any]:
    units, census = strips.units, strips.census
    assert census is not None
    top = max(max(one.effect.max().item() for one in units), 1e-6)
    rows = [[*pixels(one.strip), *pixels(heat(one.effect / top)[None])] for one in units]
    whole = census.divergence.double().sum().item() / math.log(2)
    values = {
        "active": str(int(census.active.sum())),
        "all": str(census.active.numel()),
        "share": number(100 * strips.share, 2),
        "whole": number(whole, 3),
    }
    slots = {f"traverse.{name}": spans(v) if name in ("share", "whole") else v
             for name, v in values.items()}  # fmt: skip
    for i, one in enumerate(units):
        slots[f"traverse.unit.{i}"] = _named(one)
    says = [
        formula(both("traverse.now", unit=i + 1, own=fixed(one.own), bits=number(one.bits, 2),
             most=number(127.5 * one.effect.max().item(), 2), scale=number(127.5 * top, 2)))
        for i, one in enumerate(units)
    ]  # fmt: skip
    table = [
        (i + 1, *(at + 1 for at in one.place), one.bits, one.own, 127.5 * one.effect.max().item())
        for i, one in enumerate(units)
    ]
    files = {"traverse": table_file("traverse.csv", COLUMNS, table)}
    return {
        "sheet": sheet_url(rows, SIDE),
        "slots": slots,
        "files": files,
        "says": says,
        "values": [spans(fixed(v)) for v in strips.request.values.tolist()],
    }


COLUMNS = "rank,channel,row,column,bits,own,largest_effect_grey_levels"


def _named(unit: Unit) -> str:
    """Where the number stands in the code, and what it says."""
    channel, y, x = unit.place
    values = {"channel": channel + 1, "row": y + 1, "column": x + 1, "bits": number(unit.bits, 2)}
    return both("traverse.unit", **values)


def _numbers(strips: Strips) -> dict[str, Any]:
    """What is known, for an API client."""
    census = strips.census
    assert census is not None
    return {
        "done": strips.done,
        "active": int(census.active.sum()),
        "dimensions": census.active.numel(),
        "bits": (census.divergence.double().sum() / math.log(2)).item(),
        "values": strips.request.values.tolist(),
        "units": [
            {
                "place": list(one.place),
                "bits": one.bits,
                "own": one.own,
                "effect": 127.5 * one.effect.max().item(),
                "png": sheet_url([list(pixels(one.strip))], SIDE),
            }
            for one in strips.units
        ],
    }


# The layout


def section(words: Words, studio: Studio, language: Any, picture: Any, seed: Any) -> None:
    """The section in the current context: figure on the left, words and controls on the right."""
    handlers = Traverse(studio)
    with gr.Row(elem_id="gk-traverse", elem_classes="gk-part"):
        with gr.Column(scale=7, min_width=320, elem_classes="gk-figure"):
            html_part(_figure())
        with gr.Column(scale=5, min_width=320, elem_classes="gk-text"):
            now = place("traverse.now", "span", content=both("traverse.lead"))
            html_part(f"<h2>{both('traverse.title')}</h2>{told_of(now)}")
            pair = buttons(words, "traverse.run", "traverse.stop")
            places = answered("traverse", both("traverse.quiet", pictures=PICTURES))
            live = {name: Live(f"traverse.{name}") for name in ("active", "all", "share", "whole")}
            why = formula(both("traverse.why", pictures=PICTURES, **live))
            html_part(
                f"<details><summary>{both('noise.why')}</summary><p>{why}</p></details>"
                f'<p class="gk-files">{link("traverse", "traverse.csv")}</p>'
            )
    wire("traverse", handlers.show, [language, picture, seed], pair, places)
    gr.api(endpoint(handlers.traverse, "traverse"), api_name="traverse", **HEAVY)


def _figure() -> str:
    """The picture at the slider and the map, the slider, and the strips, which choose."""
    stage = (
        f"<figure>{tile(0, PLACES // 2, 'gk-traverse-now')}"
        f"<figcaption>{formula(both('traverse.picture'))}</figcaption></figure>"
        f"<figure>{tile(0, PLACES, 'gk-traverse-map')}"
        f"<figcaption>{both('traverse.map')}</figcaption></figure>"
    )
    thumbs = [round(i * (PLACES - 1) / (THUMBS - 1)) for i in range(THUMBS)]
    strips = "".join(_strip(i, thumbs) for i in range(COUNT))
    slider = (
        f'<label class="gk-time"><span>z<sub>k</sub> = {place("traverse.value", "b", content="0")}'
        f'</span><input id="gk-traverse-value" type="range" min="0" max="{PLACES - 1}" '
        f'value="{PLACES // 2}" step="1"></label>'
    )
    strips = f'<div class="gk-strips">{strips}</div>'
    return f'<div class="gk-traverse-stage">{stage}</div>{slider}{strips}'


def _strip(index: int, thumbs: Sequence[int]) -> str:
    """A button that shows some points of a strip and chooses it."""
    name = place(f"traverse.unit.{index}", "span", content=both("traverse.empty", unit=index + 1))
    pictures = "".join(tile(index, point, "gk-thumb") for point in thumbs)
    return (
        f'<button type="button" data-unit="{index}" aria-pressed="{str(not index).lower()}">{name}'
        f'<span class="gk-thumbs">{pictures}</span></button>'
    )
