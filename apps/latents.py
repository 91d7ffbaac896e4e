"""Latents: four encoders see the same scenes, and each sorts them into a space of its own.

The four spaces stand side by side on top; below them what is said of them is put to the test, a
line is drawn between two pictures, and captions are held against a picture. `atlas.Atlas` makes
the spaces once, a file for each section asks it, and `static/latents.js` draws and compares points
in the browser.

    python -m apps.latents        runs this page alone
"""

from collections.abc import Sequence

import gradio as gr

from apps import Page, line, maps, match, verdicts
from apps.atlas import Atlas
from apps.common import STATIC, Studio, follow, footer, header, html_part
from apps.text import Words, both

__all__ = ["page"]

SCRIPT = (STATIC / "latents.js").read_text(encoding="utf-8")
STYLE = (STATIC / "latents.css").read_text(encoding="utf-8")


def page(blocks: gr.Blocks, studio: Studio, pages: Sequence[Page]) -> None:
    """Fills the current context with the page."""
    atlas, words = Atlas(studio), Words()
    # The script of this page alone; it is there before the first answer.
    blocks.load(fn=None, js=f"() => {{ {SCRIPT} }}", queue=False, api_visibility="private")
    language = header(words, "latents", pages)
    lead = f"<h1>{both('latents.title')}</h1><p>{both('latents.lead')}</p>"
    html_part(f"<style>{STYLE}</style>{lead}", elem_id="gk-latents-lead")
    maps.section(blocks, words, atlas, language)
    verdicts.section()
    line.section(words, atlas, language)
    match.section(words, atlas, language)
    footer()
    follow(blocks, words, language)


if __name__ == "__main__":
    from apps import launch

    launch("latents")
