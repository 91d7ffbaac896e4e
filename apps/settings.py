"""What a visitor has set, checked: the same for the page, the endpoint, a link and a receipt.

Nothing that comes from outside is trusted: Gradio's own components let NaN, 20.7, true and
50,000,000 characters pass from an API client, so every value is checked here again. A value that
is refused raises `Refused`, a sentence that names the value, the limit and the remedy, which can
be said in every language.
"""

import math
import random
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from apps.text import LANGUAGES, Pair, locale, say
from genkit.asked import LIMITS as MODEL
from genkit.asked import MAX_SEED, Manner

__all__ = [
    "CAREFUL",
    "CONTROLS",
    "DEFAULTS",
    "FAST",
    "LIMITS",
    "MAX_CHARACTERS",
    "MAX_SEED",
    "MODELS",
    "NAMES",
    "OWN",
    "SHORT",
    "Refused",
    "Settings",
    "argument",
    "check",
    "check_choice",
    "check_flag",
    "check_language",
    "check_pieces",
    "check_size",
    "check_text",
    "defaults",
    "draw_seed",
    "known",
    "shown",
]

CAREFUL, FAST = "book128_latent", "book128_fast"
MODELS: Mapping[str, Manner] = {
    CAREFUL: Manner(),
    FAST: Manner(steps=4, guidance=1.0, sampler="euler"),
}
"""The text-to-image models, the default first, and how each draws best."""

CONTROLS: Mapping[str, str] = {"sketch": "book128_sketch", "map": "book128_map"}
"""The checkpoint that follows each kind of drawing."""

MAX_CHARACTERS = int(MODEL["characters"][1])
"""Longest prompt, in characters after NFC normalisation."""

LIMITS: Mapping[str, tuple[int, int]] = {
    "n": (1, 8),
    "seed": (0, MAX_SEED),  # int32, as in the Hub's text-to-image template
    "guidance_scale": (int(MODEL["guidance"][0]), int(MODEL["guidance"][1])),
    "num_inference_steps": (int(MODEL["steps"][0]), int(MODEL["steps"][1])),
}
"""Smallest and largest value of every number."""

SHORT: Mapping[str, str] = {
    "prompt": "prompt",
    "negative": "negative_prompt",
    "n": "n",
    "seed": "seed",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "sampler": "sampler",
    "model": "model",
}
"""Name in a link -> name of the setting."""


class Refused(ValueError):
    """An input that is refused, with the key of the sentence that says why, limit and remedy."""

    def __init__(self, key: str, **values: Any) -> None:
        super().__init__(say("en", key, **values))
        self.key = key
        self.values = values

    def say(self, language: str) -> str:
        """The sentence in this language (English if the language is unknown)."""
        return say(language if language in LANGUAGES else "en", self.key, **self.values)


@dataclass(frozen=True)
class Settings:
    """One request, every value within its limits (see `check`)."""

    prompt: str = ""
    negative_prompt: str = ""
    n: int = 1
    seed: int = 1
    randomize_seed: bool = True
    guidance_scale: float = MODELS[CAREFUL].guidance
    num_inference_steps: int = MODELS[CAREFUL].steps
    sampler: str = MODELS[CAREFUL].sampler
    model: str = CAREFUL


DEFAULTS = Settings()
NAMES = tuple(Settings.__dataclass_fields__)
"""Names of the settings, in the order of the controls."""
OWN = ("num_inference_steps", "guidance_scale", "sampler")
"""Those of which each model has its own, from its `Manner`."""


def defaults(model: str) -> Settings:
    """The settings of who says nothing but the name of a model: they are as it draws best."""
    manner = MODELS[model]
    own = dict(zip(OWN, (manner.steps, manner.guidance, manner.sampler)))
    return Settings(model=model, **own)


def check(values: Mapping[str, Any], samplers: Sequence[str]) -> Settings:
    """The settings of these values.

    Args:
        values: Name -> raw value, as JSON gives it. A name that is absent keeps the default of
            the model that is named.
        samplers: The samplers that the model knows.

    Raises:
        Refused: A value is of the wrong type, outside its limits, or unknown.
    """
    model = check_choice("model", values.get("model", DEFAULTS.model), tuple(MODELS))
    values = vars(defaults(model)) | dict(values)
    prompt = check_text("prompt", values["prompt"])
    if not prompt:
        raise Refused("error.empty")
    return Settings(
        prompt=prompt,
        negative_prompt=check_text("negative_prompt", values["negative_prompt"]),
        n=_whole("n", values["n"]),
        seed=_whole("seed", values["seed"]),
        randomize_seed=check_flag("randomize_seed", values["randomize_seed"]),
        guidance_scale=_real("guidance_scale", values["guidance_scale"]),
        num_inference_steps=_whole("num_inference_steps", values["num_inference_steps"]),
        sampler=check_choice("sampler", values["sampler"], samplers),
        model=model,
    )


def known(values: Mapping[str, Any], samplers: Sequence[str]) -> tuple[Settings, list[Refused]]:
    """The settings of a link or of a saved page: a value that is refused keeps its default.

    Unlike in `check`, an empty prompt is allowed: a page may be opened without one.
    """
    settings: dict[str, Any] = {}
    refused = []
    for name in NAMES:
        if name not in values or values[name] == "":
            continue
        try:
            one = check({"prompt": "-"} | {name: values[name]}, samplers)
            settings[name] = getattr(one, name)
        except Refused as error:
            refused.append(error)
    model = settings.get("model", DEFAULTS.model)
    return replace(defaults(model), **settings), refused


def draw_seed() -> int:
    """A seed from the operating system's randomness."""
    return random.SystemRandom().randint(0, MAX_SEED)


def check_language(language: Any) -> str:
    """The language, if the pages speak it."""
    return check_choice("language", language, tuple(LANGUAGES))


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of these names."""
    if not isinstance(value, str) or value not in choices:
        # A name that is empty or holds a comma of its own stands in quotation marks.
        listed = ", ".join(f'"{one}"' if "," in one or not one else one for one in choices)
        raise Refused("error.choice", name=argument(name), value=shown(value), choices=listed)
    return value


def check_text(name: str, value: Any) -> str:
    """A prompt: a string, NFC, blanks collapsed, no control characters, not too long."""
    if not isinstance(value, str):
        raise Refused("error.type", name=argument(name), value=shown(value))
    if len(value) > 4 * MAX_CHARACTERS:  # normalising takes time that grows with the square
        raise _long(name, len(value))
    text = " ".join(unicodedata.normalize("NFC", value).split())
    if len(text) > MAX_CHARACTERS:
        raise _long(name, len(text))
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs"):
            code = f"U+{ord(character):04X}"
            raise Refused("error.control", name=argument(name), value=code)
    return text


def check_pieces(settings: Settings, count: Callable[[str], tuple[int, int]]) -> None:
    """Neither prompt has more word pieces than the model reads.

    Args:
        settings: Checked settings.
        count: Text -> (its word pieces, how many the model reads).

    Raises:
        Refused: One has more.
    """
    for name in ("prompt", "negative_prompt"):
        pieces, limit = count(getattr(settings, name))
        if pieces > limit:
            raise Refused("error.pieces", name=argument(name), value=pieces, limit=limit)


def check_size(name: str, value: Any, size: int) -> None:
    """Width or height of a picture: only the size that the model draws."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or value != size:
        raise Refused("error.size", name=name, value=shown(value), size=size)


def _long(name: str, length: int) -> Refused:
    return Refused("error.long", name=argument(name), value=length, limit=MAX_CHARACTERS)


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    low, high = LIMITS[name]
    if number != math.floor(number) or not low <= number <= high:
        raise Refused("error.whole", name=argument(name), value=shown(value), low=low, high=high)
    return int(number)


def _real(name: str, value: Any) -> float:
    number = _number(name, value)
    low, high = LIMITS[name]
    if not low <= number <= high:
        raise Refused("error.range", name=argument(name), value=shown(value), low=low, high=high)
    return float(number)


def _number(name: str, value: Any) -> int | float:
    # A bool is an int to Python, not to a person; a string that looks like a number is a string.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or (isinstance(value, float) and not math.isfinite(value)):
        low, high = LIMITS[name]
        raise Refused("error.number", name=argument(name), value=shown(value), low=low, high=high)
    return value


def check_flag(name: str, value: Any) -> bool:
    """True or false, and nothing that only looks like it."""
    if not isinstance(value, bool):
        raise Refused("error.flag", name=argument(name), value=shown(value))
    return value


def argument(name: str) -> Pair:
    """The name for a sentence; an API client reads the argument's name beside it."""
    return Pair(*(f"{locale(language)[f'name.{name}']} ({name})" for language in LANGUAGES))


def shown(value: Any) -> str:
    """The value, short enough for a sentence."""
    if isinstance(value, int) and value.bit_length() > 128:  # repr refuses 5,000 digits
        return f"2^{value.bit_length() - 1}…"
    text = repr(value[:61] if isinstance(value, str) else value)
    printable = "".join(c if c.isprintable() else "·" for c in text)
    return printable if len(printable) <= 60 else printable[:57] + "…"
