"""What a visitor of the sketch page has asked for, checked: as `apps.settings` for that page."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apps.forward import check_number, check_whole
from apps.ink import KINDS, Drawing, board
from apps.settings import (
    CAREFUL,
    LIMITS,
    MODELS,
    Refused,
    check_choice,
    check_flag,
    check_text,
    shown,
)
from genkit.asked import LIMITS as MODEL

__all__ = [
    "DEFAULTS",
    "NAMES",
    "PICTURES",
    "SHARES",
    "STEPS",
    "STRENGTHS",
    "Traced",
    "check",
    "drawn",
]

STEPS, STRENGTHS, SHARES = (1, 50), MODEL["strength"], (0.0, 1.0)
PICTURES = (1, 4)


@dataclass(frozen=True)
class Traced:
    """One request, every value within its limits (see `check`)."""

    prompt: str = ""
    strength: float = 1.0
    n: int = 1
    seed: int = 1
    model: str = CAREFUL
    num_inference_steps: int = MODELS[CAREFUL].steps
    start: float = 0.0
    stop: float = 1.0
    guess: bool = True


DEFAULTS = Traced()
NAMES = tuple(Traced.__dataclass_fields__)
"""Names of the settings, in the order of the controls."""


def check(values: Mapping[str, Any]) -> Traced:
    """The settings of these values.

    Args:
        values: Name → raw value, as JSON gives it. A name that is absent keeps its default;
            without `guess`, or where it is None, drawings are stressed where the model can.

    Raises:
        Refused: A value is of the wrong type or outside its limits, the control would begin after
            its end, or a model without guidance should exaggerate.
    """
    values = vars(DEFAULTS) | {"guess": None} | dict(values)
    start = check_number("start", values["start"], *SHARES)
    stop = check_number("stop", values["stop"], *SHARES)
    if start >= stop:
        raise Refused("sketch.order", start=shown(start), stop=shown(stop))
    model = check_choice("model", values["model"], tuple(MODELS))
    guided = MODELS[model].guided
    guess = guided if values["guess"] is None else check_flag("guess", values["guess"])
    if guess and not guided:
        raise Refused("sketch.guessing", model=model)
    steps = check_whole("num_inference_steps", values["num_inference_steps"], *STEPS)
    return Traced(
        prompt=check_text("prompt", values["prompt"]),
        strength=check_number("strength", values["strength"], *STRENGTHS),
        n=check_whole("n", values["n"], *PICTURES),
        seed=check_whole("seed", values["seed"], *LIMITS["seed"]),
        model=model,
        num_inference_steps=steps,
        start=start,
        stop=stop,
        guess=guess,
    )


def drawn(sent: Any) -> Drawing:
    """The drawing that the page sends: JSON of its kind and its picture file.

    Raises:
        Refused: It is something else, or the file cannot be read.
    """
    try:
        found = json.loads(sent) if sent not in (None, "") else {}
        kind, file = found.get("kind", "sketch"), found.get("image", "")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Refused("sketch.sent") from error
    return board(check_choice("kind", kind, tuple(KINDS)), file)
