"""What happens when a control of the prompt page is used, apart from how the page looks.

Long work is a generator: each step of the sampler is one value, so Stop and a closed tab end it
within a step. Every handler checks what it is given (`settings.check`), because an API client
does not use the page's controls, and gets raw JSON values (the events say preprocess=False).
"""

import inspect
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from apps import cards, proof, receipt
from apps.cards import Card, Mark
from apps.common import Studio, refusals, timed, told
from apps.settings import (
    CAREFUL,
    DEFAULTS,
    MODELS,
    NAMES,
    OWN,
    SHORT,
    Refused,
    Settings,
    check,
    check_language,
    check_pieces,
    check_size,
    check_text,
    draw_seed,
    known,
)
from apps.text import LANGUAGES, Pair, both, fixed
from genkit.asked import MAX_SEED
from genkit.data.picturebook import Scene, parse
from genkit.data.picturebook.ask import Ask
from genkit.data.picturebook.caption import canonical
from genkit.generate import FEW, Picture, Preview

__all__ = ["Desk", "paint"]

SURPRISES = range(210_000, 220_000)
"""Seeds of the scenes that 'surprise me' describes: the test split, unseen in training."""


def paint(studio: Studio, settings: Settings, seeds: Sequence[int]) -> Iterator[Preview | Picture]:
    """The pictures of one request, step by step: the one function that needs the GPU."""
    yield from studio.generator(settings.model)(
        [settings.prompt] * len(seeds),
        negative=settings.negative_prompt,
        seeds=tuple(seeds),
        steps=settings.num_inference_steps,
        guidance=settings.guidance_scale,
        sampler=settings.sampler,
        size=studio.size,
    )


@dataclass(frozen=True)
class Work:
    """A request that has been checked, its seed drawn."""

    settings: Settings
    seeds: tuple[int, ...]

    @property
    def at_once(self) -> bool:
        """Whether its picture is there before anybody has seen its empty place."""
        few = self.settings.num_inference_steps <= FEW and self.settings.guidance_scale == 1
        return len(self.seeds) == 1 and few


class Desk:
    """The handlers of the prompt page over one studio."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

        # A closure: ZeroGPU sends the arguments to another process, and a studio stays here.
        def painted(settings: Settings, seeds: Sequence[int]) -> Iterator[Preview | Picture]:
            yield from paint(studio, settings, seeds)

        self._paint = studio.on_gpu(painted)

    def draw(self, language: Any, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Draw: (seed, last seed, status, pictures) after every step."""
        with told(language):
            work = self._work(dict(zip(NAMES, values)))
            # A picture that comes at once does not wait for the controls.
            seed: Any = gr.skip() if work.at_once else work.settings.seed
            for status, places in self._frames(work):
                yield seed, work.settings.seed, status, cards.grid(places)
                seed = work.settings.seed

    def generate(
        self,
        prompt: str,
        negative_prompt: str = "",
        seed: int = 0,
        randomize_seed: bool = True,
        width: int = 128,
        height: int = 128,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        n: int = 1,
        sampler: str | None = None,
        language: str = "en",
        model: str = DEFAULTS.model,
    ) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """Draw 1 to 8 pictures of a prompt (English or Vietnamese); returns PNG files and seed.

        The names are those of the Hub's text-to-image template. The embedded model draws squares
        of one size, so width and height only accept that size. Each file carries its receipt.
        `model` is book128_latent or book128_fast, which draws in few steps; guidance_scale,
        num_inference_steps and sampler are as that model draws best where they are None. At a
        guidance of 1, that of book128_fast, the negative prompt has no effect. Errors are
        sentences in `language` (en or vi). A client may have one job running and two waiting.
        """
        with told(language):
            check_language(language)
            check_size("width", width, self.studio.size)
            check_size("height", height, self.studio.size)
            values = (prompt, negative_prompt, n, seed, randomize_seed, guidance_scale)
            asked = zip(NAMES, (*values, num_inference_steps, sampler, model))
            work = self._work({k: v for k, v in asked if v is not None or k not in OWN})
            files: list[dict[str, Any]] = []
            for event in self._events(work):
                if isinstance(event, Picture):
                    files.append(self._file(work, event))
                yield files, work.settings.seed

    @property
    def endpoint(self) -> Callable[..., Any]:
        """`generate` for `gr.api`, which reads the types of the values from the signature."""
        function = self.generate

        def generate(*arguments: Any, **named: Any) -> Iterator[Any]:
            yield from function(*arguments, **named)

        values = tuple[list[FileData], int]
        generate.__signature__ = inspect.signature(function).replace(return_annotation=values)
        generate.__annotations__ = function.__annotations__
        generate.__doc__ = function.__doc__
        return generate

    def restore(self, saved: Any, request: gr.Request) -> list[Any]:
        """The settings of the page's link, else of the last visit, else the defaults; a note."""
        link = {SHORT[k]: v for k, v in _query(request).items() if k in SHORT}
        values = link or (saved if isinstance(saved, dict) else {})
        if "seed" in link:
            values["randomize_seed"] = False
        settings, refused = known(values, self.studio.samplers)
        # What was saved may be of an older version: only a link is worth a word.
        return [*vars(settings).values(), refusals(refused) if link else ""]

    def open_receipt(self, language: Any, path: Any) -> list[Any]:
        """The settings of a dropped picture and a note about it."""
        with told(language):
            found = _opened(path)
            settings, refused = known(found.settings, self.studio.samplers)
            key = "receipt.opened" if found.manifest else "receipt.foreign"
            note = f'<p class="gk-note">{both(key)}</p>{refusals(refused)}'
            return [*vars(settings).values(), note]

    def verify(self, language: Any, path: Any) -> Iterator[str]:
        """Draws the picture of a receipt again and compares it with the file, bit by bit."""
        with told(language):
            found = _opened(path)
            if found.manifest is None:
                raise Refused("verify.foreign")
            old, work = found.manifest, self._work(found.settings)
            if old.index >= len(work.seeds) or old.image_seed != work.seeds[old.index]:
                raise Refused("receipt.manifest")
            events = self._events(work)
            yield from proof.verified(
                found, old, self.studio.size, events, lambda picture: self._manifest(work, picture)
            )

    def notice(self, prompt: Any, negative: Any, guidance: Any = DEFAULTS.guidance_scale) -> str:
        """What of the texts will not be followed, while they are typed."""
        try:
            texts = [check_text("prompt", prompt), check_text("negative_prompt", negative)]
        except Refused as error:
            return refusals([error])
        unknown = [word for text in texts if text for word in parse(text).unknown]
        notes = []
        if unknown:
            shown = ", ".join(f"“{word[:40]}”" for word in dict.fromkeys(unknown[:8]))
            notes.append(both("notice.unknown", words=shown))
        if texts[1] and guidance == 1:
            notes.append(both("notice.without", guidance=f"{MODELS[CAREFUL].guidance:g}"))
        return "".join(f'<p class="gk-note gk-warn">{note}</p>' for note in notes)

    def surprise(self, language: Any) -> str:
        """A caption of a random scene, in the page's language."""
        with told(language):
            rng = random.SystemRandom()
            scene = Scene.random(rng.choice(SURPRISES))
            return scene.caption(random.Random(rng.random()), check_language(language))

    def _work(self, values: dict[str, Any]) -> Work:
        settings = check(values, self.studio.samplers)
        if settings.randomize_seed:
            settings = replace(settings, seed=draw_seed())
        check_pieces(settings, self.studio.pieces)
        seeds = ((settings.seed + index) % (MAX_SEED + 1) for index in range(settings.n))
        return Work(settings, tuple(seeds))

    def _events(self, work: Work) -> Iterator[Preview | Picture]:
        """The events of a request, within the wall clock; closed with the one who reads them."""
        yield from timed(self._paint(work.settings, work.seeds))

    def _frames(self, work: Work) -> Iterator[tuple[str, list[Card]]]:
        """(status, places) after every step: the same places from the first to the last."""
        steps, start = work.settings.num_inference_steps, time.monotonic()
        ask = parse(work.settings.prompt).ask
        # What is asked for does not depend on the scene that it is compared with.
        asked = tuple(Mark(words, None) for words, _ in _checks(ask, Scene.random(0)))
        places = [Card(seed=seed, marks=asked) for seed in work.seeds]
        images: dict[int, Image.Image] = {}
        if not work.at_once:
            yield cards.progress(0, steps, both("status.start")), places
        for event in self._events(work):
            if isinstance(event, Preview):
                urls = map(cards.jpeg_url, event.images)
                places = [replace(card, url=url) for card, url in zip(places, urls)]
                text = both("status.step", step=event.step, steps=event.steps)
                yield cards.progress(event.step, steps, text), places
            else:
                url = cards.png_url(receipt.encode(event.image, self._manifest(work, event)))
                places[event.index] = replace(places[event.index], url=url, done=True)
                images[event.index] = event.image
        seconds = fixed(time.monotonic() - start, 1)
        yield cards.progress(steps, steps, both("status.reading")), places
        scenes = self.studio.read([images[index] for index in range(len(places))])
        places = [_read(card, ask, scene) for card, scene in zip(places, scenes)]
        text = both("status.done", seconds=seconds, seed=work.settings.seed)
        yield cards.progress(steps, steps, text), places

    def _manifest(self, work: Work, picture: Picture) -> receipt.Manifest:
        generator = self.studio.generator(work.settings.model)
        settings = asdict(work.settings)
        del settings["randomize_seed"]
        return receipt.Manifest(**settings, **proof.made(generator, picture))

    def _file(self, work: Work, picture: Picture) -> dict[str, Any]:
        """The PNG of a picture as a file that an API client downloads."""
        data = receipt.encode(picture.image, self._manifest(work, picture))
        name = f"genkit-{picture.seed}.png"
        path = save_bytes_to_cache(data, name, get_upload_folder())
        return FileData(path=path, orig_name=name, mime_type="image/png").model_dump()


def _opened(path: Any) -> receipt.Receipt:
    """The receipt of the file that the visitor opened, unless it belongs to another page."""
    found = proof.opened(path)
    if isinstance(found.manifest, receipt.TracedManifest):
        raise Refused("receipt.traced")
    return found


def _checks(ask: Ask, scene: Scene) -> Iterator[tuple[Pair, bool]]:
    for one in ask.check(scene):
        yield Pair(one.english, one.vietnamese), one.ok


def _read(card: Card, ask: Ask, scene: Scene) -> Card:
    """The card with what was found in its picture."""
    marks = tuple(Mark(words, ok) for words, ok in _checks(ask, scene))
    return replace(card, marks=marks, seen=Pair(*(canonical(scene, code) for code in LANGUAGES)))


def _query(request: gr.Request) -> dict[str, Any]:
    """The query string, its numbers as numbers; anything else stays a string to be refused."""
    values: dict[str, Any] = {}
    for name, value in dict(request.query_params or {}).items():
        if name in ("prompt", "negative", "sampler", "model"):
            values[name] = value
        elif re.fullmatch(r"-?\d{1,15}", value):
            values[name] = int(value)
        elif re.fullmatch(r"-?\d{1,15}\.\d{1,15}", value):
            values[name] = float(value)
        else:
            values[name] = value
    return values
