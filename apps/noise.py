"""Noise: how a picture drowns in it, under two schedules side by side, and the way back.

The controls stand on the left, the picture at the time of the slider on the right, and below it
one section for each figure, with what it means beside it. Every place is there from the start and
only its contents change: `explorer.Explorer` makes them in one request, `genkit.noise` (page.js)
puts them in and answers the slider alone. What a model makes of the noise follows, a file for
each section.

    python -m apps.noise        runs this page alone
"""

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from apps import Page, bound, race, steer
from apps.common import LIGHT, TOLD, Studio, follow, footer, header, html_part
from apps.explorer import LETTERS, Explorer
from apps.forward import FRAMES, GRIDS, KINDS
from apps.section import formula
from apps.text import Words, both

__all__ = ["page"]

FIRST = {"a": "linear", "b": "cosine"}
"""The schedules with which the page opens."""
SEED = 210_033
STEPS = {"s": 0.001, "start": 0.5, "end": 0.5, "tau": 0.1, "shift": 0.5, "rho": 1, "T": 1}
"""How far an arrow key moves a parameter, where it is not 0.0001."""
DEFAULTS = {name: value for kind in KINDS.values() for name, value in kind.defaults.items()}
SHARED: dict[str, Any] = {"concurrency_id": "noise", "concurrency_limit": 2}
"""No model runs here, so drawing does not wait for it, nor it for drawing."""
SYMBOLS = {"beta": "β_k", "alpha_bar": "ᾱ_k = α_k²", "sigma": "σ_k", "log_snr": "ln α_k²/σ_k²"}

Fields = dict[str, gr.components.Component]


def page(blocks: gr.Blocks, studio: Studio, pages: Sequence[Page]) -> None:
    """Fills the current context with the page."""
    explorer, words = Explorer(studio), Words()
    language = header(words, "noise", pages)
    picture = gr.State(None)
    with gr.Row(elem_id="gk-desk", elem_classes="gk-noise-desk"):
        with gr.Column(scale=5, min_width=320, elem_id="gk-noise-controls"):
            parts = _picture(words)
            sides = {letter: _side(words, letter) for letter in LETTERS}
            with gr.Row(elem_classes="gk-fields"):
                parts["grid"] = words.add(
                    gr.Dropdown, "grid", choices=list(GRIDS), value="trailing", min_width=150
                )
                parts["steps"] = words.add(gr.Number, "steps", value=20, min_width=110)
            note = html_part("", elem_id="gk-noise-note")
        with gr.Column(scale=7, min_width=320, elem_id="gk-noise-view"):
            html_part(_stage())
    html_part(_sections(), elem_id="gk-noise-figures")
    answer = html_part("", elem_id="gk-noise-answer")
    _events(blocks, explorer, language, parts, sides, (picture, answer, note))
    back = f"<h2>{both('noise.back.title')}</h2><p>{both('noise.back.lead')}</p>"
    html_part(back, elem_id="gk-noise-back")
    bound.section(words, studio, language, picture, parts["seed"])
    race.section(words, studio, language)
    steer.section(words, studio, language)
    footer()
    follow(blocks, words, language)


def _picture(words: Words) -> Fields:
    parts: Fields = {}
    lead = f"<h1>{both('noise.title')}</h1><p>{both('noise.lead')}</p>"
    html_part(lead, elem_id="gk-noise-lead")
    with gr.Row(elem_id="gk-noise-picture", equal_height=True):
        parts["seed"] = words.add(gr.Number, "scene", value=SEED, min_width=150)
        with gr.Column(min_width=170):
            parts["another"] = words.add(gr.Button, "another", size="sm")
            parts["upload"] = words.add(gr.UploadButton, "own", size="sm")
    return parts


def _side(words: Words, letter: str) -> Fields:
    """The fields of one schedule; the sheet of styles shows those of the chosen kind."""
    kind, fields = FIRST[letter], {}

    def add(component: Any, name: str, **options: Any) -> None:
        ident = {"elem_id": f"gk-{letter}-{name}"}
        fields[name] = words.add(component, name, **ident, **options)

    with gr.Column(elem_id=f"gk-side-{letter}", elem_classes=["gk-side", f"gk-kind-{kind}"]):
        html_part(f'<b class="gk-letter gk-{letter}">{letter.upper()}</b>')
        with gr.Row(elem_classes="gk-fields"):
            choices = [(one.label, name) for name, one in KINDS.items()]
            add(gr.Dropdown, "kind", choices=choices, value=kind, scale=3, min_width=200)
            add(gr.Number, "T", value=1000, scale=1, min_width=90)
        with gr.Row(elem_classes="gk-fields gk-parameters"):
            for name, value in (DEFAULTS | KINDS[kind].defaults).items():
                shown = [f"gk-of-{one}" for one, entry in KINDS.items() if name in entry.defaults]
                step = STEPS.get(name, 0.0001)
                add(gr.Number, name, value=value, step=step, min_width=90, elem_classes=shown)
        chains = [f"gk-of-{name}" for name, one in KINDS.items() if one.chain]
        add(gr.Checkbox, "zero_terminal_snr", value=False, elem_classes=chains)
    return fields


def _events(
    blocks: gr.Blocks,
    explorer: Explorer,
    language: Any,
    parts: Fields,
    sides: dict[str, Fields],
    kept: tuple[Any, Any, Any],
) -> None:
    picture, answer, note = kept
    private = {"api_visibility": "private", "show_progress": "hidden"}
    fields = [sides[letter][name] for letter in LETTERS for name in sides[letter]]
    names = list(sides["a"])

    def explore(own: bytes | None, seed: Any, grid: Any, steps: Any, *values: Any) -> Any:
        halves = (values[: len(names)], values[len(names) :])
        a, b = (_asked(dict(zip(names, half))) for half in halves)
        return explorer.explore(own, seed, grid, steps, a, b)

    inputs = [picture, parts["seed"], parts["grid"], parts["steps"], *fields]
    for letter in LETTERS:
        _choosing(letter, sides[letter])
    opened = [language, parts["upload"]]
    own = parts["upload"].upload(explorer.open_picture, opened, picture, **TOLD)
    last = {"trigger_mode": "always_last"}
    scene = parts["seed"].input(lambda: None, None, picture, **last, **LIGHT)
    fresh = [parts["seed"], picture]
    other = parts["another"].click(lambda: (explorer.another(), None), None, fresh, **LIGHT)
    asking = {"inputs": inputs, "outputs": [answer, note]} | private | SHARED
    # Not a typed seed: it also drops the visitor's own picture, and asks after that.
    typed = [blocks.load, *(one.change for one in inputs[2:])]
    asked = gr.on(typed, explore, trigger_mode="always_last", **asking)
    # The picture is kept by the server, whose change the browser does not see.
    kept_here = (one.success(explore, **asking) for one in (own, scene, other))
    for one in (asked, *kept_here):
        show = "(text) => genkit.noise.show(text)"
        one.then(fn=None, inputs=[answer], js=show, queue=False, **private)
    gr.api(_endpoint(explorer.noise), api_name="noise", **SHARED)


def _choosing(letter: str, fields: Fields) -> None:
    """Another kind shows its own fields, with the published values, in the browser at once."""
    names = list(DEFAULTS)
    known = json.dumps({kind: dict(one.defaults) for kind, one in KINDS.items()})
    chains = json.dumps([kind for kind, one in KINDS.items() if one.chain])
    js = f"""(kind, zero, ...now) => {{
        genkit.noise.kind("{letter}", kind);
        const values = {known}[kind] || {{}};
        return [zero && {chains}.includes(kind),
                ...{json.dumps(names)}.map((name, i) => values[name] ?? now[i])]; }}"""
    places = [fields["zero_terminal_snr"], *(fields[name] for name in names)]
    fields["kind"].change(
        fn=None, inputs=[fields["kind"], *places], outputs=places, js=js, queue=False,
        api_visibility="private",
    )  # fmt: skip


def _asked(values: dict[str, Any]) -> dict[str, Any]:
    """The values of one side as an API client would send them: those of its kind only."""
    entry = KINDS.get(values["kind"])
    names = ("kind", "T", "zero_terminal_snr", *(entry.defaults if entry else ()))
    return {name: values[name] for name in names}


def _endpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """A method for `gr.api`, which wants a function that is its own."""

    def noise(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    noise.__signature__ = inspect.signature(function)
    noise.__annotations__ = function.__annotations__
    noise.__doc__ = function.__doc__
    return noise


class _Live:
    """A place for a number that follows the slider, in a text of `both`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __format__(self, spec: str) -> str:
        return f'<b class="gk-live" data-live="{self.path}"></b>'


def _live(*names: str) -> dict[str, _Live]:
    """{name}_a and {name}_b for the gaps of a text."""
    return {f"{name}_{one}": _Live(f"{one}.{name}") for name in names for one in LETTERS}


def _stage() -> str:
    """The picture at the slider's time under both schedules, the slider, and the strips."""
    frames = "".join(
        f'<figure class="gk-card"><div class="gk-frame">{_canvas(one, 128)}</div><figcaption>'
        f'<p class="gk-side-name"><b class="gk-letter gk-{one}">{one.upper()}</b>'
        f'<span data-slot="title-{one}"></span></p>'
        f'<p class="gk-numbers">k = {_Live(f"{one}.k")} · α = {_Live(f"{one}.alpha")}'
        f" · σ = {_Live(f'{one}.sigma')}</p></figcaption></figure>"
        for one in LETTERS
    )
    strips = "".join(f'<div class="gk-film" data-film="{one}"></div>' for one in LETTERS)
    return (
        f'<div class="gk-pair">{frames}</div><label class="gk-time"><span>{both("noise.time")}'
        f'</span><input id="gk-time" type="range" min="0" max="{FRAMES - 1}" value="10" step="1">'
        f'</label><div class="gk-films"><div class="gk-ends"><i>x<sub>0</sub></i>'
        f"<span>{both('noise.strip')}</span><i>x<sub>T</sub></i></div>{strips}</div>"
    )


def _sections() -> str:
    """One section for each figure: the figure, what it says now, what it means, its data."""
    charts = "".join(
        f'<figure><figcaption>{formula(symbol)}</figcaption><div class="gk-place" '
        f'data-slot="chart-{name}"></div></figure>'
        for name, symbol in SYMBOLS.items()
    )
    bars = "".join(
        f'<figure><figcaption><b class="gk-letter gk-{one}">{one.upper()}</b></figcaption>'
        f'<div class="gk-place" data-slot="histogram-{one}"></div></figure>'
        for one in LETTERS
    )
    ends = "".join(f'<div data-slot="end-{one}"></div>' for one in LETTERS)
    return "".join((
        _section("curves", f'<div class="gk-charts">{charts}</div>{_legend()}',
                 both("noise.curves.now", **_live("snr")), "curves", "steps"),
        _section("histogram", f'<div class="gk-charts">{bars}</div>',
                 both("noise.histogram.now", **_live("bits", "each")), "histogram", after=ends),
        _section("chain", _chain(), both("noise.chain.now", **_live("apart")), "chain"),
        _exchange(),
    ))  # fmt: skip


def _section(name: str, figure: str, now: str, *files: str, after: str = "") -> str:
    why = formula(both(f"noise.{name}.why", **_live("alpha", "sigma", "bits")))
    links = "".join(_link(file, f"noise.csv.{file}") for file in files)
    return (
        f'<section id="gk-section-{name}"><div class="gk-figure">{figure}</div>'
        f"<div class='gk-text'><h2>{both(f'noise.{name}.title')}</h2><p>{formula(now)}</p>{after}"
        f"<details><summary>{both('noise.why')}</summary><p>{why}</p></details>"
        f'<p class="gk-files">{links}</p></div></section>'
    )


def _chain() -> str:
    """Jump and walk as pictures, and a table of what was measured of each."""
    tables = []
    for one in LETTERS:
        rows = "".join(
            f"<tr><th>{formula(both(f'noise.measure.{name}'))}</th><td>{theory}</td>"
            f'<td data-live="{one}.{name}-jump"></td><td data-live="{one}.{name}-chain"></td></tr>'
            for name, theory in (
                ("slope", f'<span data-live="{one}.alpha"></span>'),
                ("mean", "0"),
                ("noise", f'<span data-live="{one}.sigma"></span>'),
            )
        )
        head = "".join(f"<th>{both(f'noise.{key}')}</th>" for key in ("theory", "jump", "walk"))
        tables.append(
            f'<div class="gk-way"><b class="gk-letter gk-{one}">{one.upper()}</b>'
            f'<div class="gk-ways"><figure>{_canvas(one, 128)}<figcaption>{both("noise.jump")}'
            f"</figcaption></figure><figure>{_canvas(f'{one}-walk', 64)}"
            f"<figcaption>{both('noise.walk')}</figcaption></figure></div>"
            f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )
    return "".join(tables)


def _exchange() -> str:
    sides = "".join(
        f'<p class="gk-files"><b class="gk-letter gk-{one}">{one.upper()}</b>'
        f"{_link(f'diffusers-{one}', 'noise.diffusers.save')}"
        f'<span data-slot="diffusers-{one}"></span></p>'
        for one in LETTERS
    )
    title, lead = both("noise.diffusers.title"), both("noise.diffusers.lead")
    return (
        f'<section id="gk-section-diffusers"><div class="gk-text"><h2>{title}</h2>'
        f"<p>{lead}</p></div><div class='gk-figure'>{sides}</div></section>"
    )


def _legend() -> str:
    names = "".join(
        f'<span><b class="gk-letter gk-{one}">{one.upper()}</b>'
        f'<span data-slot="title-{one}"></span></span>'
        for one in LETTERS
    )
    return f'<p class="gk-legend">{names}<span>● {both("noise.dots")}</span></p>'


def _canvas(sheet: str, size: int) -> str:
    return f'<canvas data-sheet="{sheet}" width="{size}" height="{size}"></canvas>'


def _link(file: str, key: str) -> str:
    return f'<a class="gk-save" data-file="{file}" download>{both(key)}</a>'


if __name__ == "__main__":
    from apps import launch

    launch("noise")
