"""Home: what the suite is, a card for each page, and a strip of the picture book.

python -m apps.home        runs this page alone
"""

from collections.abc import Sequence

import gradio as gr

from apps import Page
from apps.cards import jpeg_url
from apps.common import Studio, follow, footer, header, html_part
from apps.text import Words, both
from genkit.data.picturebook import Scene

__all__ = ["page"]

STRIP = (210_022, 210_031, 210_021, 210_006, 210_030, 210_048)
"""Seeds of the scenes that are shown in a row."""
FAN = (210_057, 210_011, 210_034)
"""Seeds of the three beside the title."""
PICTURE = 256


def page(blocks: gr.Blocks, studio: Studio, pages: Sequence[Page]) -> None:
    """Fills the current context with the page."""
    words = Words()
    language = header(words, "home", pages)
    html_part(_hero(), elem_id="gk-hero")
    html_part(_cards(pages), elem_id="gk-pages")
    html_part(_strip(), elem_id="gk-strip")
    footer()
    follow(blocks, words, language)


def _hero() -> str:
    images = (jpeg_url(Scene.random(seed).render(PICTURE)) for seed in FAN)
    fan = "".join(f'<img src="{url}" alt="">' for url in images)
    text = f"<h1>{both('home.title')}</h1><p>{both('home.lead')}</p>"
    lead = f'<div class="gk-lead">{text}</div>'
    return f'<div class="gk-hero">{lead}<div class="gk-fan" aria-hidden="true">{fan}</div></div>'


def _cards(pages: Sequence[Page]) -> str:
    """One card for each page that exists, with a scene of its own."""
    cards = []
    for seed, page in enumerate((p for p in pages if p.name != "home"), start=210_033):
        picture = jpeg_url(Scene.random(seed).render(PICTURE))
        cards.append(
            f'<a class="gk-page" href="./{page.path}"><img src="{picture}" alt="">'
            f"<span><b>{both(f'page.{page.name}')}</b><span>{both(f'home.{page.name}')}</span>"
            f"<i>{both('home.open')} →</i></span></a>"
        )
    return f"<h2>{both('home.pages')}</h2><div class='gk-page-grid'>{''.join(cards)}</div>"


def _strip() -> str:
    images = (jpeg_url(Scene.random(seed).render(PICTURE)) for seed in STRIP)
    pictures = "".join(f'<img src="{url}" alt="">' for url in images)
    return f"<div class='gk-strip'>{pictures}</div><p>{both('home.book')}</p>"


if __name__ == "__main__":
    from apps import launch

    launch("home")
