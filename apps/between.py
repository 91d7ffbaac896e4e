"""Between: the second half of the page `compare`, what lies between pictures and what it costs.

    dreams      what each family draws when no picture goes in
    bridge      the way from one picture to another in each family
    traverse    what single numbers of the VAE's code say
    blur        why the VAE's mean is soft
    standings   the table of all families, and whether the comparison is fair

Each is a section with its own buttons, in a file of its own. The browser draws their pictures from
one sheet each (`static/between.js`) into places that are there from the start.
"""

from typing import Any

from apps import blur, bridge, dreams, standings, traverse
from apps.common import Studio, html_part
from apps.text import Words, both

__all__ = ["section"]


def section(words: Words, studio: Studio, language: Any, picture: Any, seed: Any) -> None:
    """Lays out the sections in the current context and says what their controls do.

    Args:
        words: Of the page.
        studio: The models.
        language: The control of the language.
        picture: The visitor's own picture as bytes, or None.
        seed: The control of the scene.
    """
    lead = f"<h2>{both('between.title')}</h2><p>{both('between.lead')}</p>"
    html_part(lead, elem_id="gk-between")
    dreams.section(words, studio, language)
    bridge.section(words, studio, language, picture, seed)
    traverse.section(words, studio, language, picture, seed)
    blur.section(words, studio, language, picture, seed)
    standings.section()
