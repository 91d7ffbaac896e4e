"""Blur: why the mean of a VAE is soft, measured on the picture of the page.

A code of few numbers fits many pictures, and the picture with the least squared error is their
mean. What they do not agree on is averaged away, and the model knows where: it is the standard
deviation σ of p(x | z), pixel by pixel.

The hierarchical VAE shows those pictures: its coarse levels are kept as they are in q(z | x), the
finer ones are drawn anew from their priors, `DRAWS` times. Let H be the frequencies above half of
Nyquist's (`genkit.quality`) and x_1 … x_N the draws with mean x̄. The transform is linear, so

    1/N Σ ‖H x_i‖²  =  ‖H x̄‖²  +  1/N Σ ‖H (x_i − x̄)‖²

exactly: the fine energy of the draws is that of their mean plus their disagreement, and the mean
of n of them has E_n = E_1 − S (1 − 1/n), S = 1/(N − 1) Σ ‖H (x_i − x̄)‖², on average.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
import torch
from jaxtyping import Float
from torch import Tensor

from apps.cards import progress, table_file
from apps.classes import pixels, sheet_url
from apps.common import HEAVY, Studio, html_part, timed, told
from apps.figure import Across, Curve, Frame, chart
from apps.forward import check_whole
from apps.quartet import FAMILIES, device, finite, generators, heat, load, tile, told_of
from apps.section import Live, answered, buttons, endpoint, formula, link, packed, place, wire
from apps.settings import LIMITS, Refused, argument, check_language, shown
from apps.small import SIDE, Small
from apps.text import Pair, Words, both, fixed, number, or_none, spans
from genkit.model import Model
from genkit.quality import spectrum

__all__ = ["KEPT", "Blur", "Request", "Soft", "energy", "explain", "section", "split"]

DRAWS, BATCH = 32, 8
"""Pictures that are drawn, and how many of them at a time."""
KEPT = (4, 8)
"""Sides up to which the levels of the ladder can be kept."""
AVERAGED = (1, 2, 4, 8, 16, 32)
"""How many draws the slider averages."""
SHOWN = 8
"""Draws that the page shows."""
FRAME = Frame(540, 250, 110)


@dataclass(frozen=True, eq=False)
class Request:
    """A request that has been checked."""

    picture: Float[Tensor, "1 3 H W"]
    seed: int
    draws: int
    kept: int


@dataclass(frozen=True, eq=False)
class Soft:
    """What was found.

    Args:
        picture: x.
        mean: The VAE's, of p(x | z) with z = E q(z | x).
        std: Its σ, the root of the mean square of the channels.
        draws: Of the ladder, below the levels that are kept.
        levels: How many levels were kept, and how many there are.
    """

    picture: Float[Tensor, "1 3 H W"]
    mean: Float[Tensor, "1 3 H W"]
    std: Float[Tensor, "H W"]
    draws: Float[Tensor, "N 3 H W"]
    levels: tuple[int, int]

    def averages(self) -> dict[int, Float[Tensor, "M 3 H W"]]:
        """n -> the means of n draws after another."""
        whole = len(self.draws)
        counts = [n for n in AVERAGED if n < whole] + [whole]
        return {
            n: torch.stack([some.mean(dim=0) for some in self.draws.split(n) if len(some) == n])
            for n in counts
        }

    def fine(self) -> dict[str, float]:
        """Fine energies over that of the picture; NaN where that has none."""
        whole = energy(self.picture)
        parts = split(self.draws)
        values = dict(zip(("draws", "average", "apart"), parts)) | {"mean": energy(self.mean)}
        return {name: v / whole if whole > 1e-6 else math.nan for name, v in values.items()}


class Blur:
    """The handlers of the section over one studio."""

    def __init__(self, studio: Studio) -> None:
        self.small = Small(studio)

        # A closure, as in `handlers.Desk`: the studio stays in its process.
        def ran(request: Request) -> Iterator[int | Soft]:
            yield from explain(studio.model, request)

        self._run = studio.on_gpu(ran)

    def show(
        self, language: Any, picture: bytes | None, seed: Any, kept: Any
    ) -> Iterator[tuple[str, Any]]:
        """(status, answer for the browser) after every batch of draws."""
        with told(language):
            begun = time.monotonic()
            request = checked(self.small.picture(picture, seed), seed, DRAWS, kept)
            for event in timed(self._run(request)):
                if isinstance(event, Soft):
                    text = both("race.done", seconds=number(time.monotonic() - begun, 2))
                    yield progress(1, 1, text), packed(_answer(event))
                else:
                    text = both("blur.busy", done=event, of=DRAWS)
                    yield progress(event, DRAWS + 1, text), gr.skip()

    def blur(
        self,
        image: str = "",
        seed: int = 0,
        draws: int = DRAWS,
        kept: int = KEPT[0],
        language: str = "en",
    ) -> Iterator[dict[str, Any]]:
        """Why the VAE's mean of a picture is soft: what it averages, and how unsure it is.

        `image` is a picture file in base64; empty: the scene of `seed`, which seeds the draws
        too. The hierarchical VAE keeps its levels up to the side `kept` (4 or 8) and draws the
        others `draws` (2 to 64) times. Streams the draws that are done; with the last answer
        (done) come fine energies over that of the picture (of the draws, their average, their
        disagreement, and the VAE's mean), the VAE's σ in grey levels, and the pictures as PNG.
        """
        with told(language):
            check_language(language)
            request = checked(self.small.sent(image, seed), seed, draws, kept)
            for event in timed(self._run(request)):
                yield _numbers(event) if isinstance(event, Soft) else _waiting(event)


def checked(picture: Float[Tensor, "1 3 H W"], seed: Any, draws: Any, kept: Any) -> Request:
    """The request of these values.

    Raises:
        Refused: One of them is of the wrong type or out of its limits.
    """
    if isinstance(kept, bool) or kept not in KEPT:
        listed = ", ".join(map(str, KEPT))
        raise Refused("error.choice", name=argument("kept"), value=shown(kept), choices=listed)
    return Request(
        picture=picture,
        seed=check_whole("seed", seed, *LIMITS["seed"]),
        draws=check_whole("draws", draws, 2, 64),
        kept=int(kept),
    )


@torch.no_grad()
def explain(of: Callable[[str], Model], request: Request) -> Generator[int | Soft]:
    """How many draws are done, again and again, and what was found.

    Args:
        of: Gives the model of a checkpoint.
        request: Checked.
    """
    vae, hvae = load("vae", of), load("hvae", of)
    said = vae.decode([vae.encode(request.picture.to(device(vae)))[0].z])
    std = said.std[0].square().mean(dim=0).sqrt()
    coded = hvae.encode(request.picture.to(device(hvae)))
    given = [level.z for level in coded if _side(level.name) <= request.kept]
    found: list[Tensor] = []
    yield 0
    for rngs in _batches(request):
        kept = [z.expand(len(rngs), -1, -1, -1) for z in given]
        found.append(finite(hvae.generate(rngs, kept)[1].mean))
        yield sum(map(len, found))
    levels = len(given), len(coded)
    yield Soft(request.picture, finite(said.mean), std.cpu(), torch.cat(found), levels)


def energy(pictures: Float[Tensor, "N 3 H W"]) -> float:
    """The mean energy of the frequencies above half of Nyquist's."""
    found = spectrum(pictures)
    place = torch.arange(len(found), dtype=torch.float64)
    return found[torch.hypot(place[:, None], place) > len(found) / 2].sum().item()


def split(draws: Float[Tensor, "N 3 H W"]) -> tuple[float, float, float]:
    """Fine energy of the draws, of their mean, and of what they differ by: first = sum of both."""
    mean = draws.cpu().double().mean(dim=0, keepdim=True)
    return energy(draws), energy(mean), energy(draws.cpu().double() - mean)


def _batches(request: Request) -> Iterator[list[torch.Generator]]:
    rngs = generators(request.seed, request.draws)
    for first in range(0, len(rngs), BATCH):
        yield rngs[first : first + BATCH]


def _side(level: str) -> int:
    """4 of "4×4 · 1"."""
    return int(level.partition("×")[0])


# The answer


def _answer(found: Soft) -> dict[str, Any]:
    top = max(found.std.max().item(), 1e-6)
    averages = found.averages()
    first = [found.picture, found.mean, heat(found.std / top)[None]]
    rows = [
        list(pixels(torch.cat(first))) + [None] * (SHOWN - 3),
        list(pixels(found.draws[:SHOWN])),
        [next(pixels(one)) for one in averages.values()] + [None] * (SHOWN - len(averages)),
    ]
    fine = {name: fixed(100 * value, 1) for name, value in found.fine().items()}
    sigma = {"mean_std": _grey(found.std.square().mean().sqrt()), "top": number(127.5 * top, 3)}
    kept = {"kept": found.levels[0], "all": found.levels[1]}
    now = formula(both("blur.now", draws_count=len(found.draws), **fine, **sigma, **kept))
    slots = {f"blur.{name}": spans(value) for name, value in (fine | sigma).items()}
    slots |= {"blur.now": now, "blur.chart": _chart(found), "blur.off": spans(_off(found))}
    columns = "draws_averaged,fine_energy,predicted"
    files = {
        "blur": table_file("blur.csv", columns, _points(found)),
        "sigma": table_file("vae-sigma.csv", "row,column,sigma_grey_levels", _map(found.std)),
    }
    answer = {"sheet": sheet_url(rows, SIDE), "slots": slots, "files": files}
    return answer | {"counts": list(averages)}


def _points(found: Soft) -> list[tuple[float, ...]]:
    """(n, measured fine energy of the mean of n draws, what the formula says)."""
    whole = energy(found.picture)
    whole = whole if whole > 1e-6 else math.nan
    each, _, apart = split(found.draws)
    spread = apart * len(found.draws) / (len(found.draws) - 1)
    return [
        (n, energy(some) / whole, (each - spread * (1 - 1 / n)) / whole)
        for n, some in found.averages().items()
    ]


def _chart(found: Soft | None) -> str:
    across, limits = Across(AVERAGED, log=True), (0.01, 1.0)
    curves = []
    if found is not None:
        n, measured, predicted = map(list, zip(*_points(found)))
        mean, ends = found.fine()["mean"], [AVERAGED[0], AVERAGED[-1]]
        curves = [
            Curve(FAMILIES["hvae"].colour, n, predicted, list(zip(n, measured)), "n · HVAE"),
            Curve(FAMILIES["vae"].colour, ends, [mean, mean], label="VAE"),
            Curve("s4", ends, [1.0, 1.0], label="x"),
        ]
    return chart(curves, "E(n)", True, across, limits, FRAME, now=False)


def _map(std: Float[Tensor, "H W"]) -> Iterator[tuple[int, int, float]]:
    for y, line in enumerate((127.5 * std).tolist()):
        yield from ((y, x, value) for x, value in enumerate(line))


def _off(found: Soft) -> Pair:
    """Deviation of the VAE's mean from the picture."""
    return _grey((found.mean - found.picture).square().mean().sqrt())


def _grey(value: Tensor) -> Pair:
    return number(127.5 * value.item(), 3)


def _waiting(done: int) -> dict[str, Any]:
    return {"done": False, "drawn": done}


def _numbers(found: Soft) -> dict[str, Any]:
    """What was found, for an API client."""
    averages = [next(pixels(one)) for one in found.averages().values()]
    pictures = {
        "vae": list(pixels(found.mean)),
        "draws": list(pixels(found.draws)),
        "averages": averages,
    }
    return {
        "done": True,
        "drawn": len(found.draws),
        "kept": {"levels": found.levels[0], "of": found.levels[1]},
        "fine": {name: or_none(value) for name, value in found.fine().items()},
        "averaged": [
            dict(zip(("n", "fine", "predicted"), map(or_none, row))) for row in _points(found)
        ],
        "sigma": (127.5 * found.std).tolist(),
        "png": {name: sheet_url([row], SIDE) for name, row in pictures.items()},
    }


# The layout


def section(words: Words, studio: Studio, language: Any, picture: Any, seed: Any) -> None:
    """The section in the current context: figure on the left, words and controls on the right."""
    handlers = Blur(studio)
    with gr.Row(elem_id="gk-blur", elem_classes="gk-part"):
        with gr.Column(scale=7, min_width=320, elem_classes="gk-figure"):
            html_part(_figure())
        with gr.Column(scale=5, min_width=320, elem_classes="gk-text"):
            now = place("blur.now", "span", content=both("blur.lead"))
            html_part(f"<h2>{both('blur.title')}</h2>{told_of(now)}")
            sides = [(_kept(side), side) for side in KEPT]
            kept = words.add(gr.Radio, "blur.kept", choices=sides, value=KEPT[0])
            pair = buttons(words, "blur.run", "blur.stop")
            places = answered("blur", both("blur.quiet"))
            names = ("draws", "average", "apart", "mean", "mean_std", "top", "off")
            why = formula(both("blur.why", **{name: Live(f"blur.{name}") for name in names}))
            links = link("blur", "blur.csv") + link("sigma", "blur.csv.sigma")
            html_part(
                f"<details><summary>{both('noise.why')}</summary><p>{why}</p></details>"
                f'<p class="gk-files">{links}</p>'
            )
    wire("blur", handlers.show, [language, picture, seed, kept], pair, places)
    gr.api(endpoint(handlers.blur, "blur"), api_name="blur", **HEAVY)


def _kept(side: int) -> str:
    return " + ".join(f"{one}×{one}" for one in KEPT if one <= side)


def _figure() -> str:
    """Picture, mean, σ, average of the draws; the draws; and the energy over their number."""
    names = ("picture", "mean", "std")
    top = "".join(
        f"<figure>{tile(0, i)}<figcaption>{both(f'blur.of.{name}')}</figcaption></figure>"
        for i, name in enumerate(names)
    )
    count = both("blur.of.average", count=Live("blur.count"))
    top += (
        f"<figure>{tile(2, len(AVERAGED) - 1, 'gk-blur-average')}<figcaption>"
        f"{count}</figcaption></figure>"
    )
    slider = (
        f'<label class="gk-time"><span>{both("blur.slider")}</span><input id="gk-blur-count" '
        f'type="range" min="0" max="{len(AVERAGED) - 1}" value="{len(AVERAGED) - 1}" step="1">'
        "</label>"
    )
    draws = "".join(tile(1, i) for i in range(SHOWN))
    return (
        f'<div class="gk-blur-top">{top}</div>{slider}<p class="gk-axis">{both("blur.draws")}</p>'
        f'<div class="gk-tier-tiles" style="--columns: {SHOWN}">{draws}</div>'
        f'<p class="gk-axis gk-blur-upright">{both("blur.upright")}</p>'
        f"{place('blur.chart', look='gk-blur-chart', content=_chart(None))}"
        f'<p class="gk-axis gk-across">{both("blur.across")}</p>'
    )
