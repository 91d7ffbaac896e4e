"""Dreams: what each model draws when no picture goes in, from the same seeds, below real ones.

    autoencoder   z ~ N(m, S), fitted to the codes of training pictures;      x = g(z)
    vae           z ~ N(0, T² I);                                             x = E p(x | z)
    hvae          z_l ~ N(m_l(z_1 … z_(l−1)), T² s_l²), level after level;    x = E p(x | z)
    diffusion     x_T ~ N(0, I), then the model's own sampler, without a class

T is a temperature: 1 is the model as it was trained, less is nearer to what it believes most. The
sharpness is that of `genkit.quality`: the share of high frequencies against the real pictures.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import torch
from jaxtyping import Float
from torch import Tensor

from apps.cards import progress, table_file
from apps.classes import pixels, sheet_url
from apps.common import HEAVY, Studio, html_part, timed, told
from apps.forward import check_number, check_whole
from apps.quartet import (
    FAMILIES,
    REAL,
    check_families,
    finite,
    generators,
    load,
    row,
    scenes,
    sharp,
)
from apps.section import Live, answered, buttons, endpoint, formula, link, packed, wire
from apps.settings import LIMITS, MAX_SEED, check_language
from apps.small import SIDE
from apps.text import Words, both, fixed, number, or_none, spans
from genkit.model import Model
from genkit.models.hvae import HVAE
from genkit.models.vae import VAE

__all__ = ["Dreams", "Request", "Row", "draw", "section"]

COUNT = 8
"""Pictures in a row."""
SEED = 210_040
TEMPERATURES = (0.0, 2.0)


@dataclass(frozen=True)
class Request:
    """A request that has been checked."""

    seed: int
    count: int
    temperature: float
    families: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """What one family drew, all pictures together in so many seconds."""

    family: str
    pictures: Float[Tensor, "N 3 H W"]
    seconds: float


@dataclass(eq=False)
class Gallery:
    """All rows of a request so far, and the real pictures above them."""

    request: Request
    real: Float[Tensor, "N 3 H W"]
    rows: dict[str, Row] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return len(self.rows) == len(self.request.families)

    def sharpness(self, family: str) -> float:
        """Of the row, against the real pictures."""
        return sharp(self.rows[family].pictures, self.real)


class Dreams:
    """The handlers of the section over one studio."""

    def __init__(self, studio: Studio) -> None:
        # A closure, as in `handlers.Desk`: the studio stays in its process.
        def ran(request: Request) -> Iterator[Row]:
            yield from draw(studio.model, request)

        self._run = studio.on_gpu(ran)

    def show(self, language: Any, seed: Any, temperature: Any) -> Iterator[tuple[str, str]]:
        """(status, answer for the browser) after every family."""
        with told(language):
            begun = time.monotonic()
            request = checked(seed, COUNT, temperature, list(FAMILIES))
            for gallery in self._galleries(request):
                text = both("dreams.busy", done=len(gallery.rows), of=len(FAMILIES))
                if gallery.done:
                    text = both("race.done", seconds=number(time.monotonic() - begun, 2))
                status = progress(len(gallery.rows), len(FAMILIES), text)
                yield status, packed(_answer(gallery))

    def dreams(
        self,
        seed: int = SEED,
        count: int = COUNT,
        temperature: float = 1.0,
        families: list[str] = list(FAMILIES),  # noqa: B006
        language: str = "en",
    ) -> Iterator[dict[str, Any]]:
        """Pictures that autoencoder, vae, hvae and diffusion draw from the same seeds.

        Picture i (of `count`, 1 to 8) is drawn from `seed` + i; the real ones are the scenes of
        these seeds. `temperature` (0 to 2) is that of the two VAEs. Streams after every family:
        for each its sharpness (1: the share of high frequencies of the real pictures), seconds
        and pictures side by side as PNG; complete when `done`.
        """
        with told(language):
            check_language(language)
            for gallery in self._galleries(checked(seed, count, temperature, families)):
                yield _numbers(gallery)

    def _galleries(self, request: Request) -> Iterator[Gallery]:
        gallery = Gallery(request, scenes(request.seed, request.count))
        yield gallery
        for found in timed(self._run(request)):
            gallery.rows[found.family] = found
            yield gallery


def checked(seed: Any, count: Any, temperature: Any, families: Any) -> Request:
    """The request of these values.

    Raises:
        Refused: One of them is unknown, of the wrong type or out of its limits.
    """
    return Request(
        seed=check_whole("seed", seed, *LIMITS["seed"]),
        count=check_whole("count", count, 1, COUNT),
        temperature=check_number("temperature", temperature, *TEMPERATURES),
        families=check_families(families),
    )


def draw(of: Callable[[str], Model], request: Request) -> Generator[Row]:
    """A row for each family; picture i depends on seed + i alone.

    Args:
        of: Gives the model of a checkpoint.
        request: Checked.
    """
    for family in request.families:
        model, rngs = load(family, of), generators(request.seed, request.count)
        begun = time.perf_counter()
        with torch.no_grad():
            if isinstance(model, VAE | HVAE):
                pictures = model.generate(rngs, temperature=request.temperature)[1].mean
            else:
                pictures = model.sample(rngs)
        pictures = finite(pictures)  # waits for the device
        yield Row(family, pictures, time.perf_counter() - begun)


# The answer


def _answer(gallery: Gallery) -> dict[str, Any]:
    names = list(FAMILIES)
    rows: list[Sequence[Any]] = [list(pixels(gallery.real))]
    slots = {"dreams.of.real": both("dreams.real"), "dreams.now": both("dreams.soon")}
    for name in names:
        slots[f"dreams.of.{name}"] = slots[f"dreams.sharp.{name}"] = "–"
        found = gallery.rows.get(name)
        rows.append(list(pixels(found.pictures)) if found else [None] * COUNT)
        if found:
            sharpness = fixed(gallery.sharpness(name))
            each = number(1000 * found.seconds / len(found.pictures), 2)
            slots[f"dreams.of.{name}"] = both("dreams.said", sharpness=sharpness, ms=each)
            slots[f"dreams.sharp.{name}"] = spans(sharpness)
    if gallery.done:
        values = {name: fixed(gallery.sharpness(name)) for name in names}
        slots["dreams.now"] = both("dreams.now", **values)
    slots["dreams.temperature"] = spans(number(gallery.request.temperature, 2))
    answer = {"sheet": sheet_url(rows, SIDE), "slots": slots, "files": {}}
    answer["rows"] = [0, *(names.index(name) + 1 for name in gallery.rows)]
    if gallery.done:
        answer["files"] = {"dreams": table_file("dreams.csv", COLUMNS, _table(gallery))}
    return answer


COLUMNS = "family,seed,temperature,sharpness,seconds_of_row"


def _table(gallery: Gallery) -> Iterator[tuple[Any, ...]]:
    request = gallery.request
    found = {"real": Row("real", gallery.real, 0.0)} | gallery.rows
    for name, one in found.items():
        for i, picture in enumerate(one.pictures.split(1)):
            seed = (request.seed + i) % (MAX_SEED + 1)
            sharpness = sharp(picture, gallery.real)
            yield name, seed, request.temperature, sharpness, one.seconds


def _numbers(gallery: Gallery) -> dict[str, Any]:
    """What is known, for an API client."""
    families = {
        name: {
            "sharpness": or_none(gallery.sharpness(name)),
            "seconds": found.seconds,
            "png": sheet_url([list(pixels(found.pictures))], SIDE),
        }
        for name, found in gallery.rows.items()
    }
    pictures = sheet_url([list(pixels(gallery.real))], SIDE)
    return {"done": gallery.done, "real": {"png": pictures}, "families": families}


# The layout


def section(words: Words, studio: Studio, language: Any) -> None:
    """The section in the current context: figure on the left, words and controls on the right."""
    handlers = Dreams(studio)
    with gr.Row(elem_id="gk-dreams", elem_classes="gk-part"):
        with gr.Column(scale=7, min_width=320, elem_classes="gk-figure"):
            html_part(_figure())
        with gr.Column(scale=5, min_width=320, elem_classes="gk-text"):
            now = f'<span data-part="dreams.now">{both("dreams.lead")}</span>'
            html_part(f"<h2>{both('dreams.title')}</h2><p>{now}</p>")
            temperature = words.add(
                gr.Slider, "dreams.temperature", minimum=0, maximum=1.5, step=0.05, value=1.0
            )
            with gr.Row(elem_classes="gk-fields"):
                seed = words.add(gr.Number, "dreams.seed", value=SEED, min_width=130)
            pair = buttons(words, "dreams.run", "dreams.stop")
            places = answered("dreams", both("dreams.quiet"))
            live = {name: Live(f"dreams.sharp.{name}") for name in FAMILIES}
            why = both("dreams.why", temperature=Live("dreams.temperature"), **live)
            html_part(
                f"<details><summary>{both('noise.why')}</summary><p>{formula(why)}</p></details>"
                f'<p class="gk-files">{link("dreams", "dreams.csv")}</p>'
            )
    wire("dreams", handlers.show, [language, seed, temperature], pair, places)
    gr.api(endpoint(handlers.dreams, "dreams"), api_name="dreams", **HEAVY)


def _figure() -> str:
    rows: Mapping[str, str] = dict([REAL]) | {n: one.colour for n, one in FAMILIES.items()}
    return "".join(
        row("dreams", name, side, i, COUNT) for i, (name, side) in enumerate(rows.items())
    )
