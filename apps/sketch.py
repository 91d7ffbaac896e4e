"""Sketch: a drawing and a prompt become a picture, while one draws.

The page in the order in which it is read: what to draw, the board and the picture side by side,
examples; how closely to follow; strength × seed; receipts. `easel.Easel` says what happens,
`canvas` and static/sketch.js draw the board, this file says where things stand and which control
starts what.

Live works like this: when a stroke ends, the script presses a hidden button, whose event asks the
quick model for a picture; strokes that end meanwhile wait and are asked for together. When nobody
has drawn for a moment, it presses Draw.

    python -m apps.sketch        runs this page alone
"""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from apps import Page, canvas
from apps.common import HEAVY, LIGHT, TOLD, Studio, follow, footer, furnish, header, html_part
from apps.easel import SEEDS, THRESHOLDS, Easel
from apps.meter import sheet
from apps.section import answered, buttons, endpoint, place, wire
from apps.settings import MAX_CHARACTERS, MODELS
from apps.text import Pair, Words, both, locale
from apps.traced import DEFAULTS, NAMES, PICTURES, SHARES, STEPS, STRENGTHS
from genkit.data.hints import HIGH, LOW

__all__ = ["page"]

SEND = "(language, sent, ...values) => [language, genkit.sketch.sent(), ...values]"
"""Puts the drawing of the moment in its place among the inputs."""
PRIVATE = {"api_visibility": "private"}


def page(blocks: gr.Blocks, studio: Studio, pages: Sequence[Page]) -> None:
    """Fills the current context with the page."""
    easel, words = Easel(studio), Words()
    language = header(words, "sketch", pages)
    furnish(blocks, "sketch")
    html_part(f"<h1>{both('sketch.title')}</h1><p>{both('sketch.lead')}</p>", elem_id="gk-sketch")
    sent = gr.Textbox(visible=False)
    controls: dict[str, Any] = {}
    controls["prompt"], pair = _prompt(words)
    with gr.Row(elem_id="gk-sketch-desk", equal_height=False):
        with gr.Column(scale=1, min_width=320, elem_id="gk-sketch-board"):
            html_part(canvas.board(), elem_id="gk-easel")
            photo = _photo(words)
            html_part(canvas.examples(), elem_id="gk-sketch-examples")
            live = words.add(gr.Checkbox, "sketch.live", value=True)
            controls |= _settings(words)
        with gr.Column(scale=1, min_width=320, elem_id="gk-sketch-result"):
            places = answered("sketch", both("sketch.quiet"))
            html_part(_result(), elem_id="gk-sketch-view")
            alone = _alone(words)
    inputs = [language, sent, *(controls[name] for name in NAMES)]
    wire("sketch", easel.draw, inputs, pair, places, js=SEND)
    wire("alone", easel.alone, inputs, *alone, js=SEND)
    _live(easel, inputs, live)
    _sheet(easel, words, inputs)
    _edges(easel, language, photo)
    _receipts(easel, words, language, [controls[name] for name in NAMES])
    again = {"fn": None, "js": "() => { genkit.sketch.changed(); }", "queue": False} | PRIVATE
    controls["strength"].release(**again)
    controls["seed"].submit(**again)
    controls["prompt"].submit(fn=None, js="() => { genkit.sketch.refine(); }", **PRIVATE)
    manner = [controls["num_inference_steps"], controls["guess"]]
    controls["model"].input(_manner, controls["model"], manner, **LIGHT)
    gr.api(endpoint(easel.sketch, "sketch"), api_name="sketch", **HEAVY)
    footer()
    follow(blocks, words, language)


def _prompt(words: Words) -> tuple[Any, Any]:
    with gr.Row(elem_id="gk-sketch-prompt", equal_height=False):
        look = {"max_length": MAX_CHARACTERS, "elem_classes": "gk-text", "scale": 4}
        prompt = words.add(gr.Textbox, "sketch.prompt", lines=1, max_lines=3, **look)
        with gr.Column(scale=2, min_width=240):
            pair = buttons(words, "sketch.draw", "sketch.halt")
    return prompt, pair


def _settings(words: Words) -> dict[str, Any]:
    """The controls of how closely, how many and how."""
    made: dict[str, Any] = {}

    def slider(name: str, limits: Sequence[float], step: float) -> None:
        low, high = limits
        value = getattr(DEFAULTS, name)
        made[name] = words.add(
            gr.Slider, f"sketch.{name}", minimum=low, maximum=high, step=step, value=value
        )

    slider("strength", STRENGTHS, 0.05)
    with gr.Row(elem_id="gk-sketch-number"):
        slider("n", PICTURES, 1)
        made["seed"] = words.add(gr.Number, "sketch.seed", value=DEFAULTS.seed, min_width=120)
    with words.add(gr.Accordion, "sketch.more", open=False):
        names = {name: Pair(*(locale(code)[f"sketch.model.{name}"] for code in ("en", "vi")))
                 for name in MODELS}  # fmt: skip
        choices = [(names[name], name) for name in MODELS]
        made["model"] = words.add(gr.Radio, "sketch.model", choices=choices, value=DEFAULTS.model)
        slider("num_inference_steps", STEPS, 1)
        with gr.Row():
            slider("start", SHARES, 0.05)
            slider("stop", SHARES, 0.05)
        made["guess"] = words.add(gr.Checkbox, "sketch.guess", value=DEFAULTS.guess)
    return made


def _manner(model: str) -> tuple[int, bool]:
    """The steps that the chosen model needs, and whether it can stress a drawing."""
    return MODELS[model].steps, MODELS[model].guided


def _photo(words: Words) -> tuple[Any, Any, Any]:
    """What makes a drawing of a photo; the script shows it on its tab only."""
    with gr.Column(elem_id="gk-photo"):
        file = words.add(gr.UploadButton, "sketch.photo", size="sm")
        low, high = (
            words.add(
                gr.Slider, f"sketch.{name}", minimum=THRESHOLDS[0], maximum=THRESHOLDS[1],
                step=5, value=value,
            )
            for name, value in (("low", LOW), ("high", HIGH))
        )  # fmt: skip
    return file, low, high


def _result() -> str:
    """The picture with the drawing over it, the others of the batch, and the meter."""
    return (
        '<div class="gk-frame gk-stack"><div class="gk-wait"></div>'
        '<img data-part="sketch.picture" alt="" hidden><canvas id="gk-overlay" width="512" '
        'height="512" aria-hidden="true"></canvas></div>'
        f'<label class="gk-time gk-over"><span>{both("sketch.overlay")}</span>'
        '<input id="gk-over" type="range" min="0" max="100" value="0"></label>'
        f"{place('sketch.thumbs', look='gk-thumbs')}"
        f'<div class="gk-line">{place("sketch.seed", "span", "gk-seed")}'
        f'<a class="gk-save" data-part="sketch.save" download hidden>{both("cards.save")}</a>'
        "</div>"
        f"{place('sketch.meter', look='gk-meter', content=_empty())}"
    )


def _empty() -> str:
    return f'<p class="gk-note">{both("sketch.meter.quiet")}</p>'


def _alone(words: Words) -> tuple[Any, Any]:
    """The same seed without the drawing, for comparison."""
    with gr.Column(elem_id="gk-alone"):
        pair = buttons(words, "sketch.alone", "sketch.halt.alone")
        places = answered("alone", "")
        html_part(
            '<figure hidden><img data-part="alone.picture" alt=""><figcaption>'
            f"{both('sketch.alone.caption')}{place('alone.meter', look='gk-meter')}"
            "</figcaption></figure>"
        )
    return pair, places


def _live(easel: Easel, inputs: list[Any], live: Any) -> None:
    """The hidden button that the script presses, and how it hears of the end."""
    press = gr.Button("live", elem_id="gk-live-run", elem_classes="gk-answer")
    answer = html_part("", elem_id="gk-live-answer", elem_classes="gk-answer")
    quick = {"fn": None, "queue": False} | PRIVATE
    run = press.click(
        easel.live, inputs, [answer], js=SEND, preprocess=False, show_progress="hidden",
        trigger_mode="multiple", **PRIVATE, **HEAVY,
    )  # fmt: skip
    run.then(js="() => { genkit.sketch.rest(); }", **quick)
    run.failure(js="() => { genkit.sketch.rest(true); }", **quick)
    answer.change(inputs=[answer], js="(text) => { genkit.sketch.show(text); }", **quick)
    live.change(inputs=[live], js="(on) => { genkit.sketch.live(on); }", **quick)


def _sheet(easel: Easel, words: Words, inputs: list[Any]) -> None:
    with gr.Column(elem_id="gk-sheet", elem_classes="gk-part"):
        html_part(f"<h2>{both('sketch.sheet.title')}</h2><p>{both('sketch.sheet.lead')}</p>")
        pair = buttons(words, "sketch.sheet.run", "sketch.halt.sheet")
        places = answered("grid", both("sketch.sheet.quiet"))
        html_part(
            place("grid.table", look="gk-sheet-table", content=sheet([], range(1, SEEDS + 1)))
        )
    wire("grid", easel.sheet, inputs, pair, places, js=SEND)


def _edges(easel: Easel, language: Any, photo: tuple[Any, Any, Any]) -> None:
    """The thresholds are shown while they are moved."""
    file, low, high = photo
    answer = html_part("", elem_id="gk-edges-answer", elem_classes="gk-answer")
    asked = {"inputs": [language, *photo], "outputs": answer} | TOLD
    file.upload(easel.edges, **asked)
    for threshold in (low, high):
        threshold.change(easel.edges, trigger_mode="always_last", **asked)
    show = "(text) => { genkit.sketch.paper(text); }"
    answer.change(fn=None, inputs=[answer], js=show, queue=False, **PRIVATE)


def _receipts(easel: Easel, words: Words, language: Any, settings: list[Any]) -> None:
    with gr.Column(elem_id="gk-receipts"):
        html_part(f"<h2>{both('receipt.heading')}</h2><p>{both('sketch.receipt')}</p>")
        with gr.Row():
            look = {"elem_classes": "gk-receipt", "min_width": 150}
            file = words.add(gr.UploadButton, "receipt.open", **look)
            verify = words.add(gr.Button, "verify", min_width=150)
        note = html_part("", elem_id="gk-receipt-note")
    back = html_part("", elem_id="gk-back-answer", elem_classes="gk-answer")
    file.upload(easel.open, [language, file], [*settings, back, note], **TOLD)
    show = "(text) => { genkit.sketch.back(text); }"
    back.change(fn=None, inputs=[back], js=show, queue=False, **PRIVATE)
    heavy = {"show_progress": "hidden"} | PRIVATE | HEAVY
    verify.click(easel.verify, [language, file], [note], **heavy)


if __name__ == "__main__":
    from apps import launch

    launch("sketch")
