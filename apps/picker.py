"""A picture that a visitor picks for a section: the scene of a seed, or a file of their own.

The picked picture stands beside its field, as small as the encoders see it.
"""

import random
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image

from apps import upload
from apps.classes import sheet_url
from apps.common import LIGHT, TOLD, html_part, told
from apps.forward import check_whole
from apps.settings import LIMITS, Refused
from apps.spaces import SIZE, Array
from apps.text import Words
from genkit.data.picturebook import Scene
from genkit.data.picturebook.scene import SPLITS

__all__ = ["Picker", "picker", "tag"]

UNSEEN = SPLITS["test"][3000:]
"""Seeds among which 'another' chooses: in no training set, and not among those on the page."""


class Picker(NamedTuple):
    """What a section asks for: the visitor's own picture (bytes or None), and the seed."""

    own: gr.State
    seed: gr.Number


def picker(words: Words, language: gr.Radio, section: str, key: str, seed: int) -> Picker:
    """The fields in the current context.

    Args:
        words: Of the page.
        language: Its control.
        section: Name that makes the ids unique.
        key: Of the texts of the number field.
        seed: With which it opens.
    """
    own = gr.State(None)
    with gr.Row(elem_classes="gk-picker gk-fields"):
        look = {"elem_classes": "gk-picked", "scale": 0, "min_width": 76}
        thumb = html_part(_scene(seed)[1], elem_id=f"gk-{section}-picked", **look)
        ident = f"gk-{section}-seed"
        number = words.add(gr.Number, key, value=seed, min_width=120, elem_id=ident, scale=3)
        with gr.Column(scale=2, min_width=120, elem_classes="gk-picker-buttons"):
            ident = f"gk-{section}-another"
            other = words.add(gr.Button, "latents.another", size="sm", elem_id=ident)
            ident = f"gk-{section}-own"
            upload_ = words.add(gr.UploadButton, "latents.own", size="sm", elem_id=ident)
    places = [own, thumb]
    upload_.upload(_open, [language, upload_], places, **TOLD)
    number.input(_scene, [number], places, trigger_mode="always_last", **TOLD)
    other.click(_another, None, [number, *places], **LIGHT)
    return Picker(own, number)


def tag(picture: Array, name: str = "") -> str:
    """A picture "H W 3" as an <img> that shows its pixels."""
    url = sheet_url([[Image.fromarray(picture)]], SIZE)
    return f'<img class="gk-pixels" src="{url}" alt="{name}">'


def _open(language: Any, path: Any) -> tuple[bytes, str]:
    with told(language):
        image = upload.from_file(path, SIZE)
        return image.tobytes(), tag(np.asarray(image))


def _scene(seed: Any) -> tuple[None, str]:
    """No picture of the visitor's own, and the scene; nothing while the seed is none."""
    try:
        seed = check_whole("seed", seed, *LIMITS["seed"])
    except Refused:  # a run says why
        return None, '<i class="gk-pixels"></i>'
    return None, tag(np.asarray(Scene.random(seed).render(SIZE)))


def _another() -> tuple[int, None, str]:
    seed = random.SystemRandom().choice(UNSEEN)
    return seed, *_scene(seed)
