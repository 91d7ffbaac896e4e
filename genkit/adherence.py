"""Adherence: how well a picture follows what was drawn.

Of a line drawing D (the pixels with ink) and the edges E of the picture (`hints.edges`), with the
distance d in pixels:

    precision  share of E within τ of D         what the picture has, was drawn
    recall     share of D within τ of E         what was drawn, the picture has
    F1         2 precision·recall/(precision + recall)
    distance   mean of d(e, D) over E and of d(o, E) over D, their mean

Of a painted map, the mean over the classes of |painted ∩ seen|/|painted ∪ seen| (mIoU), where a
network says what is seen (`genkit.models.segmenter`); pixels that were not painted do not count.

Whether a hint is understood is asked by one thing alone, drawn without words and on no ground:

    things alone   share of such things that the reader (`genkit.models.reader`) finds in the
                   picture, of their kind and in their place

A picture is not a drawing: shadows, halos and stars have edges that nobody draws. What real
pictures reach against their own drawings is therefore told beside what a model reaches.

References:
    Learning to Detect Natural Image Boundaries Using Local Brightness, Color, and Texture Cues
        (Martin et al., 2004; edges found within a tolerance)
        https://doi.org/10.1109/TPAMI.2004.1273918
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from genkit import hub
from genkit.data.hints import BLANK, edges, ink, planes, rough, scribble
from genkit.data.picturebook.canvas import PARTS
from genkit.data.picturebook.scene import SPLITS, Scene
from genkit.data.picturebook.source import to_unit
from genkit.fidelity import Prompt, judged, seen, stacked
from genkit.models.segmenter import Segmenter
from genkit.runtime import detect, prepare

__all__ = [
    "RULERS",
    "SEGMENTER",
    "Agreement",
    "Ruler",
    "Trace",
    "agreement",
    "drawing",
    "drawing_of_one",
    "followed",
    "ideal",
    "lines",
    "overlap",
    "painting",
    "painting_of_one",
    "parts",
    "regions",
    "things_alone",
    "with_one",
]

TOLERANCE = 2.0
"""τ in pixels."""
SEGMENTER = "book128_segmenter"
"""The checkpoint that says which part every pixel shows."""
SIZE = 128
BATCH = 50

Trace = Callable[
    [Float[Tensor, "B K H W"], Sequence[str], Sequence[int], float], Iterator[Image.Image]
]
"""(hints, prompts, seeds, strength) → pictures: how a controlled model is asked for pictures."""


@dataclass(frozen=True)
class Agreement:
    """Of edges with a drawing.

    Args:
        precision, recall, f1: Shares, 0 to 1.
        distance: In pixels; the diagonal where one of the two is empty.
    """

    precision: float
    recall: float
    f1: float
    distance: float


def agreement(
    found: Bool[np.ndarray, "H W"], drawn: Bool[np.ndarray, "H W"], within: float = TOLERANCE
) -> Agreement:
    """How edges that were found agree with a drawing.

    Args:
        found: The edges of the picture.
        drawn: Where ink is.
        within: τ in pixels.

    Raises:
        ValueError: If the shapes differ, or there is no ink at all.
    """
    if found.shape != drawn.shape:
        raise ValueError(
            f"The edges have shape {found.shape}, the drawing {drawn.shape}: give equal ones."
        )
    if not drawn.any():
        raise ValueError("The drawing has no ink, so nothing can be compared with it.")
    if not found.any():
        return Agreement(0.0, 0.0, 0.0, float(np.hypot(*found.shape)))
    of_found, of_drawn = (
        distance_transform_edt(~drawn)[found],
        distance_transform_edt(~found)[drawn],
    )
    precision, recall = float((of_found <= within).mean()), float((of_drawn <= within).mean())
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    return Agreement(precision, recall, f1, float(of_found.mean() + of_drawn.mean()) / 2)


def overlap(
    seen: Sequence[UInt8[np.ndarray, "H W"]],
    painted: Sequence[UInt8[np.ndarray, "H W"]],
    classes: int,
) -> dict[int, float]:
    """Intersection over union of every class that occurs, over all pictures together.

    Args:
        seen: What a network sees, pixel by pixel.
        painted: What was asked for; `BLANK` does not count.
        classes: How many there are.
    """
    confusion = np.zeros((classes, classes), dtype=np.int64)
    for one, other in zip(seen, painted, strict=True):
        counted = other != BLANK
        pairs = other[counted].astype(np.int64) * classes + one[counted]
        confusion += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    both = np.diag(confusion)
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return {k: float(both[k] / either[k]) for k in range(classes) if either[k]}


# --- of a model, over test scenes ---------------------------------------------------------------


def drawing(seed: int) -> UInt8[np.ndarray, "H W"]:
    """What a hand might draw of a scene: 255 is ink."""
    return scribble(np.asarray(Scene.random(seed).outline(SIZE)), np.random.default_rng(seed))


def painting(seed: int) -> UInt8[np.ndarray, "H W"]:
    """What a hand might paint of a scene: parts, or `BLANK`."""
    return rough(np.asarray(Scene.random(seed).semantic_map(SIZE)), np.random.default_rng(seed))


def lines(pictures: Sequence[Image.Image], seeds: Sequence[int]) -> dict[str, float]:
    """Mean agreement of the pictures' edges with the drawings of these scenes."""
    found = [
        agreement(edges(np.asarray(picture)), drawing(seed) > 0)
        for picture, seed in zip(pictures, seeds, strict=True)
    ]
    means = np.mean([astuple(one) for one in found], axis=0)
    return {field.name: float(mean) for field, mean in zip(fields(Agreement), means, strict=True)}


def regions(pictures: Sequence[Image.Image], seeds: Sequence[int]) -> dict[str, float]:
    """mIoU of what the segmenter sees with the paintings of these scenes, and that of each part.

    Raises:
        ValueError: If the segmenter's checkpoint is another model's.
    """
    model = hub.load(SEGMENTER)
    if not isinstance(model, Segmenter):
        raise ValueError(f"{SEGMENTER} is no segmenter: publish it from its own recipe.")
    runtime = detect()
    model, seen = prepare(model, runtime), []
    for first in range(0, len(pictures), BATCH):
        x = to_unit(stacked(pictures[first : first + BATCH])).to(runtime.device, runtime.dtype)
        seen += list(model.parts(x).cpu().numpy())
    found = overlap(seen, [painting(seed) for seed in seeds], len(PARTS))
    return {"miou": float(np.mean(list(found.values())))} | {
        PARTS[k]: value for k, value in found.items()
    }


@torch.no_grad()
def parts(model: Segmenter, n: int, seed: int) -> tuple[float, dict[str, float]]:
    """mIoU of what a segmenter sees in test pictures with their maps, and that of each part."""
    seeds, device = SPLITS["test"][seed : seed + n], next(model.parameters()).device
    seen: list[np.ndarray] = []
    for first in range(0, n, BATCH):
        pictures = [Scene.random(s).render(model.size) for s in seeds[first : first + BATCH]]
        seen += list(model.parts(to_unit(stacked(pictures)).to(device)).cpu().numpy())
    maps = [np.asarray(Scene.random(s).semantic_map(model.size)) for s in seeds]
    found = overlap(seen, maps, len(PARTS))
    right = float(np.mean([np.mean(one == other) for one, other in zip(seen, maps, strict=True)]))
    each = {PARTS[k]: value for k, value in found.items()}
    return float(np.mean(list(found.values()))), {"pixels": right} | each


def drawing_of_one(scene: Scene) -> UInt8[np.ndarray, "H W"]:
    """The first thing of a scene as a hand might draw it, without all else."""
    outline = np.asarray(with_one(scene).outline_of_things(SIZE))
    return scribble(outline, np.random.default_rng(scene.seed))


def painting_of_one(scene: Scene) -> UInt8[np.ndarray, "H W"]:
    """The first thing of a scene as a hand might paint it; all else is not painted."""
    parts = np.asarray(with_one(scene).semantic_map(SIZE))
    painted = rough(parts, np.random.default_rng(scene.seed), omitted=0)
    return np.where(painted == PARTS.index(scene.things[0].kind), painted, np.uint8(BLANK))


def with_one(scene: Scene) -> Scene:
    """The scene with its first thing only, and nothing in the sky."""
    return replace(
        scene, things=scene.things[:1], light="none", clouds=0, rainbow=False, balloon=None
    )


@dataclass(frozen=True)
class Ruler:
    """How a kind of control is measured.

    Args:
        hint: What a hand might make of the scene of a seed: ink, parts.
        one: The same of the first thing alone.
        planes: What the control reads of it.
        measure: (pictures, seeds of their scenes) → numbers by name.
        value: The name of the number that counts.
    """

    hint: Callable[[int], UInt8[np.ndarray, "H W"]]
    one: Callable[[Scene], UInt8[np.ndarray, "H W"]]
    planes: Callable[[UInt8[Tensor, "B H W"]], Float[Tensor, "B K H W"]]
    measure: Callable[[Sequence[Image.Image], Sequence[int]], dict[str, float]]
    value: str

    def read(self, hints: Sequence[UInt8[np.ndarray, "H W"]]) -> Float[Tensor, "B K H W"]:
        """Hints as the control reads them."""
        return self.planes(torch.from_numpy(np.stack(hints)))


RULERS = {
    "sketch": Ruler(drawing, drawing_of_one, ink, lines, "f1"),
    "map": Ruler(painting, painting_of_one, planes, regions, "miou"),
}
"""By the name of the control."""


def ideal(kind: str, asked: Sequence[Prompt]) -> dict[str, float]:
    """What the scenes' own pictures reach by the same ruler."""
    seeds = [prompt.seed for prompt in asked]
    return RULERS[kind].measure([Scene.random(seed).render(SIZE) for seed in seeds], seeds)


def things_alone(trace: Trace, kind: str, asked: Sequence[Prompt]) -> float:
    """Share of things that come out as what they are, each drawn alone and without words.

    Args:
        trace: How the model is asked.
        kind: A key of `RULERS`, the name of the control.
        asked: Captions of test scenes, whose first things are drawn.
    """
    ruler, scenes = RULERS[kind], [Scene.random(prompt.seed) for prompt in asked]
    pictures: list[Image.Image] = []
    for first in range(0, len(scenes), BATCH):
        hints = ruler.read([ruler.one(scene) for scene in scenes[first : first + BATCH]])
        pictures += trace(hints, [""] * len(hints), range(first, first + len(hints)), 1.0)
    found = []
    for scene, one in zip(scenes, seen(pictures), strict=True):
        thing = scene.things[0]
        found.append(any((t.kind, t.slot) == (thing.kind, thing.slot) for t in one.things))
    return float(np.mean(found))


def followed(
    trace: Trace, kind: str, asked: Sequence[Prompt], strength: float
) -> dict[str, float]:
    """How well pictures follow the hints of the prompts' scenes, and the prompts.

    Args:
        trace: How the model is asked.
        kind: A key of `RULERS`, the name of the control.
        asked: Captions of test scenes.
        strength: Of the control; 0 is the base alone.
    """
    ruler = RULERS[kind]
    pictures: list[Image.Image] = []
    for first in range(0, len(asked), BATCH):
        some = asked[first : first + BATCH]
        hints = ruler.read([ruler.hint(prompt.seed) for prompt in some])
        texts, seeds = [prompt.text for prompt in some], range(first, first + len(some))
        pictures += trace(hints, texts, seeds, strength)
    found = ruler.measure(pictures, [prompt.seed for prompt in asked])
    return found | {"fidelity": judged(asked, seen(pictures))[0]}
