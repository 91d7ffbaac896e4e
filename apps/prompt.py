"""Draw: a prompt becomes pictures.

The page in the order in which it is read: prompt, the words that the model does not know,
examples; draw, stop, surprise; the model, settings; the pictures; link, receipts. `handlers.Desk`
says what happens, this file says where things stand and which control starts what.

    python -m apps.prompt        runs this page alone
"""

import html
import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from apps import Page, cards
from apps.common import HEAVY, LIGHT, Studio, follow, footer, header, html_part
from apps.handlers import Desk
from apps.settings import (
    DEFAULTS,
    LIMITS,
    MAX_CHARACTERS,
    MODELS,
    NAMES,
    OWN,
    SHORT,
    defaults,
)
from apps.text import LANGUAGES, Pair, Words, both, say
from genkit.data.picturebook.caption import EXAMPLES

__all__ = ["page"]

STORAGE = {"storage_key": "genkit.prompt", "secret": "genkit: not secret, only fixed"}
_BUTTON = "{{__type__: 'update', interactive: {}}}"
BUSY = f"() => {{ genkit.begin(); return [{_BUTTON.format('false')}, {_BUTTON.format('true')}]; }}"
IDLE = f"() => [{_BUTTON.format('true')}, {_BUTTON.format('false')}]"
"""What [Draw, Stop] become, in the browser."""
STOPPED = json.dumps(f'<p class="gk-status" role="status">{both("status.stopped")}</p>')
SAVE = f"(...values) => [Object.fromEntries({json.dumps(NAMES)}.map((k, i) => [k, values[i]]))]"
CHIPS = 4
"""Examples of each language under the prompt."""

Controls = dict[str, gr.components.Component]


def page(blocks: gr.Blocks, studio: Studio, pages: Sequence[Page]) -> None:
    """Fills the current context with the page."""
    desk, words = Desk(studio), Words()
    language = header(words, "prompt", pages)
    saved = gr.BrowserState(None, **STORAGE)
    with gr.Row(elem_id="gk-desk"):
        with gr.Column(scale=5, min_width=320, elem_id="gk-controls"):
            controls, parts = _prompt(words)
            controls |= _settings(words, studio)
        with gr.Column(scale=7, min_width=320, elem_id="gk-results"):
            parts["status"] = html_part("", elem_id="gk-status")
            parts["pictures"] = html_part(cards.grid([]), elem_id="gk-pictures")
            parts |= _receipts(words)
    settings = [controls[name] for name in NAMES]
    _drawing_events(desk, language, settings, parts)
    _prompt_events(desk, language, controls, parts)
    _model_event(controls)
    _receipt_events(desk, language, settings, parts)
    _memory(blocks, desk, saved, settings, parts["status"])
    footer()
    follow(blocks, words, language)


def _prompt(words: Words) -> tuple[Controls, dict[str, Any]]:
    controls: Controls = {}
    parts: dict[str, Any] = {}
    text = {"max_length": MAX_CHARACTERS, "elem_classes": "gk-text"}
    controls["prompt"] = words.add(
        gr.Textbox, "prompt", lines=3, max_lines=6, autofocus=True, **text
    )
    parts["notice"] = html_part("", elem_id="gk-notice")
    parts["examples"] = html_part(_chips(), elem_id="gk-examples", js_on_load=_CHIP)
    with gr.Row(elem_id="gk-buttons"):
        parts["draw"] = words.add(gr.Button, "draw", variant="primary", scale=3, min_width=120)
        parts["stop"] = words.add(gr.Button, "stop", interactive=False, scale=1, min_width=80)
        parts["surprise"] = words.add(gr.Button, "surprise", scale=2, min_width=120)
    controls["model"] = words.add(gr.Radio, "model", choices=_models(), value=DEFAULTS.model)
    low, high = LIMITS["n"]
    controls["n"] = words.add(gr.Slider, "n", minimum=low, maximum=high, step=1, value=DEFAULTS.n)
    parts["last"] = gr.State(None)
    with gr.Row(elem_id="gk-seed"):
        # No minimum and maximum here: Gradio would refuse in English; `settings` does it.
        controls["seed"] = words.add(gr.Number, "seed", value=DEFAULTS.seed, min_width=150)
        with gr.Column(min_width=190):
            controls["randomize_seed"] = words.add(
                gr.Checkbox, "randomize_seed", value=DEFAULTS.randomize_seed
            )
            parts["reuse"] = words.add(gr.Button, "reuse", size="sm")
    return controls, parts


def _settings(words: Words, studio: Studio) -> Controls:
    controls: Controls = {}
    with words.add(gr.Accordion, "advanced", open=False):
        controls["negative_prompt"] = words.add(
            gr.Textbox, "negative_prompt", lines=1, max_lines=3, max_length=MAX_CHARACTERS
        )
        for name, step in (("num_inference_steps", 1), ("guidance_scale", 0.1)):
            low, high = LIMITS[name]
            value = getattr(DEFAULTS, name)
            controls[name] = words.add(
                gr.Slider, name, minimum=low, maximum=high, step=step, value=value
            )
        controls["sampler"] = words.add(
            gr.Dropdown, "sampler", choices=list(studio.samplers), value=DEFAULTS.sampler
        )
    return controls


def _receipts(words: Words) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Column(elem_id="gk-receipts"):
        html_part(f"<h2>{both('receipt.heading')}</h2><p>{both('receipt.help')}</p>")
        with gr.Row():
            parts["open"] = words.add(
                gr.UploadButton, "receipt.open", elem_classes="gk-receipt", min_width=150
            )
            parts["verify"] = words.add(gr.Button, "verify", min_width=150)
            parts["link"] = words.add(gr.Button, "link", min_width=150)
        parts["note"] = html_part("", elem_id="gk-receipt-note")
    return parts


def _drawing_events(desk: Desk, language: Any, settings: list[Any], parts: dict[str, Any]) -> None:
    """Draw, Stop and Verify; buttons change in the browser, after Stop when the run has ended."""
    buttons, private = [parts["draw"], parts["stop"]], {"api_visibility": "private"}
    quick = {"fn": None, "outputs": buttons, "queue": False} | private
    heavy = {"show_progress": "hidden"} | private | HEAVY
    outputs = [settings[NAMES.index("seed")], parts["last"], parts["status"], parts["pictures"]]
    drawing = (
        parts["draw"]
        .click(js=BUSY, **quick)
        .then(desk.draw, [language, *settings], outputs, preprocess=False, **heavy)
    )
    _after(drawing, quick, parts["status"])
    verifying = (
        parts["verify"]
        .click(js=BUSY, **quick)
        .then(desk.verify, [language, parts["open"]], [parts["note"]], **heavy)
    )
    _after(verifying, quick, parts["note"])
    parts["stop"].click(
        fn=None,
        js=f"() => {{ genkit.halted = true; return {STOPPED}; }}",
        outputs=[parts["status"]],
        cancels=[drawing, verifying],
        queue=False,
        **private,
    )
    gr.api(desk.endpoint, api_name="generate", **HEAVY)


def _after(work: Any, quick: dict[str, Any], told: Any) -> None:
    """The buttons as they were; `then` does not follow an error, as which Stop counts."""
    work.then(js=IDLE, **quick)
    failed = quick | {"outputs": [*quick["outputs"], told]}
    work.failure(js=f"() => [...({IDLE})(), genkit.halted ? {STOPPED} : '']", **failed)


def _prompt_events(desk: Desk, language: Any, controls: Controls, parts: dict[str, Any]) -> None:
    read = [controls[name] for name in ("prompt", "negative_prompt", "guidance_scale")]
    for control in read:
        control.change(
            desk.notice,
            read,
            parts["notice"],
            preprocess=False,
            trigger_mode="always_last",
            **LIGHT,
        )
    parts["examples"].click(_chosen, None, controls["prompt"], **LIGHT)
    parts["surprise"].click(desk.surprise, language, controls["prompt"], preprocess=False, **LIGHT)
    reuse = [controls["seed"], controls["randomize_seed"]]
    parts["reuse"].click(_reuse, [parts["last"], controls["seed"]], reuse, **LIGHT)


def _model_event(controls: Controls) -> None:
    """Who chooses a model gets its own steps, guidance and sampler; they can be changed after.

    `input`, not `change`: a link or a receipt names the model beside settings of its own.
    """
    own = {name: [getattr(defaults(name), setting) for setting in OWN] for name in MODELS}
    controls["model"].input(
        fn=None,
        inputs=[controls["model"]],
        outputs=[controls[setting] for setting in OWN],
        js=f"(model) => ({json.dumps(own)})[model]",
        queue=False,
        api_visibility="private",
    )


def _receipt_events(desk: Desk, language: Any, settings: list[Any], parts: dict[str, Any]) -> None:
    note = parts["note"]
    parts["open"].upload(desk.open_receipt, [language, parts["open"]], [*settings, note], **LIGHT)
    short = [[key, NAMES.index(name)] for key, name in SHORT.items()]
    copied = json.dumps(f'<p class="gk-note">{both("link.copied")}</p>')
    js = f"""async (...values) => {{
        await genkit.link(Object.fromEntries({json.dumps(short)}.map(([k, i]) => [k, values[i]])));
        return [{copied}]; }}"""
    parts["link"].click(fn=None, inputs=settings, outputs=[note], js=js, api_visibility="private")


def _memory(
    blocks: gr.Blocks, desk: Desk, saved: Any, settings: list[Any], status: gr.HTML
) -> None:
    """Opens with the settings of the link or of the last visit, and saves every change."""
    opening = {"inputs": [saved], "outputs": [*settings, status]} | LIGHT
    loading = blocks.load(desk.restore, preprocess=False, **opening)
    save = {"fn": None, "inputs": settings, "outputs": [saved], "js": SAVE, "queue": False}
    opened = f"(...values) => {{ genkit.opened(); return ({SAVE})(...values); }}"
    loading.then(api_visibility="private", **save | {"js": opened})
    for control in settings:
        control.change(api_visibility="private", show_progress="hidden", **save)


def _chosen(event: gr.EventData) -> str:
    return str(event.prompt)[:MAX_CHARACTERS]


def _reuse(last: int | None, seed: Any) -> tuple[Any, bool]:
    """The last seed, or the one in the box before the first picture; no longer random."""
    return (seed if last is None else last), False


def _models() -> list[tuple[Pair, str]]:
    """The models by what they are called in each language."""
    return [
        (Pair(*(say(code, f"model.{name}", steps=manner.steps) for code in LANGUAGES)), name)
        for name, manner in MODELS.items()
    ]


def _chips() -> str:
    """The example prompts of each language, of which the page shows one language's."""
    chips = (
        f'<button type="button" lang="{language}" data-prompt="{text}">{text}</button>'
        for language in LANGUAGES
        for text in map(html.escape, EXAMPLES[language][:CHIPS])
    )
    return f'<div class="gk-chips"><span>{both("examples.heading")}</span>{"".join(chips)}</div>'


_CHIP = """element.addEventListener("click", (event) => {
  const chip = event.target.closest("[data-prompt]");
  if (chip) trigger("click", { prompt: chip.dataset.prompt });
});"""


if __name__ == "__main__":
    from apps import launch

    launch("prompt")
