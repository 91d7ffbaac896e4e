"""Steering: a picture of a class, by a classifier of noisy pictures or without one.

By Bayes' rule p(x_t | y) ∝ p(x_t) P(y | x_t), the score of the pictures of a class y is

    ∇ ln p(x_t | y) = ∇ ln p(x_t) + ∇ ln P(y | x_t)

and by Tweedie's formula, E[x_0 | x_t] = (x_t + σ_t² ∇ ln p(x_t))/α_t, the estimate of the clean
picture is moved by σ_t²/α_t times what a score gains:

    none            x̂_0 = x̂_0(x_t)
    classifier      x̂_0 = x̂_0(x_t) + s (σ_t²/α_t) ∇ ln P(y | x_t)
    free            x̂_0 = x̂_0(x_t) + s (x̂_0(x_t, y) − x̂_0(x_t))

At one s the last two would be the same, if all networks were perfect: both are the pictures of
p(x_t) P(y | x_t)^s at every t. Here they go side by side from the same noise, and the classifier
says P(y | x_t) of all of them after every step, of the unguided ones too.
"""

import math
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import torch
from jaxtyping import Float
from torch import Tensor

from apps.cards import progress, table_file
from apps.classes import MODELS, check_label, choices, named, pixels, sheet_url
from apps.common import HEAVY, Studio, html_part, timed, told
from apps.figure import Across, Curve, Frame, chart
from apps.forward import check_number, check_whole
from apps.section import Live, answered, buttons, endpoint, formula, link, packed, place, wire
from apps.settings import LIMITS, MAX_SEED, check_choice, check_language
from apps.text import Pair, Words, both, number, spans
from genkit.diffusion.denoise import Denoises
from genkit.diffusion.grid import LogSNR
from genkit.diffusion.guide import ClassifierGuided, Clipped, Guided
from genkit.diffusion.sample import DPMPP2M, noise
from genkit.models.classifier import CLASSES, NoisyClassifier
from genkit.models.diffusion import PixelDiffusion

__all__ = ["KINDS", "Request", "Steer", "Step", "section"]

CLASSIFIER = "book32_classifier"
KINDS: Mapping[str, str] = {"none": "s6", "classifier": "s1", "free": "s2"}
"""Ways to a class, and their colours."""
COUNT = 4
"""Pictures of each."""
EVERY = 0.3
"""Seconds between two previews."""
SCALES = (0, 100)
STEPS = (1, 100)
LABEL, SCALE, SEED = "sea, night", 4.0, 7
"""With which the page opens."""
TIME = Across((1, 0.75, 0.5, 0.25, 0))
FRAME = Frame(540, 260, 16)


@dataclass(frozen=True)
class Request:
    """A request that has been checked."""

    label: str
    scale: float
    seed: int
    model: str
    steps: int


@dataclass(frozen=True, eq=False)
class Step:
    """After a step, for each kind and picture.

    Args:
        step: Steps done.
        t: The time that is reached, 0 at the end.
        chances: P(y | x_t).
        pictures: x̂_0 on the way, x_0 at the end.
    """

    step: int
    t: float
    chances: Float[Tensor, "K N"]
    pictures: Float[Tensor, "K N 3 H W"]


@dataclass(eq=False)
class Film:
    """All steps of a request so far."""

    request: Request
    steps: list[Step] = field(default_factory=list)
    seconds: float | None = None

    def chances(self, kind: str, index: int | None = None) -> list[float]:
        """P(y | x_t) of one picture over time, or the mean of all."""
        rows = (one.chances[list(KINDS).index(kind)] for one in self.steps)
        return [(row.mean() if index is None else row[index]).item() for row in rows]

    @property
    def times(self) -> list[float]:
        return [one.t for one in self.steps]


class Steer:
    """The handlers of the section over one studio."""

    def __init__(self, studio: Studio) -> None:
        # A closure, as in `handlers.Desk`: the studio stays in its process.
        def ran(request: Request) -> Iterator[Step]:
            yield from run(studio.model(request.model), studio.model(CLASSIFIER), request)

        self._run = studio.on_gpu(ran)

    def show(self, language: Any, *values: Any) -> Iterator[tuple[str, str]]:
        """(status, answer for the browser) after every step."""
        with told(language):
            request = checked(*values)
            yield progress(0, request.steps, both("status.start")), packed(_answer(Film(request)))
            shown_at = -math.inf
            for film in self._films(request):
                if film.seconds is not None or time.monotonic() > shown_at + EVERY:
                    yield _status(film), packed(_answer(film))
                    shown_at = time.monotonic()

    def steer(
        self,
        label: str,
        scale: float = SCALE,
        seed: int = SEED,
        model: str = "book32_guided",
        steps: int = 20,
        language: str = "en",
    ) -> Iterator[dict[str, Any]]:
        """Four pictures each: unguided, guided by a classifier, and guided without a classifier.

        `label` is one of the 16 classes, as "meadow, night"; `scale` is the strength of both
        guidances (0 to 100; 1 is Bayes' rule), `steps` 1 to 100, `model` book32_guided or
        book32_ddpm. All start from the same noise. Streams after every step: the times and
        P(label | x_t) by the noisy classifier for none, classifier and free, each time one row
        of four; with the last answer (done) come the pictures as PNG.
        """
        with told(language):
            check_language(language)
            for film in self._films(checked(label, scale, seed, model, steps)):
                yield _numbers(film)

    def _films(self, request: Request) -> Iterator[Film]:
        film, begun = Film(request), time.monotonic()
        for step in timed(self._run(request)):
            film.steps.append(step)
            if step.t == 0:
                film.seconds = time.monotonic() - begun
            yield film


def checked(label: Any, scale: Any, seed: Any, model: Any, steps: Any) -> Request:
    """The request of these values.

    Raises:
        Refused: One of them is unknown, of the wrong type or out of its limits.
    """
    named_class = check_label(label, nothing=False)
    assert named_class is not None
    return Request(
        label=named_class,
        scale=check_number("scale", scale, *SCALES),
        seed=check_whole("seed", seed, *LIMITS["seed"]),
        model=check_choice("model", model, MODELS),
        steps=check_whole("steps", steps, *STEPS),
    )


def run(model: PixelDiffusion, classifier: NoisyClassifier, request: Request) -> Generator[Step]:
    """The state before the first step, then after each.

    Raises:
        FloatingPointError: A picture is not finite.
    """
    seeds = [(request.seed + i) % (MAX_SEED + 1) for i in range(COUNT)]
    rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
    cond = model.condition([request.label] * COUNT)
    device, size = cond["label"].device, model.size
    label = CLASSES.index(request.label)
    denoisers = guided(model, classifier, request.scale)
    x = noise(rngs, (3, size, size), device=device)
    x = x * model.denoiser.schedule.level(1.0).sigma

    def step(done: int, t: float, states: list[Tensor], pictures: list[Tensor]) -> Step:
        with torch.no_grad():
            all_of_them = torch.cat(states)
            times = torch.full((len(all_of_them),), t, dtype=torch.float64, device="cpu")
            chances = classifier(all_of_them, times).mean[:, label]
        if not all_of_them.isfinite().all():
            raise FloatingPointError("a picture is not finite")
        chances = chances.reshape(len(KINDS), COUNT).cpu()
        return Step(done, t, chances, torch.stack(pictures).cpu())

    yield step(0, 1.0, [x] * len(KINDS), [x] * len(KINDS))
    sampler = DPMPP2M(grid=LogSNR())
    ways = [sampler.trajectory(one, x, request.steps, cond) for one in denoisers.values()]
    for states in zip(*ways):
        last = states[0].t == 0
        pictures = [state.x if last else state.x0 for state in states]
        yield step(states[0].step, states[0].t, [state.x for state in states], pictures)


def guided(
    model: PixelDiffusion, classifier: NoisyClassifier, scale: float
) -> dict[str, Denoises]:
    """The denoiser of each kind; all see the same condition."""
    free = Guided(model.denoiser, 0, model.condition([None]))
    kinds: dict[str, Denoises] = {
        "none": free,
        "classifier": ClassifierGuided(free, classifier, scale),
        "free": Guided(model.denoiser, scale, model.condition([None])),
    }
    return {kind: Clipped(denoiser) for kind, denoiser in kinds.items()}


def _numbers(film: Film) -> dict[str, Any]:
    """What is known, for an API client."""
    chances = {
        kind: [one.chances[i].tolist() for one in film.steps] for i, kind in enumerate(KINDS)
    }
    answer = {"done": film.seconds is not None, "t": film.times, "chances": chances}
    if film.seconds is not None:
        size = film.steps[-1].pictures.shape[-1]
        answer["png"] = {
            kind: [sheet_url([[one]], size) for one in pixels(film.steps[-1].pictures[i])]
            for i, kind in enumerate(KINDS)
        }
    return answer | {"seconds": film.seconds}


def _answer(film: Film) -> dict[str, Any]:
    """What is known, for the browser."""
    answer: dict[str, Any] = {"slots": {"steer.chart": _chart(film)}, "files": {}}
    if not film.steps:
        return answer
    now = film.steps[-1]
    size = now.pictures.shape[-1]
    pictures = [list(pixels(one)) for one in now.pictures]
    answer |= {"sheet": sheet_url(pictures, size, film.seconds is not None), "size": size}
    answer["captions"] = [
        [spans(_percent(chance)) for chance in row] for row in now.chances.tolist()
    ]
    means = {kind: _percent(film.chances(kind)[-1]) for kind in KINDS}
    answer["slots"] |= {f"steer.mean.{kind}": spans(mean) for kind, mean in means.items()}
    answer["slots"]["steer.prior"] = spans(_percent(film.chances("none")[0]))
    answer["slots"]["steer.scale"] = spans(number(film.request.scale, 2))
    answer["slots"]["steer.now"] = both(
        "steer.now", label=named(film.request.label), t=number(now.t, 2), **means
    )
    rows = [
        (kind, i, one.step, one.t, one.chances[k, i].item())
        for k, kind in enumerate(KINDS) for i in range(COUNT) for one in film.steps
    ]  # fmt: skip
    columns = "kind,picture,step,t,probability"
    answer["files"] = {"steer": table_file("noise-steer.csv", columns, rows)}
    return answer


def _chart(film: Film) -> str:
    """P(y | x_t) over the time that runs to 0: thin for each picture, thick for their mean."""
    curves = [
        Curve(side, film.times, film.chances(kind, index), thin=True)
        for kind, side in KINDS.items() for index in range(COUNT)
    ]  # fmt: skip
    curves += [Curve(side, film.times, film.chances(kind)) for kind, side in KINDS.items()]
    name = "P(y | x_t)"
    return chart(curves, name, across=TIME, limits=(0, 1), frame=FRAME, now=False)


def _status(film: Film) -> str:
    step, steps = film.steps[-1].step, film.request.steps
    if film.seconds is None:
        return progress(step, steps, both("status.step", step=step, steps=steps))
    return progress(step, steps, both("race.done", seconds=number(film.seconds, 3)))


def _percent(chance: float) -> Pair:
    if not math.isfinite(chance):
        return Pair("–", "–")
    text = f"{100 * chance:.1f}"
    return Pair(f"{text}%", f"{text.replace('.', ',')}%")


def section(words: Words, studio: Studio, language: gr.Radio) -> None:
    """The section in the current context: figure on the left, words and controls on the right."""
    steer = Steer(studio)
    with gr.Row(elem_id="gk-steer", elem_classes="gk-part"):
        with gr.Column(scale=7, min_width=320, elem_classes="gk-figure"):
            html_part(_figure())
        with gr.Column(scale=5, min_width=320, elem_classes="gk-text"):
            now = place("steer.now", "span", content=both("steer.lead"))
            html_part(f"<h2>{both('steer.title')}</h2><p>{now}</p>")
            fields = _controls(words)
            pair = buttons(words, "steer.run", "steer.stop")
            places = answered("steer", both("steer.quiet"))
            live = {name: Live(f"steer.{name}") for name in ("prior", "scale")}
            means = {kind: Live(f"steer.mean.{kind}") for kind in KINDS}
            why = formula(both("steer.why", **live, **means))
            html_part(
                f"<details><summary>{both('noise.why')}</summary><p>{why}</p></details>"
                f'<p class="gk-files">{link("steer", "steer.csv")}</p>'
            )
    wire("steer", steer.show, [language, *fields], pair, places)
    gr.api(endpoint(steer.steer, "steer"), api_name="steer", **HEAVY)


def _controls(words: Words) -> list[gr.components.Component]:
    small = {"min_width": 130}
    with gr.Row(elem_classes="gk-fields"):
        label = words.add(
            gr.Dropdown, "steer.label", choices=choices(nothing=False), value=LABEL, **small
        )
        model = words.add(
            gr.Dropdown, "steer.model", choices=list(MODELS), value=MODELS[0], **small
        )
    scale = words.add(gr.Slider, "steer.scale", minimum=0, maximum=20, step=0.5, value=SCALE)
    with gr.Row(elem_classes="gk-fields"):
        seed = words.add(gr.Number, "steer.seed", value=SEED, **small)
        steps = words.add(gr.Number, "steer.steps", value=20, **small)
    return [label, scale, seed, model, steps]


def _figure() -> str:
    """Three ways side by side, four pictures each, and the chart below them."""
    groups = []
    for row, (kind, side) in enumerate(KINDS.items()):
        tiles = "".join(
            f'<figure data-tile="{row}-{i}"><canvas width="32" height="32"></canvas>'
            "<figcaption><span></span></figcaption></figure>"
            for i in range(COUNT)
        )
        name = f'<p class="gk-way-name"><b class="gk-{side}">●</b> {both(f"steer.kind.{kind}")}'
        mean = f'<span class="gk-mean">{Live(f"steer.mean.{kind}")}</span></p>'
        groups.append(f'<div>{name}{mean}<div class="gk-four">{tiles}</div></div>')
    empty = _chart(Film(checked(LABEL, SCALE, SEED, MODELS[0], 20)))
    return (
        f'<div class="gk-three">{"".join(groups)}</div>'
        f'<p class="gk-axis">{formula(both("steer.upright"))}</p>'
        f"{place('steer.chart', look='gk-steer-chart', content=empty)}"
        f'<p class="gk-axis gk-across">{both("steer.across")}</p>'
    )
