"""Text to picture, and drawing to picture: what the pages and the command line call.

    model = TextToImage.from_pretrained("book128_latent")
    for event in model(["a red house at night"], seeds=[7]):
        ...                             # Previews while it draws, then one Picture for each prompt

A call is a generator: stop asking and it stops, within a step. A picture depends on its prompt,
its seed and the settings, not on the rest of the batch: each has its own generator.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from genkit import hub
from genkit.data.picturebook.source import to_uint8
from genkit.diffusion.denoise import Condition, Denoises
from genkit.diffusion.guide import Apart, Guided
from genkit.diffusion.multistep import DEIS, DPMPP2M, DPMPP2MSDE, DPMPP3M, IPNDM, UniPC
from genkit.diffusion.sample import DDIM, DDPM, Euler, EulerAncestral, Heun
from genkit.diffusion.trajectory import Sampler, noise
from genkit.models.controlnet import Control, Controlled
from genkit.models.latent import LatentDiffusion
from genkit.runtime import Runtime, detect, prepare

__all__ = [
    "LIMITS",
    "MAX_SEED",
    "SAMPLERS",
    "SIZES",
    "Picture",
    "Preview",
    "SketchToImage",
    "TextToImage",
]

SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "dpm++2m": DPMPP2M(),
        "dpm++3m": DPMPP3M(),
        "dpm++2m-sde": DPMPP2MSDE(),
        "unipc": UniPC(),
        "deis": DEIS(),
        "ipndm": IPNDM(),
        "ddim": DDIM(),
        "euler": Euler(),
        "euler-ancestral": EulerAncestral(),
        "heun": Heun(),
        "ddpm": DDPM(),
    }
)
"""The samplers that can be asked for by name; the first is the default."""

MAX_SEED = 2**31 - 1
SIZES = tuple(range(64, 257, 16))
"""Sides of a picture in pixels; the checkpoints are trained at 128."""
LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "steps": (1, 100),
        "guidance": (0.0, 20.0),
        "pictures": (1, 64),
        "characters": (0, 1000),
        "strength": (0.0, 1.5),
        "start": (0.0, 1.0),
        "stop": (0.0, 1.0),
    }  # fmt: skip
)
PREVIEW_SECONDS = 0.12  # between previews: decoding each step would cost as much as the step


@dataclass(frozen=True, eq=False)
class Preview:
    """What the model believes so far: x̂_0 after a step, decoded.

    Args:
        step: Steps done.
        steps: Steps in all.
        images: One RGB picture for each prompt.
    """

    step: int
    steps: int
    images: tuple[Image.Image, ...]


@dataclass(frozen=True, eq=False)
class Picture:
    """A finished picture.

    Args:
        index: Its place among the prompts.
        image: RGB.
        prompt, seed, steps: As asked.
        nfe: Forward passes of the denoiser that it took (a guided step takes two).
        seconds: From the call to this picture, for the whole batch.
        sha256: Hash of the RGB bytes.
    """

    index: int
    image: Image.Image
    prompt: str
    seed: int
    steps: int
    nfe: int
    seconds: float
    sha256: str


class TextToImage:
    """A latent diffusion model, ready to draw.

    Args:
        model: The model.
        name: What it is called in receipts.
        runtime: Where and in which number type it runs; by default what fits this machine.
    """

    def __init__(self, model: LatentDiffusion, name: str, runtime: Runtime | None = None) -> None:
        self.name = name
        self.sha256 = model.sha256
        self.runtime = runtime or detect()
        self.model = prepare(model, self.runtime)

    @classmethod
    def from_pretrained(
        cls, name: str = "book128_latent", runtime: Runtime | None = None
    ) -> "TextToImage":
        """Loads a checkpoint by name, folder or Hub id.

        Raises:
            ValueError: If the checkpoint is missing, damaged, or makes no pictures from text.
        """
        model = hub.load(name)
        if not isinstance(model, LatentDiffusion):
            family = type(model).__name__
            raise ValueError(
                f"{name} is a checkpoint of {family}, which does not draw from text: choose a "
                "latent diffusion model, such as book128_latent."
            )
        return cls(model, name, runtime)

    @torch.inference_mode()
    def __call__(
        self,
        prompts: Sequence[str],
        negative: str = "",
        seeds: Sequence[int] = (0,),
        steps: int = 20,
        guidance: float = 3.0,
        sampler: str = "dpm++2m",
        size: int = 128,
    ) -> Iterator[Preview | Picture]:
        """Draws one picture for each prompt.

        Args:
            prompts: What to draw, in English or Vietnamese.
            negative: What to avoid; empty for nothing.
            seeds: One a prompt.
            steps: Steps of the sampler, 1 to 100.
            guidance: Strength of guidance, 0 to 20; 1 is none.
            sampler: A name of `SAMPLERS`.
            size: Side in pixels, one of `SIZES`; the checkpoints are trained at 128.

        Raises:
            ValueError, TypeError: If an argument is out of range or of the wrong type.
            FloatingPointError: If the model makes a picture that is not finite.
        """
        _check(prompts, negative, seeds, steps, guidance, sampler, size)
        begun = time.monotonic()
        guided = self.guided(self.model.denoiser, guidance, self.model.condition([negative]))
        yield from self.draw(
            guided, self.condition(prompts), prompts, seeds, steps, sampler, size, begun
        )

    def draw(
        self,
        denoiser: Denoises,
        cond: Condition,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int,
        sampler: str,
        size: int,
        begun: float,
    ) -> Iterator[Preview | Picture]:
        """The pictures of a denoiser of the latents, from arguments that were checked."""
        shape = self.model.latent_shape(size, size)
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        start = noise(rngs, shape, device=self.runtime.device)
        states = SAMPLERS[sampler].trajectory(denoiser, start, steps, cond, rngs)
        shown = -math.inf
        for state in states:
            if time.monotonic() - shown > PREVIEW_SECONDS and state.step < steps:
                yield Preview(state.step, steps, tuple(self._pictures(state.x0)))
                shown = time.monotonic()
        for i, image in enumerate(self._pictures(state.x)):
            seconds = round(time.monotonic() - begun, 3)
            sha256 = hashlib.sha256(image.tobytes()).hexdigest()
            yield Picture(i, image, prompts[i], seeds[i], steps, state.nfe, seconds, sha256)

    def guided(self, denoiser: Denoises, scale: float, negative: Condition) -> Denoises:
        """With guidance; in float32 on a processor it answers for one picture at a time."""
        guided = Guided(denoiser, scale, negative)
        return Apart(guided) if self._exact else guided

    def condition(self, prompts: Sequence[str]) -> Condition:
        """What the denoiser is given for these prompts."""
        if not self._exact:
            return self.model.condition(prompts)
        return {"text": torch.cat([self.model.condition([text])["text"] for text in prompts])}

    @property
    def _exact(self) -> bool:
        """Whether a picture shall not depend on its batch even by rounding."""
        return self.runtime.device.type == "cpu" and self.runtime.dtype == torch.float32

    def _pictures(self, z: Float[Tensor, "B C h w"]) -> Iterator[Image.Image]:
        x = self.model.decode(z.to(self.runtime.dtype)).mean
        if not bool(x.isfinite().all()):
            raise FloatingPointError(
                "The picture could not be made: the model gave numbers that are not finite. Try "
                "lower guidance or another seed."
            )
        for picture in to_uint8(x.cpu()).permute(0, 2, 3, 1):
            yield Image.fromarray(picture.contiguous().numpy())


class SketchToImage:
    """A latent diffusion model under a control: it draws what a hint and a prompt say.

    Args:
        drawer: The base, ready to draw.
        control: What reads the hints.
        name: What the control is called in receipts.

    Raises:
        ValueError: If the control was not made for this base.
    """

    def __init__(self, drawer: TextToImage, control: Control, name: str) -> None:
        theirs = drawer.model.denoiser.backbone.config
        if any(control.config[key] != theirs[key] for key in ("latent", "text", "channels")):
            raise ValueError(
                f"{name} was made for other latents or texts than those of {drawer.name}: choose "
                "the model that it was trained with, book128_latent for book128_sketch."
            )
        self.drawer, self.name, self.sha256 = drawer, name, control.sha256
        self.control = prepare(control, drawer.runtime)

    @classmethod
    def from_pretrained(
        cls,
        name: str = "book128_sketch",
        base: str = "book128_latent",
        runtime: Runtime | None = None,
    ) -> "SketchToImage":
        """Loads a control and its base by name, folder or Hub id.

        Raises:
            ValueError: If one of the two is missing, damaged, or of another family.
        """
        control = hub.load(name)
        if not isinstance(control, Control):
            raise ValueError(
                f"{name} is a checkpoint of {type(control).__name__}, which follows no hint: "
                "choose a control, such as book128_sketch."
            )
        return cls(TextToImage.from_pretrained(base, runtime), control, name)

    @torch.inference_mode()
    def __call__(
        self,
        hint: Float[Tensor, "N K H W"],
        prompts: Sequence[str],
        negative: str = "",
        seeds: Sequence[int] = (0,),
        steps: int = 20,
        guidance: float = 3.0,
        sampler: str = "dpm++2m",
        strength: float = 1.0,
        start: float = 0.0,
        stop: float = 1.0,
        guess: bool = False,
    ) -> Iterator[Preview | Picture]:
        """Draws one picture for each prompt and hint.

        Args:
            hint: Drawings or painted maps (`genkit.data.hints`), 0 to 1, as large as the pictures
                shall be: one for all prompts or one each; zero everywhere draws from the prompt
                alone.
            prompts: What to draw, in English or Vietnamese; may be empty texts.
            negative: What to avoid; empty for nothing.
            seeds: One a prompt.
            steps: Steps of the sampler, 1 to 100.
            guidance: Strength of guidance, 0 to 20; 1 is none.
            sampler: A name of `SAMPLERS`.
            strength: Of the control, 0 to 1.5; 1 is as it was trained.
            start, stop: From which to which share of the way the control acts.
            guess: Whether guidance exaggerates the hint as well as the words; for no words.

        Raises:
            ValueError, TypeError: If an argument is out of range or of the wrong type.
            FloatingPointError: If the model makes a picture that is not finite.
        """
        size = self._check_hint(hint, len(prompts))
        _check(prompts, negative, seeds, steps, guidance, sampler, size)
        for what, value in (("strength", strength), ("start", start), ("stop", stop)):
            _check_number(what, value)
        begun, model, name = time.monotonic(), self.drawer.model, self.control.name
        planes = hint.to(self.drawer.runtime.device, torch.float32)
        planes = planes.expand(len(prompts), -1, -1, -1)
        controlled = Controlled(model.denoiser, self.control, strength, start, stop)
        absent = {name: torch.zeros_like(planes[:1])} if guess else {}
        guided = self.drawer.guided(controlled, guidance, model.condition([negative]) | absent)
        cond = self.drawer.condition(prompts) | {name: planes}
        yield from self.drawer.draw(guided, cond, prompts, seeds, steps, sampler, size, begun)

    def _check_hint(self, hint: Float[Tensor, "N K H W"], count: int) -> int:
        """The side of the picture."""
        number, planes, height, width = hint.shape
        if number not in (1, count):
            raise ValueError(f"{number} hints for {count} prompts: give one for all or one each.")
        if planes != self.control.planes or height != width:
            raise ValueError(
                f"The hint has shape {tuple(hint.shape)}: {self.name} needs {self.control.planes} "
                "planes and a square."
            )
        if not bool(((hint >= 0) & (hint <= 1)).all()):
            raise ValueError("The hint holds a number that is not from 0 to 1: give ink.")
        return height


def _check(
    prompts: Sequence[str],
    negative: str,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    sampler: str,
    size: int,
) -> None:
    for name, value in (("prompts", prompts), ("seeds", seeds)):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise TypeError(f"{name} is {value!r:.60}: give a list.")
    _within("The number of prompts", len(prompts), "pictures")
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts: give one each.")
    for text in (*prompts, negative):
        _check_text(text)
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"The seed {seed!r:.60} is not a whole number from 0 to {MAX_SEED}.")
    if type(steps) is not int:
        raise TypeError(f"steps is {steps!r:.60}, not a whole number.")
    _within("steps", steps, "steps")
    _check_number("guidance", guidance)
    if type(sampler) is not str or sampler not in SAMPLERS:
        known = ", ".join(SAMPLERS)
        raise ValueError(f"The sampler {sampler!r:.60} is unknown: choose {known}.")
    if type(size) is not int or size not in SIZES:
        raise ValueError(f"The size {size!r:.60} is none: use a multiple of 16 from 64 to 256.")


def _check_number(what: str, value: float) -> None:
    if type(value) not in (int, float) or value != value:
        raise TypeError(f"{what} is {value!r:.60}, not a number.")
    _within(what, value, what)


def _check_text(text: str) -> None:
    if type(text) is not str:
        raise TypeError(f"A prompt is {text!r:.60}, not a text.")
    _within("The length of a prompt", len(text), "characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"The prompt {ascii(text[:40])} holds half a character (a lone surrogate): type it "
            "again."
        ) from error


def _within(what: str, value: float, limit: str) -> None:
    low, high = LIMITS[limit]
    if not low <= value <= high:
        raise ValueError(f"{what} is {value!r:.60}: it must be from {low:g} to {high:g}.")
