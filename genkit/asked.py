"""What can be asked of a generator of pictures: samplers, sizes, limits, and the checks of both.

Every value is checked where it enters, so that an error is one sentence that names the value, the
limit and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from genkit.diffusion.multistep import DEIS, DPMPP2M, DPMPP2MSDE, DPMPP3M, IPNDM, UniPC
from genkit.diffusion.sample import DDIM, DDPM, Euler, EulerAncestral, Heun
from genkit.diffusion.trajectory import Sampler

__all__ = [
    "LIMITS",
    "MAX_SEED",
    "SAMPLERS",
    "SIZES",
    "Manner",
    "check",
    "check_number",
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


@dataclass(frozen=True)
class Manner:
    """How a model is sampled.

    Args:
        steps: Of the sampler, 1 to 100.
        guidance: Strength of guidance, 0 to 20; 1 is none.
        sampler: A name of `SAMPLERS`.
    """

    steps: int = 20
    guidance: float = 3.0
    sampler: str = "dpm++2m"

    @property
    def guided(self) -> bool:
        """Whether what is asked is compared with what is not."""
        return self.guidance != 1


def check(
    prompts: Sequence[str],
    negative: str,
    seeds: Sequence[int],
    manner: Manner,
    size: int,
) -> None:
    """Refuses what cannot be drawn.

    Raises:
        ValueError, TypeError: If a value is out of range or of the wrong type.
    """
    steps, guidance, sampler = manner.steps, manner.guidance, manner.sampler
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
    check_number("guidance", guidance)
    if type(sampler) is not str or sampler not in SAMPLERS:
        known = ", ".join(SAMPLERS)
        raise ValueError(f"The sampler {sampler!r:.60} is unknown: choose {known}.")
    if type(size) is not int or size not in SIZES:
        raise ValueError(f"The size {size!r:.60} is none: use a multiple of 16 from 64 to 256.")


def check_number(what: str, value: float) -> None:
    """Refuses what is no number within the limits of this name.

    Raises:
        ValueError, TypeError: If it is not.
    """
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
