"""The score of a race: what an API client, the figure and the table are told of it."""

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor

from apps.cards import table_file
from apps.classes import pixels, sheet_url
from apps.contest import REFERENCE, THEORY, Board, Result
from apps.figure import Across, Curve, Frame, chart
from apps.text import both, number, or_none, spans

__all__ = ["COLOURS", "answer", "numbers", "status"]

COLOURS = {name: f"s{index + 1}" for index, name in enumerate(THEORY)}
TICKS = (1, 2, 5, 10, 20, 50, 100, 200)
FRAME = Frame(540, 300, 80)


def numbers(board: Board) -> dict[str, Any]:
    """What is known, for an API client."""
    finished, samplers = board.seconds is not None, board.request.samplers
    results = []
    for one in board.results.values():
        row = {"sampler": one.sampler, "evaluations": one.evaluations, "nfe": one.nfe}
        row |= {"error": or_none(board.error(one)), "seconds": one.seconds}
        results.append(row | ({"png": _png(one.picture)} if finished else {}))
    orders = {
        name: {"theory": THEORY[name], "fitted": or_none(board.fitted(name))} for name in samplers
    }
    given = {"done": finished, "reference": {"evaluations": REFERENCE}, "results": results}
    if finished and board.reference is not None:
        given["reference"]["png"] = _png(board.reference)
    return given | {"orders": orders, "seconds": board.seconds}


def answer(board: Board) -> dict[str, Any]:
    """What is known, for the browser: the script chooses the column of the slider."""
    request, results = board.request, board.results
    counts, samplers = request.evaluations, request.samplers
    rows, captions = [], []
    for name in samplers:
        runs = [results.get((name, count)) for count in counts]
        rows.append([next(pixels(one.picture)) if one else None for one in runs])
        captions.append([_caption(board, one) if one else "" for one in runs])
    names = [(name, COLOURS[name]) for name in samplers]
    given: dict[str, Any] = {"columns": list(counts), "captions": captions, "names": names}
    if board.reference is not None:
        size = board.reference.shape[-1]
        first = [next(pixels(board.reference)), *[None] * (len(counts) - 1)]
        given |= {"sheet": sheet_url([first, *rows], size, board.seconds is not None)}
        given["size"] = size
    given["says"] = [_said(board, count) for count in counts]
    given["slots"] = {
        "race.chart": _chart(board),
        "race.table": _table(board),
        "race.fit": _fit(board),
    }
    table = [
        (one.sampler, one.evaluations, one.nfe, board.error(one), one.seconds)
        for one in results.values()
    ]
    columns = "sampler,evaluations,nfe,error_grey_levels,seconds"
    given["files"] = {"race": table_file("noise-race.csv", columns, table)} if table else {}
    return given


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


def status(done: int, whole: int, board: Board) -> str:
    if board.seconds is not None:
        return both("race.done", seconds=number(board.seconds, 3))
    if board.reference is None:
        return both("race.reference", done=done, all=REFERENCE)
    return both("race.running", done=done, all=whole)


def _png(picture: Float[Tensor, "1 3 H W"]) -> str:
    return sheet_url([[next(pixels(picture))]], picture.shape[-1])
