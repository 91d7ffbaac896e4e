"""The picture book: a procedural world of flat landscapes, with its ground truth.

A seed gives a `Scene`; the scene gives the picture, its line drawing, its semantic map, its
caption in English or Vietnamese, and its labels; and a prompt gives back what it asks for:

    scene = Scene.random(7)
    scene.render(128), scene.caption(random.Random(0), "en"), scene.labels()
    parse("a red house at night").ask.check(scene)

Read on in `scene` (what a page contains), `canvas` (how shapes become pixels), `paint` and
`things` (what is drawn), `words` and `caption` (how it is said), `parse` and `ask` (how a prompt
is understood), `book` and `source` (many pages for training).
"""

from .caption import caption
from .parse import parse
from .scene import LABELS, SPLITS, VERSION, Scene, Thing

__all__ = ["LABELS", "SPLITS", "VERSION", "Scene", "Thing", "caption", "parse"]
