"""The race on the page: the handlers, and the section with its figure and controls."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
from torch import Tensor

from apps.cards import progress
from apps.classes import MODELS, choices
from apps.common import HEAVY, Studio, html_part, timed, told
from apps.contest import GRIDS, MOST, REFERENCE, THEORY, Board, Request, Result, checked, run
from apps.scoreboard import COLOURS, answer, numbers, status
from apps.section import Live, answered, buttons, endpoint, formula, link, packed, place, wire
from apps.settings import check_language
from apps.text import Words, both

__all__ = ["EVALUATIONS", "Race", "section"]

EVALUATIONS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50)
FIRST = ("euler", "heun", "dpm++2m", "unipc")
"""The samplers with which the page opens."""
KEPT = 16
"""References that are remembered."""
EVERY = 0.6
"""Seconds between two pictures of a running race."""
SEED = 7
EMPTY = ' class="gk-empty"'


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
                yield progress(*done, status(*done, board)), packed(answer(board))
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
                    yield numbers(board)
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


def section(words: Words, studio: Studio, language: gr.Radio) -> None:
    """The section in the current context: figure on the left, words and controls on the right."""
    race = Race(studio)
    asked = (SEED, MODELS[1], "", FIRST, "logsnr")
    start = answer(Board(checked(*asked, EVALUATIONS), None, {}))
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
