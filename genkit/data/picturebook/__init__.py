"""The picture book: a procedural world of flat landscapes, with its ground truth.

A seed gives a `Scene`; the scene gives the picture, its line drawing, its semantic map, its
caption in English or Vietnamese, and its labels:

    scene = Scene.random(7)
    scene.render(128), scene.caption(random.Random(0), "en"), scene.labels()

Read on in `scene` (what a page contains), `canvas` (how shapes become pixels), `paint` and
`things` (what is drawn), `book` (many pictures as one array).
"""

from .scene import LABELS, SPLITS, VERSION, Scene, Thing

__all__ = ["LABELS", "SPLITS", "VERSION", "Scene", "Thing"]
