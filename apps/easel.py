"""What happens on the sketch page, apart from how it looks: a drawing and a prompt, a picture.

    live     after a stroke: one picture by the quick model
    draw     1 to 4 pictures, step by step, by the model that was chosen
    alone    the same pictures without the drawing
    sheet    strength × seed, by the quick model
    edges    a photo becomes a drawing

Long work is a generator, and every handler checks what it is given, as in `apps.handlers`.
"""

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from gradio.data_classes import FileData
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from PIL import Image
from torch import Tensor

from apps import cards, ink, meter, proof, receipt, traced, upload
from apps.common import Studio, Tracer, timed, told
from apps.forward import check_number
from apps.ink import Drawing
from apps.section import packed
from apps.settings import (
    CONTROLS,
    FAST,
    MODELS,
    Refused,
    Settings,
    check_choice,
    check_language,
    check_pieces,
)
from apps.text import both, fixed
from apps.traced import Traced
from genkit.adherence import SEGMENTER
from genkit.asked import MAX_SEED
from genkit.data.hints import HIGH, LOW
from genkit.data.picturebook.source import to_unit
from genkit.fidelity import stacked
from genkit.generate import Picture, Preview

__all__ = ["SEEDS", "THRESHOLDS", "Easel"]

SEEDS = 4
"""Columns of the sheet."""
THRESHOLDS = (0.0, 300.0)


@runtime_checkable
class Segments(Protocol):
    """Says which part every pixel of a picture shows."""

    def parts(self, x: Tensor) -> Tensor: ...


Answers = Iterator[tuple[str, str]]
"""(status, answer for the browser)"""


@dataclass(frozen=True)
class Work:
    """A request that has been checked."""

    asked: Traced
    drawing: Drawing

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of its pictures."""
        return tuple((self.asked.seed + i) % (MAX_SEED + 1) for i in range(self.asked.n))


class Easel:
    """The handlers of the sketch page over one studio."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

        # A closure, as in `handlers.Desk`: the studio stays in its process.
        def traced_(work: Work) -> Iterator[Preview | Picture]:
            asked = work.asked
            tracer = studio.tracer(CONTROLS[work.drawing.kind], asked.model)
            yield from tracer(
                work.drawing.hint(),
                [asked.prompt] * asked.n,
                seeds=work.seeds,
                steps=asked.num_inference_steps,
                strength=asked.strength,
                start=asked.start,
                stop=asked.stop,
                guess=asked.guess,
            )

        self._traced = studio.on_gpu(traced_)

    def live(self, language: Any, sent: Any, *values: Any) -> Iterator[str]:
        """The picture after a stroke."""
        with told(language):
            work = _quick(self._work(sent, dict(zip(traced.NAMES, values))), 1)
            begun = time.monotonic()
            for event in self._events(work):
                if isinstance(event, Picture):
                    seconds = fixed(time.monotonic() - begun, 2)
                    said = both("sketch.live.done", seconds=seconds)
                    yield packed(
                        {"stage": "live", "said": said, "pictures": [self._one(work, event)]}
                    )

    def draw(self, language: Any, sent: Any, *values: Any) -> Answers:
        """Pictures that follow the drawing: previews, then each with its meter and receipt."""
        with told(language):
            yield from self._frames(self._work(sent, dict(zip(traced.NAMES, values))))

    def alone(self, language: Any, sent: Any, *values: Any) -> Answers:
        """The same pictures as if nothing had been drawn."""
        with told(language):
            work = self._work(sent, dict(zip(traced.NAMES, values)))
            yield from self._frames(replace(work, asked=replace(work.asked, strength=0.0)))

    def sheet(self, language: Any, sent: Any, *values: Any) -> Answers:
        """The quick model's pictures of a few strengths and seeds."""
        with told(language):
            work = _quick(self._work(sent, dict(zip(traced.NAMES, values))), SEEDS)
            rows: list[list[meter.Cell]] = []
            count = len(meter.ROWS)
            for strength in meter.ROWS:
                said = both("sketch.sheet.row", done=len(rows) + 1, all=count)
                table = packed({"html": meter.sheet(rows, work.seeds)})
                yield cards.progress(len(rows), count, said), table
                row = replace(work, asked=replace(work.asked, strength=strength))
                found = [e for e in self._events(row) if isinstance(e, Picture)]
                rows.append([(one.image, self._share(work, one)) for one in found])
            table = packed({"html": meter.sheet(rows, work.seeds)})
            yield cards.progress(count, count, both("sketch.sheet.done")), table

    def edges(self, language: Any, path: Any, low: Any, high: Any) -> str:
        """The edges of an uploaded picture, for the canvas."""
        with told(language):
            if path is None:
                return ""
            photo = upload.from_file(path, ink.SIDE)
            drawing = ink.photographed(photo, *_thresholds(low, high))
            return packed({"paper": _paper(drawing)} | _now())

    def sketch(
        self,
        image: str = "",
        kind: str = "sketch",
        prompt: str = "",
        strength: float = 1.0,
        n: int = 1,
        seed: int = 1,
        model: str = traced.DEFAULTS.model,
        num_inference_steps: int | None = None,
        start: float = 0.0,
        stop: float = 1.0,
        guess: bool | None = None,
        language: str = "en",
    ) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
        """Draw 1 to 4 pictures that follow a drawing; returns PNG files and how well each follows.

        `image` is a picture file in base64: of `kind` sketch a line drawing, dark on white, white
        on dark or on a transparent layer; map: regions in the page's colours; photo: any picture,
        whose edges are drawn. Without a sketch or map, and a prompt, it draws freely.
        `strength` is 0 to 1.5; the drawing acts from the share `start` of the way to the share
        `stop`. `model` is book128_latent (20 steps) or book128_fast (4). With `guess` guidance
        stresses the drawing as well as the words, which needs a model that is guided; it is so
        where it can be. Each file carries its receipt. Errors are sentences in `language`.
        """
        with told(language):
            check_language(language)
            values = {name: value for name, value in locals().items() if name in traced.NAMES}
            if num_inference_steps is None:
                check_choice("model", model, tuple(MODELS))
                values["num_inference_steps"] = MODELS[model].steps
            work = Work(traced.check(values), _read(image, kind))
            self._check_pieces(work)
            files: list[dict[str, Any]] = []
            told_of: list[dict[str, Any]] = []
            for event in self._events(work):
                if isinstance(event, Picture):
                    files.append(self._file(work, event))
                    told_of.append({"seed": event.seed} | self._measured(work, event))
                yield files, told_of

    def open(self, language: Any, path: Any) -> list[Any]:
        """The settings of a saved picture, its drawing for the canvas, and a note."""
        with told(language):
            _, manifest = _opened(path)
            asked, drawing = _settings(manifest), _drawing(manifest)
            paper = None if drawing.empty else _paper(drawing)
            note = f'<p class="gk-note">{both("receipt.opened")}</p>'
            sent = packed({"paper": paper, "kind": drawing.kind} | _now())
            return [*asdict(asked).values(), sent, note]

    def verify(self, language: Any, path: Any) -> Iterator[str]:
        """Draws the picture of a receipt again and compares it with the file, bit by bit."""
        with told(language):
            found, old = _opened(path)
            work = Work(_settings(old), _drawing(old))
            if old.index >= len(work.seeds) or old.image_seed != work.seeds[old.index]:
                raise Refused("receipt.manifest")
            events = self._events(work)
            yield from proof.verified(
                found, old, ink.SIDE, events, lambda picture: self._manifest(work, picture)
            )

    # --- one request ---------------------------------------------------------------------------

    def _work(self, sent: Any, values: dict[str, Any]) -> Work:
        work = Work(traced.check(values), traced.drawn(sent))
        self._check_pieces(work)
        return work

    def _check_pieces(self, work: Work) -> None:
        check_pieces(Settings(prompt=work.asked.prompt), self.studio.pieces)

    def _events(self, work: Work) -> Iterator[Preview | Picture]:
        yield from timed(self._traced(work))

    def _frames(self, work: Work) -> Answers:
        steps, begun = work.asked.num_inference_steps, time.monotonic()
        pictures: list[dict[str, Any]] = []
        yield cards.progress(0, steps, both("status.start")), packed({"stage": "wait"})
        for event in self._events(work):
            if isinstance(event, Preview):
                urls = [{"url": cards.jpeg_url(image)} for image in event.images]
                text = both("status.step", step=event.step, steps=event.steps)
                yield (
                    cards.progress(event.step, steps, text),
                    packed({"stage": "step", "pictures": urls}),
                )
            else:
                pictures.append(self._one(work, event))
        seconds = fixed(time.monotonic() - begun, 1)
        key = "sketch.free" if work.drawing.empty else "sketch.done"
        said = both(key, seconds=seconds, steps=steps)
        answer = {"stage": "done", "said": said, "pictures": pictures}
        yield cards.progress(steps, steps, said), packed(answer)

    def _one(self, work: Work, picture: Picture) -> dict[str, Any]:
        """A finished picture for the browser: the file with its receipt, and its meter."""
        data = receipt.encode(picture.image, self._manifest(work, picture))
        return {
            "url": cards.png_url(data),
            "name": f"genkit-sketch-{picture.seed}.png",
            "seed": both("cards.seed", seed=picture.seed),
            "meter": meter.meter(self._measured(work, picture)),
        }

    def _measured(self, work: Work, picture: Picture) -> dict[str, float]:
        """How well a picture follows what was drawn; empty where nothing was."""
        drawing = work.drawing
        if drawing.empty:
            return {}
        if drawing.kind == "map":
            return {"miou": ink.covered(drawing, self._seen(picture.image))}
        return asdict(ink.followed(drawing, picture.image))

    def _share(self, work: Work, picture: Picture) -> float | None:
        found = self._measured(work, picture)
        return found.get("f1", found.get("miou"))

    def _seen(self, image: Image.Image) -> np.ndarray:
        """The part at every pixel of a picture, as the segmenter sees it."""
        model = self.studio.model(SEGMENTER)
        assert isinstance(model, Segments)
        with torch.inference_mode():
            return model.parts(to_unit(stacked([image])))[0].cpu().numpy()

    def _manifest(self, work: Work, picture: Picture) -> receipt.TracedManifest:
        tracer = self._tracer(work)
        manner = MODELS[work.asked.model]
        return receipt.TracedManifest(
            **asdict(work.asked),
            **proof.made(tracer.drawer, picture),
            negative_prompt="",
            guidance_scale=manner.guidance,
            sampler=manner.sampler,
            kind=work.drawing.kind,
            drawing=work.drawing.file(),
            control=tracer.name,
            control_sha256=tracer.sha256,
        )

    def _tracer(self, work: Work) -> Tracer:
        return self.studio.tracer(CONTROLS[work.drawing.kind], work.asked.model)

    def _file(self, work: Work, picture: Picture) -> dict[str, Any]:
        """The PNG of a picture as a file that an API client downloads."""
        data = receipt.encode(picture.image, self._manifest(work, picture))
        name = f"genkit-sketch-{picture.seed}.png"
        path = save_bytes_to_cache(data, name, get_upload_folder())
        return FileData(path=path, orig_name=name, mime_type="image/png").model_dump()


def _paper(drawing: Drawing) -> str:
    """The drawing for the board."""
    buffer = io.BytesIO()
    drawing.image().save(buffer, format="PNG")
    return cards.png_url(buffer.getvalue())


def _now() -> dict[str, int]:
    """What makes an answer another one than an equal answer before, which would not be shown."""
    return {"turn": time.monotonic_ns()}


def _quick(work: Work, n: int) -> Work:
    """The same by the model that takes few steps and cannot exaggerate."""
    asked = replace(work.asked, model=FAST, num_inference_steps=MODELS[FAST].steps, n=n)
    return replace(work, asked=replace(asked, guess=False))


def _read(image: Any, kind: Any) -> Drawing:
    if check_choice("kind", kind, (*CONTROLS, "photo")) != "photo":
        return ink.read(kind, image)
    return ink.photographed(upload.from_base64(image, ink.SIDE), LOW, HIGH)


def _thresholds(low: Any, high: Any) -> Sequence[float]:
    found = check_number("low", low, *THRESHOLDS), check_number("high", high, *THRESHOLDS)
    if found[0] > found[1]:
        raise Refused("sketch.thresholds", low=found[0], high=found[1])
    return found


def _opened(path: Any) -> tuple[receipt.Receipt, receipt.TracedManifest]:
    found = proof.opened(path)
    if not isinstance(found.manifest, receipt.TracedManifest):
        raise Refused("sketch.foreign")
    return found, found.manifest


def _settings(manifest: receipt.TracedManifest) -> Traced:
    return traced.check({name: getattr(manifest, name) for name in traced.NAMES})


def _drawing(manifest: receipt.TracedManifest) -> Drawing:
    return ink.stored(check_choice("kind", manifest.kind, tuple(CONTROLS)), manifest.drawing)
