"""VAE against diffusion: one picture, and what each of the models makes of it.

The picture stands on top: the visitor's own, or the scene of a seed. Below it two sections:

    travel    one picture, three ways: to the latents and back, and its bound taken apart
    between   what lies between pictures, what the models draw, and what they cost

Whenever the picture changes, the document hears the event `genkit:picture`, so that a section can
say that what it shows belongs to an earlier one.

    python -m apps.compare        runs this page alone
"""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from apps import Page, between, travel
from apps.common import LIGHT, TOLD, Studio, follow, footer, furnish, header, html_part
from apps.small import Small
from apps.text import Words, both

__all__ = ["page"]

SEED = 210_033


def page(blocks: gr.Blocks, studio: Studio, pages: Sequence[Page]) -> None:
    """Fills the current context with the page."""
    small, words = Small(studio), Words()
    language = header(words, "compare", pages)
    furnish(blocks, "compare")
    furnish(blocks, "between")
    picture = gr.State(None)
    seed = _picture(blocks, small, words, language, picture)
    travel.section(words, studio, language, picture, seed)
    between.section(words, studio, language, picture, seed)
    footer()
    follow(blocks, words, language)


def _picture(blocks: gr.Blocks, small: Small, words: Words, language: Any, picture: Any) -> Any:
    """The picture and what chooses it; returns the control of the seed."""
    with gr.Row(elem_id="gk-compare", equal_height=False):
        with gr.Column(scale=8, min_width=320, elem_id="gk-compare-lead"):
            html_part(f"<h1>{both('compare.title')}</h1><p>{both('compare.lead')}</p>")
            with gr.Row(elem_id="gk-compare-picture"):
                seed = words.add(gr.Number, "scene", value=SEED, min_width=150)
                with gr.Column(min_width=170):
                    other = words.add(gr.Button, "another", size="sm")
                    upload = words.add(gr.UploadButton, "own", size="sm")
        with gr.Column(scale=3, min_width=200, elem_id="gk-compare-view"):
            frame = '<figure class="gk-card"><div class="gk-frame">{}</div></figure>'
            view = html_part(html_template=frame.replace("{}", "${value}"))
            html_part(f'<p class="gk-note">{both("compare.small")}</p>')
    own = upload.upload(small.open, [language, upload], picture, **TOLD)
    # Another seed drops the visitor's own picture.
    typed = seed.input(lambda: None, None, picture, trigger_mode="always_last", **LIGHT)
    fresh = other.click(lambda: (small.another(), None), None, [seed, picture], **LIGHT)
    for event in (own, typed, fresh):
        event.success(small.shown, [language, picture, seed], view, **TOLD)
    blocks.load(small.shown, [language, picture, seed], view, **TOLD)
    changed = "() => { document.dispatchEvent(new Event('genkit:picture')); }"
    view.change(fn=None, js=changed, queue=False, api_visibility="private")
    return seed


if __name__ == "__main__":
    from apps import launch

    launch("compare")
