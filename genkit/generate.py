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
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from genkit import hub
from genkit.asked import SAMPLERS, Manner, check, check_number
from genkit.data.picturebook.source import to_uint8
from genkit.diffusion.denoise import NOTHING, Condition, Denoises
from genkit.diffusion.guide import Apart, Guided
from genkit.diffusion.trajectory import noise
from genkit.models.controlnet import Control, Controlled
from genkit.models.latent import LatentDiffusion, Student
from genkit.runtime import Runtime, detect, each, prepare

__all__ = [
    "FEW",
    "Picture",
    "Preview",
    "SketchToImage",
    "TextToImage",
]

FEW = 8
"""Steps that are over before anybody has seen a preview."""
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
        manner: How it draws unless it is told otherwise.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        name: str,
        runtime: Runtime | None = None,
        manner: Manner | None = None,
    ) -> None:
        self.name, self.manner = name, manner or Manner()
        self.sha256 = model.sha256
        self.runtime = runtime or detect()
        self.model = prepare(model, self.runtime)

    @classmethod
    def from_pretrained(
        cls, name: str = "book128_latent", runtime: Runtime | None = None
    ) -> "TextToImage":
        """Loads a checkpoint by name, folder or Hub id.

        Raises:
            ValueError: If the checkpoint is missing, damaged, or makes no pictures from text; of a
                student, if its teacher is another one than when it was taught.
        """
        model = hub.load(name)
        if isinstance(model, Student):
            return cls.taught(model, name, runtime)
        if not isinstance(model, LatentDiffusion):
            family = type(model).__name__
            raise ValueError(
                f"{name} is a checkpoint of {family}, which does not draw from text: choose a "
                "latent diffusion model, such as book128_latent."
            )
        return cls(model, name, runtime)

    @classmethod
    def taught(cls, student: Student, name: str, runtime: Runtime | None = None) -> "TextToImage":
        """A student in its teacher's place, drawing in the few steps that it learned.

        Raises:
            ValueError: If the teacher is missing, or another one than when it was taught.
        """
        manner = Manner(student.steps, 1.0, "euler")  # guidance is built in
        return cls(student.among(hub.load(student.teacher)), name, runtime, manner)

    @torch.inference_mode()
    def __call__(
        self,
        prompts: Sequence[str],
        negative: str = "",
        seeds: Sequence[int] = (0,),
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        size: int = 128,
    ) -> Iterator[Preview | Picture]:
        """Draws one picture for each prompt.

        Args:
            prompts: What to draw, in English or Vietnamese.
            negative: What to avoid; empty for nothing.
            seeds: One a prompt.
            steps, guidance, sampler: See `Manner`; None is as this model draws best.
            size: Side in pixels, one of `SIZES`; the checkpoints are trained at 128.

        Raises:
            ValueError, TypeError: If an argument is out of range or of the wrong type.
            FloatingPointError: If the model makes a picture that is not finite.
        """
        manner = self.asked(steps, guidance, sampler)
        check(prompts, negative, seeds, manner, size)
        begun = time.monotonic()
        guided = self.guided(self.model.denoiser, manner.guidance, negative)
        cond = self.condition(prompts)
        yield from self.draw(guided, cond, prompts, seeds, manner, size, begun)

    def asked(self, steps: int | None, guidance: float | None, sampler: str | None) -> Manner:
        """These, and where one is None this model's own."""
        own = self.manner
        return Manner(
            own.steps if steps is None else steps,
            own.guidance if guidance is None else guidance,
            own.sampler if sampler is None else sampler,
        )

    def draw(
        self,
        denoiser: Denoises,
        cond: Condition,
        prompts: Sequence[str],
        seeds: Sequence[int],
        manner: Manner,
        size: int,
        begun: float,
    ) -> Iterator[Preview | Picture]:
        """The pictures of a denoiser of the latents, from arguments that were checked."""
        shape, steps = self.model.latent_shape(size, size), manner.steps

        def drawn() -> Generator[Preview | Picture]:
            rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
            start = noise(rngs, shape, device=self.runtime.device)
            states = SAMPLERS[manner.sampler].trajectory(denoiser, start, steps, cond, rngs)
            shown = -math.inf
            for state in states:
                if time.monotonic() - shown > PREVIEW_SECONDS and state.step < steps > FEW:
                    yield Preview(state.step, steps, tuple(self._pictures(state.x0)))
                    shown = time.monotonic()
            for i, image in enumerate(self._pictures(state.x)):
                seconds = round(time.monotonic() - begun, 3)
                sha256 = hashlib.sha256(image.tobytes()).hexdigest()
                yield Picture(i, image, prompts[i], seeds[i], steps, state.nfe, seconds, sha256)

        threads = self.runtime.threads_for(len(prompts) * denoiser.passes)
        yield from each(drawn(), threads, self.runtime.threads)

    def guided(
        self, denoiser: Denoises, scale: float, negative: str, absent: Condition = NOTHING
    ) -> Denoises:
        """With guidance; in float32 on a processor it answers for one picture at a time.

        Args:
            denoiser: What is guided.
            scale: Of guidance; at 1 nothing is avoided.
            negative: Text to avoid.
            absent: What else of the conditions is avoided.
        """
        if scale != 1:
            denoiser = Guided(denoiser, scale, self.model.condition([negative]) | absent)
        return Apart(denoiser) if self._exact else denoiser

    def condition(self, prompts: Sequence[str]) -> Condition:
        """What the denoiser is given for these prompts, each as if it were alone."""
        rows = {text: self.model.condition([text])["text"] for text in dict.fromkeys(prompts)}
        return {"text": torch.cat([rows[text] for text in prompts])}

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
        return cls.under(TextToImage.from_pretrained(base, runtime), name)

    @classmethod
    def under(cls, drawer: TextToImage, name: str) -> "SketchToImage":
        """A model that is loaded already, under the control of this name, folder or Hub id.

        Raises:
            ValueError: If the control is missing, damaged, or of another family.
        """
        control = hub.load(name)
        if not isinstance(control, Control):
            raise ValueError(
                f"{name} is a checkpoint of {type(control).__name__}, which follows no hint: "
                "choose a control, such as book128_sketch."
            )
        return cls(drawer, control, name)

    @torch.inference_mode()
    def __call__(
        self,
        hint: Float[Tensor, "N K H W"],
        prompts: Sequence[str],
        negative: str = "",
        seeds: Sequence[int] = (0,),
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        strength: float = 1.0,
        start: float = 0.0,
        stop: float = 1.0,
        guess: bool = True,
    ) -> Iterator[Preview | Picture]:
        """Draws one picture for each prompt and hint.

        Args:
            hint: Drawings or painted maps (`genkit.data.hints`), 0 to 1, as large as the pictures
                shall be: one for all prompts or one each; zero everywhere draws from the prompt
                alone.
            prompts: What to draw, in English or Vietnamese; may be empty texts.
            negative: What to avoid; empty for nothing.
            seeds: One a prompt.
            steps, guidance, sampler: See `Manner`; None is as this model draws best.
            strength: Of the control, 0 to 1.5; 1 is as it was trained.
            start, stop: From which to which share of the way the control acts.
            guess: Whether guidance exaggerates the hint as well as the words, so that it also
                works without them; else the words win where the two disagree.

        Raises:
            ValueError, TypeError: If an argument is out of range or of the wrong type.
            FloatingPointError: If the model makes a picture that is not finite.
        """
        size = self._check_hint(hint, len(prompts))
        manner = self.drawer.asked(steps, guidance, sampler)
        check(prompts, negative, seeds, manner, size)
        for what, value in (("strength", strength), ("start", start), ("stop", stop)):
            check_number(what, value)
        begun, drawer, name = time.monotonic(), self.drawer, self.control.name
        planes = hint.to(drawer.runtime.device, torch.float32).expand(len(prompts), -1, -1, -1)
        controlled = Controlled(drawer.model.denoiser, self.control, strength, start, stop)
        absent = {name: torch.zeros_like(planes[:1])} if guess else NOTHING
        guided = drawer.guided(controlled, manner.guidance, negative, absent)
        cond = drawer.condition(prompts) | {name: planes}
        yield from drawer.draw(guided, cond, prompts, seeds, manner, size, begun)

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
