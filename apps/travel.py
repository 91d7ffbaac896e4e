"""Travel: the section "One picture, three ways" of the page `compare`.

The way of each model on a shared slider, the VAE's cloud, what each level of the HVAE knows, and
the bound of all three taken apart. One run makes everything (`ways`): the answers of the VAE and
of the HVAE come at once, the diffusion model's after them. The browser puts all parts into places
that are there from the start and scrubs (`genkit.ways` in static/compare.js).
"""

import math
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
import torch
from jaxtyping import Float
from torch import Tensor

from apps import bill, levels, route
from apps.cards import progress
from apps.classes import MODELS
from apps.common import HEAVY, Studio, html_part, timed, told
from apps.forward import check_whole
from apps.mosaic import colours, mosaic
from apps.quartet import generators
from apps.section import Live, answered, buttons, endpoint, formula, link, packed, place, wire
from apps.settings import LIMITS, check_choice, check_language
from apps.small import SIDE, Small
from apps.text import Pair, Words, both, fixed, or_none, spans
from apps.ways import FEW, SOLVERS, Bill, Found, examine, fitting, psnr
from genkit.models.diffusion import PixelDiffusion
from genkit.models.hvae import HVAE
from genkit.models.vae import VAE, iwae

__all__ = ["COUNTS", "Travel", "section"]

MODEL, STEPS, DRAWS = "book32_ddpm", 25, 16
"""What the page opens with; it has the parameters and the training of the other two models."""
COUNTS = {"steps": (2, 50), "draws": (2, 32), "importance": (1, 64)}
"""Least and largest of every count."""
EVERY = 0.25
"""Seconds between two lines of progress."""
STRIP = 11
"""Small pictures of a row."""
LIVE = ("flow", "ladder-of", "ladder-none", "ladder-all")
BOUND = ("vae", "hvae", "diffusion", "evaluations")


class Travel:
    """The handlers of the section over one studio."""

    def __init__(self, studio: Studio) -> None:
        self.small = Small(studio)

        # A closure, as in `handlers.Desk`: the studio stays in its process.
        def models(name: str) -> tuple[VAE, HVAE, PixelDiffusion]:
            asked = (("book32_vae", VAE), ("book32_hvae", HVAE), (name, PixelDiffusion))
            vae, hvae, diffusion = (fitting(studio.model(n), kind, n, SIDE) for n, kind in asked)
            return vae, hvae, diffusion

        def examined(name: str, x: Tensor, *rest: Any) -> Iterator[Found]:
            yield from examine(models(name), x, *rest)

        def extra(x: Tensor, k: int, keep: int, seed: int) -> Iterator[dict[str, Any]]:
            yield _extra(*models(MODEL)[:2], x, k, keep, seed)

        self._examine, self._extra = studio.on_gpu(examined), studio.on_gpu(extra)

    def run(
        self, language: Any, picture: bytes | None, seed: Any, model: Any, solver: Any, steps: Any
    ) -> Iterator[tuple[str, Any]]:
        """(status, answer for the browser): the VAE and the HVAE, the bound, then the road."""
        with told(language):
            x = self.small.picture(picture, seed)
            asked = _checked(model, steps, solver, DRAWS, seed)
            yield progress(0, 1, both("ways.loading")), packed({"slots": {}})
            last, at = None, -math.inf
            for found in self._found(x, asked):
                fresh = last is None or found.toll is not last.toll or found.road is not last.road
                if fresh or time.monotonic() > at + EVERY:
                    answer = _answer(found, x[0], asked) if fresh else gr.skip()
                    yield progress(found.done, found.of, _status(found)), answer
                    at = time.monotonic()
                last = found

    def compare(
        self,
        image: str = "",
        seed: int = 0,
        model: str = MODEL,
        steps: int = STEPS,
        solver: str = "dpm++2m",
        draws: int = DRAWS,
        keep: int = 0,
        importance: int = 1,
        language: str = "en",
    ) -> Iterator[dict[str, Any]]:
        """One picture under a VAE, a hierarchical VAE and a diffusion model, in numbers.

        `image` is a picture file in base64; empty: the scene of `seed`, which seeds all noise too.
        It is reduced to 32 × 32. `model` is book32_ddpm or book32_guided, `solver` dpm++2m or
        ddim with `steps` from 2 to 50 each way, `draws` 2 to 32 points of the clouds. Returns the
        parts of each bound in nats and bits/dim, the PSNR of what comes back and of the HVAE's
        pictures that keep its first levels, and the seconds; the bounds are estimates with a
        standard error. With them come 4 pictures (PNG, side by side) that keep the first `keep`
        levels of the HVAE, and, for `importance` above 1 (to 64), both VAEs' tighter bounds of so
        many weighted draws. The first answer lacks the diffusion model.
        """
        with told(language):
            check_language(language)
            x = self.small.sent(image, seed)
            asked = _checked(model, steps, solver, draws, seed)
            k = check_whole("importance", importance, *COUNTS["importance"])
            keep = check_whole("keep", keep, 0, 99)
            (extra,) = self._extra(x, k, keep, asked["seed"])
            for found in self._found(x, asked):
                if found.done == 0 or found.road is not None:
                    yield _numbers(found, x[0], asked) | extra

    def _found(self, x: Float[Tensor, "1 3 H W"], asked: dict[str, Any]) -> Iterator[Found]:
        """What is found, within the wall clock."""
        names = ("model", "x", "steps", "solver", "draws", "seed")
        values = asked | {"x": x}
        yield from timed(self._examine(*(values[name] for name in names)))


def _checked(model: Any, steps: Any, solver: Any, draws: Any, seed: Any) -> dict[str, Any]:
    """The values of a run.

    Raises:
        Refused: One of them is unknown, of the wrong type or out of its limits.
    """
    return {
        "model": check_choice("model", model, MODELS),
        "steps": check_whole("steps", steps, *COUNTS["steps"]),
        "solver": check_choice("solver", solver, tuple(SOLVERS)),
        "draws": check_whole("draws", draws, *COUNTS["draws"]),
        "seed": check_whole("seed", seed, *LIMITS["seed"]),
    }


@torch.no_grad()
def _extra(
    vae: VAE, hvae: HVAE, x: Float[Tensor, "1 3 H W"], k: int, keep: int, seed: int
) -> dict[str, Any]:
    """The pictures that keep some levels, and the bounds of k draws.

    Raises:
        Refused: The HVAE has not so many levels.
    """
    keep = check_whole("keep", keep, 0, len(hvae.levels))
    rngs = generators(seed, FEW)
    x = x.to(next(hvae.parameters()).device)
    given = [level.z.expand(FEW, *level.z.shape[1:]) for level in hvae.encode(x)[:keep]]
    drawn = hvae.generate(rngs, given)[1].mean.float().cpu()
    answer = {"kept": {"levels": keep, "png": mosaic([colours(drawn)], FEW, 0)}}
    if k > 1:
        each = x.numel() * math.log(2)
        answer["importance"] = {"draws": k} | {
            name: iwae(net, x, k, [torch.Generator().manual_seed(seed)]).item() / each
            for name, net in (("vae", vae), ("hvae", hvae))
        }
    return answer


# The answer


def _status(found: Found) -> str:
    if found.road is None:
        return both("ways.busy", done=found.done, of=found.of)
    seconds = (found.cloud.seconds, found.ladder.seconds, found.toll_seconds + found.road.seconds)
    values = dict(zip(("vae", "hvae", "diffusion"), (fixed(one) for one in seconds)))
    return both("ways.done", **values)


def _answer(found: Found, x: Float[Tensor, "3 H W"], asked: dict[str, Any]) -> str:
    """All that is known, for the browser."""
    known, steps = bill.bills(found), asked["steps"]
    slots = levels.cloud_slots(found.cloud, x) | levels.ladder_slots(found.ladder, x)
    slots["bound"] = bill.bound(known)
    slots |= {f"parts-{name}": bill.listed(known, name) for name in bill.NAMES}
    slots |= {f"bits-{name}": spans(bill.bits(one.bits)) for name, one in known.items()}
    files = {
        "cloud": levels.cloud_file(found.cloud),
        "spread": levels.draws_file(found.cloud),
        "levels": levels.ladder_file(found.ladder, x),
    }
    if found.toll is not None:
        slots["bill"] = both("ways.bill.now", **_sums(known))
        slots["bits-evaluations"] = str(found.of - 3 * steps)
        files["bound"] = bill.file(known)
    if found.road is not None:
        slots |= _summary(found, x)
        files["way"] = route.table(found, x, steps)
    answer = {"slots": {f"ways.{name}": html for name, html in slots.items()}, "files": files}
    return packed(answer | {"rows": route.routes(found, x, steps), "last": 2 * steps})


def _sums(known: dict[str, Bill]) -> dict[str, Pair]:
    return {name: bill.bits(one.bits) for name, one in known.items()}


def _summary(found: Found, x: Float[Tensor, "3 H W"]) -> dict[str, str]:
    road = found.road
    assert road is not None
    ends = {
        "vae": found.cloud.back,
        "hvae": found.ladder.back,
        "flow": road.back,
        "noise": road.noisy.looks[-1],
    }
    values = {name: route.decibels(psnr(end, x)) for name, end in ends.items()}
    text = both("ways.road.now", evaluations=str(road.evaluations), **values)
    return {"road": text, "flow": spans(values["flow"])}


def _numbers(found: Found, x: Float[Tensor, "3 H W"], asked: dict[str, Any]) -> dict[str, Any]:
    """What is known, for an API client; an infinite PSNR is null."""
    dims = x.numel()
    known = bill.bills(found)
    backs = {"vae": found.cloud.back, "hvae": found.ladder.back}
    seconds = {"vae": found.cloud.seconds, "hvae": found.ladder.seconds}
    if found.road is not None:
        backs |= {"diffusion": found.road.back}
        seconds |= {"diffusion": found.toll_seconds + found.road.seconds}
    means = (one.mean(dim=0) for one in found.ladder.kept)
    return {
        "done": found.road is not None,
        "asked": asked,
        "dimensions": dims,
        "bounds": {name: _bill(one, dims) for name, one in known.items()},
        "psnr": {name: or_none(psnr(one, x)) for name, one in backs.items()},
        "psnr_of_levels": [or_none(psnr(one, x)) for one in means],
        "evaluations": found.done,
        "seconds": seconds | {"all": sum(seconds.values())},
    }


def _bill(one: Bill, dims: int) -> dict[str, Any]:
    """Parts and sum of a bound, each part with its noise where it has one."""
    nats = dims * math.log(2)
    parts = [
        {"name": part.name, "nats": part.bits * nats, "bits": part.bits, "error": part.error}
        | ({"sigma_over_alpha": [part.low, part.high]} if part.name == "L_t" else {})
        for part in one.parts
    ]
    return {"bits": one.bits, "error": one.error, "nats": one.bits * nats, "parts": parts}


# The layout


def section(words: Words, studio: Studio, language: Any, picture: Any, seed: Any) -> None:
    """Lays out the section and says what its controls do.

    Args:
        words: Of the page.
        studio: The models.
        language: The control of the language.
        picture: The visitor's own picture as bytes, or None.
        seed: The control of the scene.
    """
    html_part(f"<h2>{both('ways.title')}</h2><p>{both('ways.lead')}</p>", elem_id="gk-ways")
    with gr.Row(elem_classes="gk-fields gk-bar"):
        model = words.add(
            gr.Dropdown, "ways.model", choices=list(MODELS), value=MODEL, min_width=170
        )
        solvers = [(Pair(f"{n} · order {o}", f"{n} · bậc {o}"), n) for n, o in ORDERS.items()]
        solver = words.add(
            gr.Dropdown, "ways.solver", choices=solvers, value=solvers[0][1], min_width=170
        )
        steps = words.add(gr.Number, "ways.steps", value=STEPS, min_width=90)
        pair = buttons(words, "ways.run", "ways.stop")
    places = answered("ways", both("ways.quiet"))
    stale = f'<p class="gk-note gk-warn gk-old">{both("ways.stale")}</p>'
    figures = {"elem_id": "gk-ways-figures", "elem_classes": "gk-figures"}
    html_part(stale + _road() + _bound() + _cloud() + _ladder(), **figures)
    handlers = Travel(studio)
    wire("ways", handlers.run, [language, picture, seed, model, solver, steps], pair, places)
    changed = [one.change for one in (model, solver, steps)]
    gr.on(changed, fn=None, js="() => genkit.ways.stale()", queue=False, api_visibility="private")
    gr.api(endpoint(handlers.compare, "compare"), api_name="compare", **HEAVY)


ORDERS = {"dpm++2m": 2, "ddim": 1}


def _road() -> str:
    """The four ways under one slider."""
    rows = "".join(map(_row, route.ROWS))
    figure = (
        f'<label class="gk-time"><span>{both("ways.slider")}</span><input id="gk-ways-place" '
        f'type="range" min="0" max="{2 * STEPS}" value="0" step="1"></label>'
        f'<div class="gk-routes">{rows}</div><p class="gk-note">{both("ways.white")}</p>'
    )
    return _part("road", figure, {name: Live(f"ways.{name}") for name in LIVE}, "way")


def _row(name: str) -> str:
    pictures = "".join(
        f'<figure><canvas data-ways-of="{column}" width="{SIDE}" height="{SIDE}"></canvas>'
        f"<figcaption>{both(f'ways.col.{column}')}</figcaption></figure>"
        for column in route.COLUMNS
    )
    strip = "".join(
        f'<button type="button" data-ways-share="{i / (STRIP - 1):g}" '
        f'aria-label="{name} {i} / {STRIP - 1}">'
        f'<canvas width="{SIDE}" height="{SIDE}"></canvas></button>'
        for i in range(STRIP)
    )
    return (
        f'<div class="gk-route" data-ways-row="{name}"><p><b>{both(f"ways.row.{name}")}</b>'
        f'<span class="gk-route-now">&nbsp;</span></p><div class="gk-route-pictures">{pictures}'
        f'</div><div class="gk-route-strip">{strip}</div></div>'
    )


def _bound() -> str:
    chart = place("ways.bound", look="gk-stack-place", content=bill.bound({}))
    legend = "".join(
        f'<span><i class="gk-swatch gk-{side}"></i>{formula(both(f"ways.legend.{side}"))}</span>'
        for side in ("s1", "s2")
    )
    tables = "".join(
        f"<table><thead><tr><th>{label}</th><td>bits/dim</td></tr></thead>"
        f"{place(f'ways.parts-{name}', 'tbody', content=bill.listed({}, name))}</table>"
        for name, label in bill.NAMES.items()
    )
    figure = (
        f'<p class="gk-axis">{both("ways.axis")}</p>{chart}<p class="gk-legend">{legend}</p>'
        f'<div class="gk-parts">{tables}</div>'
    )
    return _part("bill", figure, {n: Live(f"ways.bits-{n}") for n in BOUND}, "bound")


def _cloud() -> str:
    """The maps of μ and σ, the draws, and the picture beside what the cloud has of it."""
    figures = "".join(
        f'<figure class="gk-cloud-{name}"><figcaption>{formula(both(f"ways.cloud.{name}"))}'
        f"</figcaption>{place(f'ways.{name}', look='gk-sheet')}</figure>"
        for name in ("mu", "sigma", "draws", "x", "middle", "missing", "spread")
    )
    figure = f'<div class="gk-cloud">{figures}</div>'
    live = {name: Live(f"ways.cloud-{name}") for name in levels.LIVE}
    return _part("cloud", figure, live, "cloud", "spread")


def _ladder() -> str:
    heads = [both("ways.rung.drawn"), *[""] * (FEW - 1)]
    heads += [both("ways.rung.mean"), both("ways.rung.spread")]
    head = "".join(f"<span>{one}</span>" for one in heads)
    rungs = place("ways.rungs", look="gk-rungs", content=levels.ladder_rows([]))
    figure = f'<div class="gk-rung gk-rung-head"><p></p><div>{head}</div></div>{rungs}'
    return _part("ladder", figure, {n: Live(f"ways.{n}") for n in LIVE}, "levels")


def _part(name: str, figure: str, live: dict[str, Live], *files: str) -> str:
    """A figure, its sentence, what it means, and its files."""
    why = formula(both(f"ways.{name}.why", **{k.replace("-", "_"): v for k, v in live.items()}))
    links = "".join(link(file, f"ways.csv.{file}") for file in files)
    now = place(f"ways.{name}", "p", content=both(f"ways.{name}.none"))
    return (
        f'<section id="gk-section-ways-{name}"><div class="gk-figure">{figure}</div>'
        f"<div class='gk-text'><h2>{both(f'ways.{name}.title')}</h2>{now}"
        f"<details><summary>{both('noise.why')}</summary><p>{why}</p></details>"
        f'<p class="gk-files">{links}</p></div></section>'
    )
