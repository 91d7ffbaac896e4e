"""The drawing board of the sketch page as HTML; static/sketch.js makes it draw.

A drawing is a paper (nothing, the edges of a photo, or an example) and the strokes on it. It stays
in the browser until a picture is asked for, and can be saved as a small JSON file.
"""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from apps.cards import png_url
from apps.ink import map_image
from apps.text import both
from genkit.data.picturebook import Scene
from genkit.data.picturebook.canvas import PART_COLOURS

__all__ = ["board", "examples"]

TABS = ("sketch", "map", "photo")
TOOLS = ("brush", "eraser", "fill")
ACTS = ("undo", "clear", "save", "open")
EXAMPLES = (210_033, 210_058, 210_047, 210_011, 210_034, 210_031)
"""Seeds of the scenes whose drawings one may start from."""
SIDE = 256
THUMB = 96


def board() -> str:
    """Tabs, canvas, tools and paints."""
    tabs = "".join(
        f'<button type="button" data-tab="{name}" aria-pressed="{_flag(not i)}">'
        f"{both(f'sketch.tab.{name}')}</button>"
        for i, name in enumerate(TABS)
    )
    tools = "".join(
        f'<button type="button" data-tool="{name}" aria-pressed="{_flag(not i)}">'
        f"{both(f'sketch.tool.{name}')}</button>"
        for i, name in enumerate(TOOLS)
    )
    acts = "".join(
        f'<button type="button" data-act="{name}">{both(f"sketch.act.{name}")}</button>'
        for name in ACTS
    )
    return (
        f'<div class="gk-tabs" role="group">{tabs}</div>'
        f'<div class="gk-paper"><canvas id="gk-board" width="512" height="512" tabindex="0" '
        'role="application" aria-labelledby="gk-board-name"></canvas>'
        f'<span class="gk-hidden" id="gk-board-name">{both("sketch.board")}</span>'
        f'<p class="gk-paper-hint">{both("sketch.hint")}</p></div>'
        f'<div class="gk-tools">{tools}<label>{both("sketch.width")}<input id="gk-brush" '
        'type="range" min="1" max="40" value="4"></label>'
        f"<span></span>{acts}</div>"
        f'<div class="gk-paints" role="group">{"".join(_paints())}</div>'
        '<input id="gk-open-drawing" type="file" accept="application/json,.json" hidden>'
        f'<p class="gk-note gk-warn" id="gk-board-note" role="alert" hidden></p>{_sentences()}'
    )


def examples() -> str:
    """Drawings of scenes to start from: lines for sketches, regions for maps."""
    buttons = []
    for kind in ("sketch", "map"):
        for number, seed in enumerate(EXAMPLES, start=1):
            paper, thumb = (_url(_example(kind, seed, side)) for side in (SIDE, THUMB))
            buttons.append(
                f'<button type="button" data-example="{kind}" data-paper="{paper}">'
                f'<span class="gk-hidden">{both("sketch.example", number=number)}</span>'
                f'<img src="{thumb}" alt=""></button>'
            )
    return f"<p>{both('sketch.examples')}</p><div class='gk-examples'>{''.join(buttons)}</div>"


def _paints() -> Iterator[str]:
    for i, (part, colour) in enumerate(PART_COLOURS.items()):
        yield (
            f'<button type="button" data-paint="{i}" aria-pressed="{_flag(not i)}">'
            f'<i style="background:rgb{colour}" data-colour="{",".join(map(str, colour))}"></i>'
            f"{both(f'sketch.part.{part}')}</button>"
        )


def _sentences() -> str:
    """What the script may have to say, in both languages."""
    keys = ("file", "strokes")
    return "".join(
        f'<template data-says="{key}">{both(f"sketch.says.{key}")}</template>' for key in keys
    )


def _example(kind: str, seed: int, side: int) -> Image.Image:
    scene = Scene.random(seed)
    if kind == "sketch":
        return scene.outline(side)
    return map_image(np.asarray(scene.semantic_map(side)))


def _url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return png_url(buffer.getvalue())


def _flag(value: bool) -> str:
    return str(value).lower()
