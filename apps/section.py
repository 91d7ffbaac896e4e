"""A section of a page that runs a model: its buttons, and how its answer reaches the browser.

The answer is one JSON text in a hidden place, `{"slots": name -> HTML, "files": …}` and what else
the section's script wants; each time it changes, `genkit.<name>.show` of `static/page.js` puts its
parts into the places `[data-part="<name>.…"]`, which are there from the start. Where the script
has them, `genkit.<name>.begin` and `.end` hear that a run begins and has ended.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from apps.common import HEAVY, html_part
from apps.text import Words, both

__all__ = ["Live", "answered", "buttons", "endpoint", "formula", "link", "packed", "place", "wire"]

_BUTTON = "{{__type__: 'update', interactive: {}}}"
BUSY = f"() => [{_BUTTON.format('false')}, {_BUTTON.format('true')}]"
IDLE = f"() => [{_BUTTON.format('true')}, {_BUTTON.format('false')}]"
"""What [run, stop] become, in the browser."""


class Live:
    """A number of the last answer inside a text of `both`; a dash before there is one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __format__(self, spec: str) -> str:
        return f'<b class="gk-live" data-part="{self.name}">–</b>'


def buttons(words: Words, run: str, stop: str) -> tuple[gr.Button, gr.Button]:
    """Run and Stop, by the keys of their texts."""
    with gr.Row(elem_classes="gk-run"):
        return (
            words.add(gr.Button, run, variant="primary", scale=3, min_width=140),
            words.add(gr.Button, stop, interactive=False, scale=1, min_width=80),
        )


def answered(name: str, quiet: str) -> tuple[gr.HTML, gr.HTML]:
    """(status, answer): a line that says what happens, and the hidden place of the JSON.

    Args:
        name: Of the section.
        quiet: What the line says before the first run, as HTML.
    """
    line = f'<div class="gk-progress"></div><p class="gk-status">{quiet}</p>'
    status = html_part(line, elem_id=f"gk-{name}-status", elem_classes="gk-run-status")
    return status, html_part("", elem_id=f"gk-{name}-answer", elem_classes="gk-answer")


def wire(
    name: str,
    function: Callable[..., Any],
    inputs: Sequence[Any],
    pair: tuple[gr.Button, gr.Button],
    places: tuple[gr.HTML, gr.HTML],
    js: str | None = None,
) -> None:
    """Run calls the generator, whose values are (status, answer); Stop ends it within a step.

    The buttons come back when the run has ended, which after Stop is when the server says so: a
    Run before that would be ended with it. `js` may put values of the browser among the inputs.
    """
    (run, stop), (status, answer) = pair, places
    private = {"api_visibility": "private"}
    quick = {"fn": None, "outputs": [run, stop], "queue": False} | private
    told = quick | {"outputs": [run, stop, status]}
    halted = f"genkit.halted_{name}"
    queued, stopped, failed = (
        json.dumps(f'<div class="gk-progress"></div><p class="gk-status" role="status">{text}</p>')
        for text in map(both, ("run.queued", "status.stopped", "run.failed"))
    )
    # Without the last answer: an equal one would not be a change, and would not be shown.
    hear = f"genkit.{name}?.begin?.(); {halted} = false;"
    begin = f"() => {{ {hear} return [...({BUSY})(), {queued}, '']; }}"
    working = run.click(js=begin, **told | {"outputs": [run, stop, status, answer]}).then(
        function, inputs, [status, answer], preprocess=False, show_progress="hidden", js=js,
        **private, **HEAVY,
    )  # fmt: skip
    idle = f"(() => {{ genkit.{name}?.end?.(); return ({IDLE})(); }})"
    working.then(js=idle, **quick)
    working.failure(js=f"() => [...{idle}(), {halted} ? {stopped} : {failed}]", **told)
    halt = f"() => {{ {halted} = true; return {stopped}; }}"
    stop.click(js=halt, cancels=[working], **told | {"outputs": [status]})
    show = f"(text) => {{ genkit.{name}.show(text); }}"
    answer.change(fn=None, inputs=[answer], js=show, queue=False, **private)


def endpoint(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A generator method for `gr.api`, which wants a function that is its own."""

    def call(*arguments: Any, **named: Any) -> Any:
        yield from function(*arguments, **named)

    call.__name__ = name
    call.__signature__ = inspect.signature(function).replace(return_annotation=dict[str, Any])
    call.__annotations__ = function.__annotations__
    call.__doc__ = function.__doc__
    return call


def packed(answer: Mapping[str, Any]) -> str:
    """The JSON of an answer, in which nothing can become a tag of the page that holds it."""
    return json.dumps(answer, ensure_ascii=True).replace("<", "\\u003c")


def formula(html: str) -> str:
    """Letters with an index, as x_k, x̂_0 or x_(k−1), and powers of 2 as they are printed."""
    html = re.sub(r"2\^(\w)", r"2<sup>\1</sup>", html)
    index = r"max|[0-9A-Za-z](?![0-9A-Za-z])|\(\w[−+]1\)"
    return re.sub(rf"(?<![\w.-])([A-Za-zα-ωᾱ]\u0302?)_({index})", _index, html)


def _index(match: re.Match[str]) -> str:
    return f"<i>{match[1]}</i><sub>{match[2].strip('()')}</sub>"


def place(name: str, kind: str = "div", look: str = "", content: str = "") -> str:
    """An element that the section's script fills."""
    return f'<{kind} class="{look}" data-part="{name}">{content}</{kind}>'


def link(file: str, key: str) -> str:
    """A link to a file of the answer; it shows when there is one."""
    return f'<a class="gk-save" data-save="{file}" download hidden>{both(key)}</a>'
