"""The race: several ways to solve one and the same equation, from the same noise.

Sampling without fresh noise solves the probability-flow equation, in the plane of rectified flow

    dz/du = ε̂(x_t, t) − x̂_0(x_t, t),      z = x/(α + σ),  u = σ/(α + σ)

so every deterministic sampler goes from one x_T to one picture x_0, if only its steps are small.
The reference is that picture, by 1000 evaluations. The error of a sampler after n evaluations of
the network is the deviation over all D numbers of the picture, in grey levels of 255:

    e(n) = 127.5 √(Σ_i (x_i − x_i*)²/D)

A method of order p has e ~ n^(−p) where n is large: a line of slope −p on logarithmic axes. The
order that is measured is that slope by least squares for n ≥ 10. It is lower than in theory where
rounding or the reference's own error is reached, where a method has not yet left its start of
low order, and where x̂_0 is not smooth: it is clipped to [−1, 1], and the schedule is a chain.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apps.cards import progress, table_file
from apps.classes import MODELS, check_label, choices, pixels, sheet_url
from apps.common import HEAVY, Studio, html_part, timed, told
from apps.figure import Across, Curve, Frame, chart
from apps.forward import check_whole
from apps.section import Live, answered, buttons, endpoint, formula, link, packed, place, wire
from apps.settings import LIMITS, Refused, argument, check_choice, check_language, shown
from apps.text import Words, both, number, spans
from genkit.diffusion.grid import Grid, Karras, LogSNR, Trailing, Uniform
from genkit.diffusion.guide import Clipped
from genkit.diffusion.sample import DPMPP2M, Heun, noise
from genkit.generate import SAMPLERS
from genkit.models.diffusion import PixelDiffusion

__all__ = ["EVALUATIONS", "Race", "Request", "Result", "order", "section"]

THEORY: Mapping[str, str] = {
    "euler": "1", "heun": "2", "dpm++2m": "2", "dpm++3m": "3", "unipc": "4", "deis": "3",
    "ipndm": "2–4",
}  # fmt: skip
"""Samplers that draw no noise, and their orders."""
COLOURS = {name: f"s{index + 1}" for index, name in enumerate(THEORY)}
GRIDS: Mapping[str, Grid] = {
    "logsnr": LogSNR(low=1e-4, high=1e4),
    "trailing": Trailing(),
    "uniform": Uniform(),
    "karras": Karras(low=1e-4, high=1e4),
}
"""From end to end of the schedule: else the first and the last step would never become small, and
each sampler would have a limit of its own."""
EVALUATIONS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50)
FIRST = ("euler", "heun", "dpm++2m", "unipc")
"""The samplers with which the page opens."""
REFERENCE = 1000
MOST, LONGEST, LARGEST = 6, 20, 200
"""Samplers in a race, numbers of evaluations in a list, and the largest of them."""
WHOLE = 3000
"""Evaluations of all samplers together; one of them alone took 22 ms on two slow cores."""
FLOOR = 0.03
"""Errors below this are no longer the sampler's: the reference itself is 0.003 off, by the
difference of two samplers with 300 steps."""
LARGE = 10
"""Evaluations from which on the order is fitted."""
KEPT = 16
"""References that are remembered."""
EVERY = 0.6
"""Seconds between two pictures of a running race."""
TICKS = (1, 2, 5, 10, 20, 50, 100, 200)
FRAME = Frame(540, 300, 80)
SEED = 7
EMPTY = ' class="gk-empty"'


@dataclass(frozen=True)
class Request:
    """A race that has been checked."""

    seed: int
    model: str
    label: str | None
    samplers: tuple[str, ...]
    grid: str
    evaluations: tuple[int, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """What the reference depends on."""
        return self.model, self.label, self.seed, self.grid


@dataclass(frozen=True, eq=False)
class Result:
    """One run: what was asked for, evaluations that it took, seconds, and the picture."""

    sampler: str
    evaluations: int
    nfe: int
    seconds: float
    picture: Float[Tensor, "1 3 H W"]


@dataclass(frozen=True, eq=False)
class Board:
    """What is known after a part of the race; `results` by (sampler, evaluations)."""

    request: Request
    reference: Float[Tensor, "1 3 H W"] | None
    results: Mapping[tuple[str, int], Result]
    seconds: float | None = None

    def error(self, one: Result) -> float:
        """Deviation from the reference, in grey levels of 255."""
        assert self.reference is not None
        return 127.5 * (one.picture - self.reference).double().square().mean().sqrt().item()

    def points(self, sampler: str) -> list[tuple[int, float]]:
        """(evaluations that it took, error), rising, each number of evaluations once."""
        runs = (one for (name, _), one in self.results.items() if name == sampler)
        return sorted({one.nfe: self.error(one) for one in runs}.items())

    def fitted(self, sampler: str) -> float:
        """The order that was measured; NaN where it cannot be."""
        return order(self.points(sampler))

    def each(self, sampler: str) -> float:
        """Seconds per evaluation: the median of its runs."""
        runs = (one for (name, _), one in self.results.items() if name == sampler)
        return float(np.median([one.seconds / one.nfe for one in runs] or [math.nan]))


class Race:
    """The handlers of the section over one studio."""

    def __init__(self, studio: Studio) -> None:
        self._references: OrderedDict[tuple[Any, ...], Tensor] = OrderedDict()
        self._lock = threading.Lock()

        # A closure, as in `handlers.Desk`: the studio stays in its process.
        def ran(request: Request, known: bool) -> Iterator[int | Tensor | Result | None]:
            yield from run(studio.model(request.model), request, known)

        self._run = studio.on_gpu(ran)

    def show(self, language: Any, *values: Any) -> Iterator[tuple[str, str]]:
        """(status, answer for the browser), again and again while the race goes on."""
        with told(language):
            request = checked(*values, EVALUATIONS)
            shown_at = -math.inf
            for done, board in self._boards(request):
                if board.seconds is None and time.monotonic() < shown_at + EVERY:
                    continue
                yield progress(*done, _status(*done, board)), packed(_answer(board))
                shown_at = time.monotonic()

    def race(
        self,
        seed: int = SEED,
        model: str = "book32_ddpm",
        label: str = "",
        samplers: list[str] = list(FIRST),  # noqa: B006
        grid: str = "logsnr",
        evaluations: list[int] = list(EVALUATIONS),  # noqa: B006
        language: str = "en",
    ) -> Iterator[dict[str, Any]]:
        """The error of deterministic samplers over the evaluations of the network that they take.

        All go from the same noise of `seed` with the same model (book32_ddpm, book32_guided) and
        class (as "meadow, night"; empty: none), float32. `samplers` are up to 6 of euler, heun,
        dpm++2m, dpm++3m, unipc, deis, ipndm, `evaluations` up to 20 numbers from 1 to 200, `grid`
        logsnr, trailing, uniform or karras. The error is the root mean square over the picture
        against 1000 evaluations, in grey levels of 255; heun takes an odd number of evaluations.
        Streams what is known so far; with the last answer (done) come the pictures as PNG.
        """
        with told(language):
            check_language(language)
            request = checked(seed, model, label, samplers, grid, evaluations)
            sent = -math.inf
            for _, board in self._boards(request):
                if board.seconds is not None or time.monotonic() > sent + EVERY:
                    yield _numbers(board)
                    sent = time.monotonic()

    def _boards(self, request: Request) -> Iterator[tuple[tuple[int, int], Board]]:
        """((evaluations done, in all), what is known) after every event."""
        with self._lock:
            reference = self._references.get(request.key)
            if reference is not None:
                self._references.move_to_end(request.key)
        board, begun = Board(request, reference, {}), time.monotonic()
        total = sum(request.evaluations) * len(request.samplers)
        done, ahead = 0, 0 if reference is not None else REFERENCE
        yield (0, total + ahead), board
        for event in timed(self._run(request, reference is not None)):
            if event is None:
                continue
            if isinstance(event, Tensor):
                self._remember(request.key, event)
                board = replace(board, reference=event)
            elif isinstance(event, Result):
                key = event.sampler, event.evaluations
                board = replace(board, results={**board.results, key: event})
            done = event if isinstance(event, int) else done
            done += event.evaluations if isinstance(event, Result) else 0
            yield (done, total + ahead), board
        yield (1, 1), replace(board, seconds=time.monotonic() - begun)

    def _remember(self, key: tuple[Any, ...], reference: Tensor) -> None:
        with self._lock:
            self._references[key] = reference
            while len(self._references) > KEPT:
                self._references.popitem(last=False)


def checked(
    seed: Any, model: Any, label: Any, samplers: Any, grid: Any, evaluations: Any
) -> Request:
    """The race of these values.

    Raises:
        Refused: One of them is unknown, of the wrong type or out of its limits.
    """
    names = _several("samplers", samplers, MOST)
    counts = _several("evaluations", evaluations, LONGEST)
    chosen = {check_choice("sampler", name, tuple(THEORY)) for name in names}
    request = Request(
        seed=check_whole("seed", seed, *LIMITS["seed"]),
        model=check_choice("model", model, MODELS),
        label=check_label(label),
        samplers=tuple(sorted(chosen, key=list(THEORY).index)),
        grid=check_choice("grid", grid, tuple(GRIDS)),
        evaluations=tuple(
            sorted({check_whole("evaluations", count, 1, LARGEST) for count in counts})
        ),
    )
    if (whole := sum(request.evaluations) * len(request.samplers)) > WHOLE:
        raise Refused("race.whole", value=whole, limit=WHOLE)
    return request


def run(
    model: PixelDiffusion, request: Request, known: bool = False
) -> Generator[int | Tensor | Result | None]:
    """Evaluations of the reference that are done, the reference, then results as they come.

    None comes after every step of a sampler: a place to stop.

    Args:
        model: The denoiser.
        request: Checked.
        known: Whether the reference is, so that it need not be made.
    """
    cond = model.condition([request.label])
    denoiser, grid = Clipped(model.denoiser), GRIDS[request.grid]
    rngs = [torch.Generator().manual_seed(request.seed)]
    shape, device = (3, model.size, model.size), cond["label"].device
    x = noise(rngs, shape, device=device) * denoiser.schedule.level(1.0).sigma
    if not known:
        for state in DPMPP2M(grid=grid).trajectory(denoiser, x, REFERENCE, cond):
            if state.step % 20 == 0:
                yield state.step
        yield state.x.cpu()
    made: dict[tuple[str, int], Result] = {}
    for count in request.evaluations:
        for name in request.samplers:
            sampler = replace(SAMPLERS[name], grid=grid)
            steps = (count + 1) // 2 if isinstance(sampler, Heun) else count  # 2n − 1 evaluations
            if (name, steps) not in made:
                seconds, begun = 0.0, time.perf_counter()
                for state in sampler.trajectory(denoiser, x, steps, cond):
                    picture = state.x.cpu()  # waits for the device
                    seconds += time.perf_counter() - begun
                    yield None
                    begun = time.perf_counter()
                made[name, steps] = Result(name, count, state.nfe, seconds, picture)
            yield replace(made[name, steps], evaluations=count)


def order(points: Sequence[tuple[int, float]]) -> float:
    """−slope of ln e over ln n for n ≥ 10, by least squares; NaN for less than three points."""
    large = [(n, e) for n, e in points if n >= LARGE and e > FLOOR]
    if len(large) < 3:
        return math.nan
    n, e = np.log(np.array(large)).T
    return -float(np.polyfit(n, e, 1)[0])


def _several(name: str, values: Any, most: int) -> list[Any]:
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= most:
        raise Refused("race.list", name=argument(name), value=shown(values), most=most)
    return list(values)


def _numbers(board: Board) -> dict[str, Any]:
    """What is known, for an API client."""
    finished, samplers = board.seconds is not None, board.request.samplers
    results = []
    for one in board.results.values():
        row = {"sampler": one.sampler, "evaluations": one.evaluations, "nfe": one.nfe}
        row |= {"error": _finite(board.error(one)), "seconds": one.seconds}
        results.append(row | ({"png": _png(one.picture)} if finished else {}))
    orders = {
        name: {"theory": THEORY[name], "fitted": _finite(board.fitted(name))} for name in samplers
    }
    answer = {"done": finished, "reference": {"evaluations": REFERENCE}, "results": results}
    if finished and board.reference is not None:
        answer["reference"]["png"] = _png(board.reference)
    return answer | {"orders": orders, "seconds": board.seconds}


def _answer(board: Board) -> dict[str, Any]:
    """What is known, for the browser: the script chooses the column of the slider."""
    request, results = board.request, board.results
    counts, samplers = request.evaluations, request.samplers
    rows, captions = [], []
    for name in samplers:
        runs = [results.get((name, count)) for count in counts]
        rows.append([next(pixels(one.picture)) if one else None for one in runs])
        captions.append([_caption(board, one) if one else "" for one in runs])
    names = [(name, COLOURS[name]) for name in samplers]
    answer: dict[str, Any] = {"columns": list(counts), "captions": captions, "names": names}
    if board.reference is not None:
        size = board.reference.shape[-1]
        first = [next(pixels(board.reference)), *[None] * (len(counts) - 1)]
        answer |= {"sheet": sheet_url([first, *rows], size, board.seconds is not None)}
        answer["size"] = size
    answer["says"] = [_said(board, count) for count in counts]
    answer["slots"] = {
        "race.chart": _chart(board),
        "race.table": _table(board),
        "race.fit": _fit(board),
    }
    table = [
        (one.sampler, one.evaluations, one.nfe, board.error(one), one.seconds)
        for one in results.values()
    ]
    columns = "sampler,evaluations,nfe,error_grey_levels,seconds"
    answer["files"] = {"race": table_file("noise-race.csv", columns, table)} if table else {}
    return answer


def _chart(board: Board) -> str:
    request = board.request
    low, high = request.evaluations[0], request.evaluations[-1]
    first = max(tick for tick in TICKS if tick < low or tick == 1)
    last = next(tick for tick in TICKS if tick >= max(high, 2))
    across = Across([tick for tick in TICKS if first <= tick <= last], log=True)
    curves = []
    for name in request.samplers:
        points = board.points(name)
        x, y = zip(*points) if points else ((), ())
        curves.append(Curve(COLOURS[name], x, y, points, name))
    limits = None if board.results else (0.1, 100)
    return chart(curves, "e(n)", True, across, limits, FRAME, now=False)


def _table(board: Board) -> str:
    """One row for each sampler: orders, errors after 5 and 10 evaluations, time."""
    heads = ("sampler", "theory", "fitted", "five", "ten", "time")
    head = "".join(f"<th>{both(f'race.{key}')}</th>" for key in heads)
    rows = []
    for name in board.request.samplers:
        errors = (board.results.get((name, count)) for count in (5, 10))
        values = [board.fitted(name), *(board.error(e) if e else math.nan for e in errors)]
        digits = (2, 3, 3)
        cells = [spans(number(value, n)) for value, n in zip(values, digits)]
        cells.append(spans(number(1000 * board.each(name), 3)))
        line = "".join(f"<td>{cell}</td>" for cell in (THEORY[name], *cells))
        rows.append(f'<tr><th><b class="gk-{COLOURS[name]}">●</b> {name}</th>{line}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _caption(board: Board, one: Result) -> str:
    error = number(board.error(one), 3)
    return f"{both('race.caption', nfe=one.nfe, error=error)}"


def _said(board: Board, count: int) -> str:
    """Who is first and who is last after so many evaluations."""
    runs = [one for (_, n), one in board.results.items() if n == count]
    runs = sorted((one for one in runs if math.isfinite(board.error(one))), key=board.error)
    if not runs:
        return both("race.waiting", count=count)
    best, worst = (number(board.error(one), 3) for one in (runs[0], runs[-1]))
    names = {"first": runs[0].sampler, "last": runs[-1].sampler}
    if len(runs) == 1:
        return both("race.alone", count=count, first=names["first"], best=best)
    return both("race.now", count=count, best=best, worst=worst, **names)


def _fit(board: Board) -> str:
    """The measured orders in one line."""
    fits = {name: board.fitted(name) for name in board.request.samplers}
    known = [f"{name} {spans(number(p, 2))}" for name, p in fits.items() if math.isfinite(p)]
    return ", ".join(known) or "–"


def _status(done: int, whole: int, board: Board) -> str:
    if board.seconds is not None:
        return both("race.done", seconds=number(board.seconds, 3))
    if board.reference is None:
        return both("race.reference", done=done, all=REFERENCE)
    return both("race.running", done=done, all=whole)


def _png(picture: Float[Tensor, "1 3 H W"]) -> str:
    return sheet_url([[next(pixels(picture))]], picture.shape[-1])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def section(words: Words, studio: Studio, language: gr.Radio) -> None:
    """The section in the current context: figure on the left, words and controls on the right."""
    race = Race(studio)
    asked = (SEED, MODELS[1], "", FIRST, "logsnr")
    start = _answer(Board(checked(*asked, EVALUATIONS), None, {}))
    with gr.Row(elem_id="gk-race", elem_classes="gk-part"):
        with gr.Column(scale=7, min_width=320, elem_classes="gk-figure"):
            html_part(_figure(start))
        with gr.Column(scale=5, min_width=320, elem_classes="gk-text"):
            now = place("race.now", "span", content=both("race.lead"))
            html_part(f"<h2>{both('race.title')}</h2><p>{now}</p>")
            fields = _controls(words)
            pair = buttons(words, "race.run", "race.stop")
            places = answered("race", both("race.quiet"))
            why = formula(both("race.why", orders=Live("race.fit")))
            html_part(
                f"<details><summary>{both('noise.why')}</summary><p>{why}</p></details>"
                f'<p class="gk-files">{link("race", "race.csv")}</p>'
            )
    wire("race", race.show, [language, *fields], pair, places)
    gr.api(endpoint(race.race, "race"), api_name="race", **HEAVY)


def _controls(words: Words) -> list[gr.components.Component]:
    small = {"min_width": 130}
    samplers = words.add(
        gr.CheckboxGroup, "race.samplers", choices=list(THEORY), value=list(FIRST)
    )
    with gr.Row(elem_classes="gk-fields"):
        model = words.add(
            gr.Dropdown, "race.model", choices=list(MODELS), value=MODELS[1], **small
        )
        label = words.add(gr.Dropdown, "race.label", choices=choices(), value="", **small)
    with gr.Row(elem_classes="gk-fields"):
        grid = words.add(gr.Dropdown, "race.grid", choices=list(GRIDS), value="logsnr", **small)
        seed = words.add(gr.Number, "race.seed", value=SEED, **small)
    return [seed, model, label, samplers, grid]


def _figure(start: dict[str, Any]) -> str:
    """The chart, the table, and a picture for each sampler under the slider."""
    slots, last = start["slots"], len(start["columns"]) - 1
    index, counts = start["columns"].index(10), ",".join(map(str, start["columns"]))
    names = [both("race.truth")]
    names += [f'<i class="gk-{COLOURS[name]}">●</i> {name}' for name in FIRST]
    tiles = "".join(
        f'<figure data-tile="{i}"{"" if name else EMPTY}><canvas width="32" height="32"></canvas>'
        f"<figcaption><b>{name}</b><span></span></figcaption></figure>"
        for i, name in enumerate([*names, *[""] * (MOST - len(FIRST))])
    )
    return (
        f'<p class="gk-axis">{both("race.upright")}</p>'
        f"{place('race.chart', look='gk-race-chart', content=slots['race.chart'])}"
        f'<p class="gk-axis gk-across">{both("race.across")}</p>'
        f'<label class="gk-time"><span>{both("race.slider")} <b data-part="race.count">10</b>'
        f'</span><input id="gk-race-count" type="range" min="0" max="{last}" value="{index}" '
        f'step="1" data-columns="{counts}"></label><div class="gk-tiles">{tiles}</div>'
        f"{place('race.table', look='gk-race-table', content=slots['race.table'])}"
    )
