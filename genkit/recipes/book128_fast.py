"""Text to picture in four evaluations: book128_latent, its way from noise made straight.

The teacher draws some thousand pictures, with guidance of strength 3, in four windows of three
steps of two evaluations each. In each window the student learns to go straight from where the
teacher was to where it arrived, so guidance is built in and a window costs one evaluation. What
the teacher does for that is not among the cost and the time below: 384,000 evaluations, 40
minutes of two processor cores.
"""

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import torch
from PIL import Image

from genkit.data.picturebook.book import cached
from genkit.data.picturebook.scene import SPLITS, VERSION
from genkit.data.picturebook.source import Captions, Ways
from genkit.diffusion.guide import Guided
from genkit.diffusion.multistep import DPMPP2M
from genkit.diffusion.trajectory import noise
from genkit.generate import TextToImage
from genkit.models.latent import LatentDiffusion, Student
from genkit.objectives import Straightening
from genkit.optimizer import muon
from genkit.recipe import Recipe, mix
from genkit.recipes.book128_latent import examples
from genkit.recipes.book128_sketch import base
from genkit.runtime import detect, prepare

__all__ = ["RECIPE"]

SEEDS = SPLITS["train"][:16_000]
WINDOWS, STEPS, GUIDANCE = 4, 3, 3.0
BLANK, COMPLETE = 0.1, 0.3
"""Shares of scenes that the teacher is told nothing of, and all of."""
AT_A_TIME = 64


def model() -> Student:
    """The student begins as the teacher."""
    teacher = base()
    assert teacher.sha256 is not None
    return Student(teacher.denoiser, "book128_latent", teacher.sha256, WINDOWS)


def data() -> Ways:
    """What the teacher was told of the scenes, and its ways."""
    teacher = base()
    assert teacher.sha256 is not None
    told_of = f"v{VERSION}-{SEEDS.start}-{SEEDS.stop}-{BLANK}-{COMPLETE}-{AT_A_TIME}"
    made = f"{teacher.sha256[:16]}-{told_of}-{GUIDANCE}-{WINDOWS}-{STEPS}"
    shape = (len(SEEDS), *teacher.condition([""])["text"].shape[1:])
    texts = cached(f"texts-{made}", shape, np.float16, lambda: told(teacher))
    shape = (len(SEEDS), WINDOWS + 1, *teacher.latent_shape(128, 128))
    ways = cached(f"ways-{made}", shape, np.float16, lambda: gone(teacher, texts))
    return Ways(ways, texts)


def told(teacher: LatentDiffusion) -> Iterator[np.ndarray]:
    """Scene tokens of a caption of every scene; some are empty, some say all there is."""
    captions = Captions(SEEDS, teacher.text_encoder.encode, blank=BLANK, complete=COMPLETE)
    for first in range(0, len(SEEDS), AT_A_TIME):
        some = range(first, min(first + AT_A_TIME, len(SEEDS)))
        rng = torch.Generator().manual_seed(mix("captions", first))
        with torch.no_grad():
            rows = teacher.text_encoder(captions.batch(some, rng)["tokens"])
        yield from rows.numpy()


def gone(teacher: LatentDiffusion, texts: np.ndarray) -> Iterator[np.ndarray]:
    """The teacher's ways: noise, and where it is after each window."""
    runtime = detect()
    prepare(teacher, runtime)
    guided = Guided(teacher.denoiser, GUIDANCE, teacher.condition([""]))
    ends = torch.linspace(1, 0, WINDOWS + 1).tolist()
    for first in range(0, len(SEEDS), AT_A_TIME):
        seeds = SEEDS[first : first + AT_A_TIME]
        rngs = [torch.Generator().manual_seed(mix("ways", seed)) for seed in seeds]
        x = noise(rngs, teacher.latent_shape(128, 128), device=runtime.device)
        text = torch.from_numpy(texts[first : first + AT_A_TIME].copy()).to(runtime.device)
        states = [x]
        for a, b in zip(ends, ends[1:]):
            way = DPMPP2M().trajectory(guided, states[-1], STEPS, {"text": text}, start=a, stop=b)
            *_, last = way
            states.append(last.x)
        yield from torch.stack(states, dim=1).cpu().numpy()


def drawn(student: Student) -> Image.Image:
    """The page's example prompts, drawn in the student's few steps."""
    return examples(TextToImage.taught(deepcopy(student), "book128_fast"))


RECIPE = Recipe(
    name="book128_fast",
    model=model,
    objective=Straightening,
    data=data,
    steps=6000,
    batch=32,
    lr=1.5e-3,
    optimizer=muon,
    warmup=100,
    sheet=drawn,
)
