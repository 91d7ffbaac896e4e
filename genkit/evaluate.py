"""Measuring checkpoints on scenes of the test split, which no training set contains.

    psnr                       an autoencoder of any kind: 10·log10(255²/MSE) of test pictures that
                               come back from the mean of z, mean, in dB
    labels                     a reader: share of the scene's labels that it reads right
    captions                   a text encoder: share of what a caption asks for that it reads right
    prompt-fidelity            text to image: captions of test scenes are drawn, the reader says
                               what it sees, and the value is (attributes found)/(attributes asked)
    prompt-fidelity-held-out   the same for captions that ask for a pair of kind and colour which
                               no generator has seen; `pair` is the share of those pairs found
    few-steps                  a student: Fréchet distance of its pictures from real ones over that
                               of its teacher's, see `genkit.students`
    adherence                  a control: how well pictures follow the hints of test scenes, see
                               `genkit.adherence`; F1 of lines, mIoU of painted maps
    parts                      a segmenter: mIoU of what it sees in test pictures with their maps
    unconditional, bound, units    the families of picturebook-32, see `genkit.families`
    frechet, classes           a class-conditional pixel model, see `genkit.pixels`
    noisy-classes              a noisy classifier: share of noisy test pictures that it tells
    kinds, probe, nearness,
    retrieval                  encoders of pictures of 32², see `genkit.spaces`

Half of all captions are Vietnamese. Everything is a function of (name, metric, n, seed).

References:
    GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment (Ghosh et al.,
        2023; attribute by attribute, by a detector), https://arxiv.org/abs/2310.11513
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from genkit import families, hub, pixels, spaces
from genkit.adherence import RULERS, followed, ideal, parts, things_alone
from genkit.data.picturebook.scene import LABELS, SPLITS, Scene
from genkit.data.picturebook.source import label_tensor, to_uint8, to_unit
from genkit.distributions import Dirac
from genkit.fidelity import (
    READER,
    Draw,
    Prompt,
    by_language,
    judged,
    likeliest,
    load_reader,
    prompts,
    read,
    share_ok,
    stacked,
)
from genkit.model import Samples
from genkit.models.autoencoder import Autoencoder, DeterministicAutoencoder
from genkit.models.classifier import NoisyClassifier
from genkit.models.controlnet import Control
from genkit.models.diffusion import PixelDiffusion
from genkit.models.encoders import Contrastive, ConvEncoder, ViTEncoder
from genkit.models.hvae import HVAE
from genkit.models.latent import LatentDiffusion, Student
from genkit.models.segmenter import Segmenter
from genkit.models.text import TextEncoder
from genkit.models.vae import VAE
from genkit.probes import Encoder
from genkit.runtime import detect, prepare
from genkit.students import few_steps

__all__ = ["METRICS", "Report", "evaluate", "fidelity"]

SIZE = 128
BATCH = 50
COUNTS: Mapping[str, int] = {
    "prompt-fidelity": 500,
    "prompt-fidelity-held-out": 500,
    "few-steps": 500,
    "adherence": 500,
    "frechet": 2000,
    "unconditional": 2000,
    "classes": 160,
    "kinds": 2000,
    "probe": 2000,
    "nearness": 2000,
}
"""How many pictures or prompts a metric looks at unless told; 1,000 where it is not here."""
CHAIN = 30
"""The same for the bound of a diffusion model, which asks its network a thousand times."""


@dataclass(frozen=True)
class Report:
    """A measured number.

    Args:
        name: The checkpoint.
        metric: One of `METRICS`.
        value: In dB for psnr, bits per dimension for bound, a squared distance of features for
            frechet and unconditional, a ratio of two for few-steps, a count for units, else a
            share from 0 to 1; None where there is no such number.
        n: How many pictures were looked at.
        details: Further numbers, by name.
        kind: Of bits per dimension: exact, no less than the exact number on average (bound), near
            it (estimate), or undefined; None of other metrics.
    """

    name: str
    metric: str
    value: float | None
    n: int
    details: Mapping[str, float] = field(default_factory=dict)
    kind: Literal["exact", "bound", "estimate", "undefined"] | None = None

    def json(self) -> dict[str, object]:
        """The report as one flat JSON object; numbers rounded to 6 digits."""
        facts = asdict(self)
        details, kind = facts.pop("details"), facts.pop("kind")
        facts |= ({"kind": kind} if kind else {}) | details
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in facts.items()}


def evaluate(
    name: str, metric: str, n: int | None = None, seed: int = 0, draw: Draw | None = None
) -> Report:
    """Measures a checkpoint.

    Args:
        name: Name or folder of the checkpoint.
        metric: One of `METRICS`.
        n: Pictures or prompts; without it what `COUNTS` and `CHAIN` say, or 1,000.
        seed: Number of the first scene in the test split.
        draw: How to ask the model for pictures; needed by the metrics of prompts.

    Raises:
        ValueError: If the metric is unknown or does not fit the checkpoint, or n is out of range.
    """
    if metric not in METRICS:
        raise ValueError(f"The metric {metric!r} is unknown: choose one of {', '.join(METRICS)}.")
    if n is None:
        chain = metric == "bound" and hub.card(name)["family"] == "diffusion"
        n = CHAIN if chain else COUNTS.get(metric, 1000)
    scenes = len(SPLITS["test"])
    if not 0 <= seed < scenes:
        raise ValueError(f"There is no test scene {seed}: use 0 to {scenes - 1}.")
    if not 1 <= n <= scenes - seed:
        raise ValueError(f"n = {n} from test scene {seed} on: use 1 to {scenes - seed}.")
    return METRICS[metric](name, n, seed, draw)


def _psnr(name: str, n: int, seed: int, draw: Draw | None) -> Report:
    model = hub.load(name)
    coder = model.autoencoder if isinstance(model, LatentDiffusion) else model
    if not isinstance(coder, Autoencoder | DeterministicAutoencoder | VAE | HVAE):
        raise ValueError(f"{name} is no autoencoder: psnr measures book128_autoencoder, say.")
    runtime, size = detect(), SIZE
    if not isinstance(coder, Autoencoder):
        runtime, size = replace(runtime, dtype=torch.float32), coder.size
    coder = prepare(coder, runtime)
    values: list[float] = []
    for scenes in _scenes(n, seed):
        picture = _rendered(scenes, size)
        answer = coder(to_unit(picture).to(runtime.device, runtime.dtype))
        seen = answer if isinstance(answer, Dirac) else answer.picture
        again = to_uint8(seen.mean.cpu())
        mse = (again.double() - picture.double()).square().mean(dim=(1, 2, 3))
        values += (10 * (255**2 / mse.clamp(min=1e-9)).log10()).tolist()
    details = {"worst": min(values), "median": float(np.median(values))}
    return Report(name, "psnr", float(np.mean(values)), n, details)


def _labels(name: str, n: int, seed: int, draw: Draw | None) -> Report:
    reader = load_reader(name)
    right = []
    for scenes in _scenes(n, seed):
        found = label_tensor(read(reader, _rendered(scenes, reader.size)))
        right.append(found == label_tensor(scenes))
    shares = torch.cat(right).double().mean(dim=0)
    by_name = dict(zip(LABELS, shares.tolist(), strict=True))
    whole = torch.cat(right).all(dim=1).double().mean().item()
    return Report(name, "labels", shares.mean().item(), n, {"whole scenes": whole} | by_name)


def _captions(name: str, n: int, seed: int, draw: Draw | None) -> Report:
    model = hub.load(name)
    encoder = model.text_encoder if isinstance(model, LatentDiffusion) else model
    if not isinstance(encoder, TextEncoder):
        raise ValueError(f"{name} reads no captions: captions measures book_text, say.")
    asked = list(prompts(n, seed))
    with torch.no_grad():
        seen = likeliest(encoder.read(encoder.encode([prompt.text for prompt in asked])))
    checks = [(p, p.ask.check(s)) for p, s in zip(asked, seen, strict=True)]
    value = share_ok([check for _, cs in checks for check in cs])
    return Report(name, "captions", value, n, by_language(checks))


def _fidelity(name: str, n: int, seed: int, draw: Draw | None) -> Report:
    return fidelity(name, "prompt-fidelity", list(prompts(n, seed)), draw)


def fidelity(name: str, metric: str, asked: Sequence[Prompt], draw: Draw | None) -> Report:
    """Share of the asked attributes that the reader finds in the pictures.

    Raises:
        ValueError: If no way to draw is given.
    """
    if draw is None:
        raise ValueError(f"{metric} needs a text-to-image checkpoint, such as book128_latent.")
    reader = load_reader(READER)
    scenes: list[Scene] = []
    for first in range(0, len(asked), BATCH):
        some = asked[first : first + BATCH]
        pictures = list(draw([prompt.text for prompt in some], range(first, first + len(some))))
        scenes += read(reader, stacked(pictures))
    value, details = judged(asked, scenes)
    return Report(name, metric, value, len(asked), details)


def _fidelity_held_out(name: str, n: int, seed: int, draw: Draw | None) -> Report:
    asked = list(prompts(n, seed, held_out=True))
    return fidelity(name, "prompt-fidelity-held-out", asked, draw)


def _few_steps(name: str, n: int, seed: int, draw: Draw | None) -> Report:
    student = hub.load(name)
    if not isinstance(student, Student) or draw is None:
        raise ValueError("few-steps needs the checkpoint of a student, such as book128_fast.")
    value, details = few_steps(draw, student.teacher, list(prompts(n, seed)), seed)
    return Report(name, "few-steps", value, n, details)


def _adherence(name: str, n: int, seed: int, draw: Draw | None) -> Report:
    """At strength 1, beside the base alone (strength 0) and real pictures."""
    control = hub.load(name)
    if not isinstance(control, Control) or control.name not in RULERS or draw is None:
        raise ValueError(f"{name} follows no hint: adherence measures book128_sketch, say.")
    asked = list(prompts(n, seed))
    free = followed(draw, control.name, asked, 0.0)
    led = followed(draw, control.name, asked, 1.0)
    value = RULERS[control.name].value
    real = ideal(control.name, asked)
    details = {"uncontrolled": free[value], "of real pictures": real[value]}
    details |= {"fidelity": led["fidelity"], "uncontrolled fidelity": free["fidelity"]}
    details["things alone"] = things_alone(draw, control.name, asked)
    details |= {key: led[key] for key in led if key not in (value, "fidelity")}
    if "distance" in free:
        details["uncontrolled distance"] = free["distance"]
    return Report(name, "adherence", led[value], n, details)


def _scenes(n: int, seed: int) -> Iterator[list[Scene]]:
    seeds = SPLITS["test"][seed : seed + n]
    for first in range(0, n, BATCH):
        yield [Scene.random(s) for s in seeds[first : first + BATCH]]


def _rendered(scenes: Sequence[Scene], size: int = SIZE) -> UInt8[Tensor, "B 3 H W"]:
    return stacked([scene.render(size) for scene in scenes])


def _by(
    measure: Callable[[Any, int, int], tuple[float | None, dict[str, float]]],
    *classes: type,
    kind: Literal["exact", "bound", "estimate"] | None = None,
) -> Metric:
    """The metric of a function of (model, n, seed), for models of these classes."""
    metric = measure.__name__.replace("_", "-")
    known = " or ".join(one.__name__ for one in classes)

    def measured(name: str, n: int, seed: int, draw: Draw | None) -> Report:
        model = pixels.exact(name)
        if not isinstance(model, classes):
            raise ValueError(f"{name} is no {known}, which {metric} measures.")
        value, details = measure(model, n, seed)
        return Report(name, metric, value, n, details, "undefined" if value is None else kind)

    return measured


Metric = Callable[[str, int, int, Draw | None], Report]
METRICS: Mapping[str, Metric] = {
    "psnr": _psnr,
    "labels": _labels,
    "captions": _captions,
    "prompt-fidelity": _fidelity,
    "prompt-fidelity-held-out": _fidelity_held_out,
    "few-steps": _few_steps,
    "adherence": _adherence,
    "parts": _by(parts, Segmenter),
    "unconditional": _by(families.unconditional, Samples),
    "bound": _by(
        families.bound, PixelDiffusion, VAE, HVAE, DeterministicAutoencoder, kind="bound"
    ),
    "units": _by(families.units, VAE, HVAE),
    "frechet": _by(pixels.frechet, PixelDiffusion),
    "classes": _by(pixels.classes, PixelDiffusion),
    "noisy-classes": _by(pixels.noisy_classes, NoisyClassifier),
    "kinds": _by(spaces.kinds, ConvEncoder, ViTEncoder),
    "probe": _by(spaces.probe, Encoder, VAE),
    "nearness": _by(spaces.nearness, Encoder, VAE),
    "retrieval": _by(spaces.retrieval, Contrastive),
}
