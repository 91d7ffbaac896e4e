"""What all pages share: the models behind them, the one queue for heavy work, header and look.

A page is a function `page(blocks, studio, pages)` that fills the current Gradio context; `pages`
are those that are served, itself included. It reaches the models only through the `Studio` that it
is given, so a test gives it another one.

All heavy events carry `**HEAVY`: one concurrency group with one place, on whatever page they are.
"""

import html
import json
import logging
import threading
import time
from collections import abc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import gradio as gr
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from apps import Page
from apps.settings import CAREFUL, Refused
from apps.text import LANGUAGES, Pair, Words, both, say
from genkit import __version__
from genkit.data.picturebook import Scene
from genkit.generate import Picture, Preview, SketchToImage
from genkit.model import Model
from genkit.pixels import exact
from genkit.runtime import Runtime, detect, each, prepare

__all__ = [
    "HEAVY",
    "LIGHT",
    "TOLD",
    "STATIC",
    "WALL_CLOCK",
    "Generator",
    "Studio",
    "Tracer",
    "embedded",
    "follow",
    "footer",
    "furnish",
    "header",
    "html_part",
    "refusals",
    "timed",
    "told",
]

T = TypeVar("T")
LOG = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"

HEAVY: dict[str, Any] = {"concurrency_id": "gpu", "concurrency_limit": 1}
"""Options of every event that runs a model."""
LIGHT: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of every event that does not."""
TOLD: dict[str, Any] = {
    "concurrency_id": "light",
    "concurrency_limit": 4,
    "show_progress": "hidden",
    "api_visibility": "private",
}
"""Options of light events that may refuse: without the queue the page would show no sentence."""
WALL_CLOCK = 300.0
"""Seconds after which a job ends: a client that only posts would hold the queue for ever."""


class Generator(Protocol):
    """A text-to-image model, as `genkit.generate.TextToImage`."""

    name: str
    sha256: str
    runtime: Runtime

    def __call__(
        self,
        prompts: Sequence[str],
        negative: str = "",
        seeds: Sequence[int] = (0,),
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        size: int = 128,
    ) -> Iterator[Preview | Picture]: ...


class Tracer(Protocol):
    """The same model under a control, as `genkit.generate.SketchToImage`."""

    name: str
    sha256: str
    drawer: Generator

    def __call__(
        self,
        hint: Tensor,
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
    ) -> Iterator[Preview | Picture]: ...


@dataclass(frozen=True)
class Studio:
    """The models behind the pages; each is loaded when it is first used, once.

    Args:
        load_generator: Loads a text-to-image model, one of `MODELS`.
        load_reader: Loads the function that reads the scene of each picture.
        samplers: Names of the samplers, known without loading anything; the first is the default.
        size: Width and height of a picture in pixels.
        count: (model, text) -> (word pieces of the text, how many the model reads).
        load_tracer: (model, name of a control) → the model under it.
        load_model: Loads a checkpoint by its name, in float32: what is measured of it must not
            depend on the number type that is fastest here.
        on_gpu: Wraps a heavy generator function (ZeroGPU lends a GPU to a function).
    """

    load_generator: Callable[[str], Generator]
    load_reader: Callable[[], Callable[[Sequence[Image.Image]], Sequence[Scene]]]
    samplers: tuple[str, ...]
    size: int = 128
    count: Callable[[Any, str], tuple[int, int]] = lambda model, text: (0, 0)
    load_tracer: Callable[[Any, str], Tracer] = SketchToImage.under
    load_model: Callable[[str], Model] = exact
    on_gpu: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False)

    def generator(self, name: str = CAREFUL) -> Generator:
        """A text-to-image model, one of `MODELS`."""
        return self._once(name, lambda: self.load_generator(name))

    def tracer(self, control: str, name: str = CAREFUL) -> Tracer:
        """The same model under the control of this name."""
        return self._once(
            f"{name} under {control}", lambda: self.load_tracer(self.generator(name), control)
        )

    def read(self, images: Sequence[Image.Image]) -> Sequence[Scene]:
        """The scene that the reader sees in each picture."""
        return self._once("reader", self.load_reader)(images)

    def model(self, name: str) -> Model:
        """A checkpoint of the repository, in float32, for the pages that look inside."""
        return self._once(f"model {name}", lambda: self.load_model(name))

    def pieces(self, text: str) -> tuple[int, int]:
        """Word pieces of a text, and how many the text-to-image model reads."""
        return self.count(self.generator(), text)

    def warm(self, name: str = CAREFUL) -> None:
        """Loads a model and the reader and runs them once: the first visitor does not wait."""
        pictures = self.generator(name)(["a red house"], steps=2)
        last = [event for event in pictures if isinstance(event, Picture)]
        self.read([picture.image for picture in last])

    def _once(self, name: str, load: Callable[[], Any]) -> Any:
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load()
            return self._loaded[name]


def embedded() -> Studio:
    """The studio of the checkpoints that the repository ships."""
    from genkit.asked import SAMPLERS
    from genkit.generate import TextToImage

    def count(model: TextToImage, text: str) -> tuple[int, int]:
        encoder = model.model.text_encoder
        return len(encoder.tokenizer.encode(text).ids), encoder.length

    return Studio(TextToImage.from_pretrained, _load_reader, tuple(SAMPLERS), count=count)


def _load_reader() -> Callable[[Sequence[Image.Image]], Sequence[Scene]]:
    from genkit import hub
    from genkit.fidelity import READER, read
    from genkit.models.reader import Reader

    reader = hub.load(READER)
    if not isinstance(reader, Reader):
        raise ValueError(f"{READER} is a {type(reader).__name__}, which cannot read pictures")
    reader = prepare(reader, detect())

    def see(images: Sequence[Image.Image]) -> Sequence[Scene]:
        array = np.stack([np.asarray(image.convert("RGB")) for image in images])
        with torch.inference_mode():
            return read(reader, torch.from_numpy(array).permute(0, 3, 1, 2))

    return see


def html_part(value: str = "", **options: Any) -> gr.HTML:
    """HTML without Gradio's own typography: `static/page.css` has the say."""
    return gr.HTML(value, apply_default_css=False, **options)


def header(words: Words, here: str, pages: Sequence[Page]) -> gr.Radio:
    """The band on top: name, pages, language and dark mode. Returns the language's control."""
    gr.Navbar(visible=False)
    with gr.Row(elem_id="gk-header", equal_height=True):
        html_part(_navigation(here, pages), elem_id="gk-navigation", min_width=200)
        choices = [(name, code) for code, name in LANGUAGES.items()]
        look = {"show_label": False, "container": False, "scale": 0, "min_width": 190}
        language = words.add(gr.Radio, "language", choices=choices, value="en", **look)
        theme = words.add(gr.Button, "theme", variant="secondary", scale=0, min_width=44)
    theme.click(fn=None, js="() => genkit.toggle()", api_visibility="private")
    return language


def _navigation(here: str, pages: Sequence[Page]) -> str:
    links = []
    for page in pages:
        current = ' aria-current="page"' if page.name == here else ""
        links.append(f'<a href="./{page.path}"{current}>{both(f"page.{page.name}")}</a>')
    name = f'<a class="gk-name" href="./"><b>genkit</b>{both("tagline.short")}</a>'
    return f"<nav>{name}<span class='gk-links'>{''.join(links)}</span></nav>"


def footer() -> None:
    """The last line of a page."""
    html_part(
        f"<p>genkit {__version__} · {both('footer.local')} · "
        f'<a href="?view=api">{both("footer.api")}</a></p>',
        elem_id="gk-footer",
    )


def furnish(blocks: gr.Blocks, name: str) -> None:
    """The sheet of styles and the script of one page alone: static/<name>.css and <name>.js."""
    style, script = ((STATIC / f"{name}.{kind}").read_text("utf-8") for kind in ("css", "js"))
    html_part(f"<style>{style}</style>", elem_classes="gk-answer")
    js = f"() => {{ {script}\n}}"
    blocks.load(fn=None, js=js, queue=False, api_visibility="private")


def follow(blocks: gr.Blocks, words: Words, language: gr.Radio) -> None:
    """Lets every text of the page follow the language, in the browser alone, at once."""
    updates = json.dumps({code: words.updates(code) for code in LANGUAGES})
    titles = json.dumps({code: words.titles(code) for code in LANGUAGES})
    speak = (
        f"(code) => {{ const updates = {updates}; const titles = {titles};"
        " genkit.speak(code, titles[code]); return updates[code]; }"
    )
    private = {"api_visibility": "private", "queue": False}
    language.change(fn=None, inputs=[language], outputs=words.components, js=speak, **private)
    start = f"() => {{ const titles = {titles}; const code = genkit.language();"
    start += " return genkit.speak(code, titles[code]); }"
    blocks.load(fn=None, outputs=[language], js=start, **private)


def timed(events: abc.Generator[T]) -> Iterator[T]:
    """The events of a heavy function, within the wall clock; closed with the one who reads them.

    They are made with the threads of this machine, whichever thread of the server reads them: one
    that began while a picture was drawn with few (`runtime.each`) would keep to these.

    Raises:
        Refused: They take longer than `WALL_CLOCK` seconds.
    """
    end, usual = time.monotonic() + WALL_CLOCK, _threads()
    with closing(each(events, usual, usual)) as made:
        for event in made:
            yield event
            if time.monotonic() > end:
                raise Refused("error.time", limit=int(WALL_CLOCK))


@cache
def _threads() -> int:
    return detect().threads


@contextmanager
def told(language: Any) -> Iterator[None]:
    """Turns what a handler refuses into one sentence for its visitor, in their language."""
    known = language if language in tuple(LANGUAGES) else "en"
    try:
        yield
    except Refused as error:
        raise _error(error.say(known)) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _error(say(known, "error.memory")) from error
    except FloatingPointError as error:
        raise _error(say(known, "error.finite")) from error
    except (ValueError, TypeError, OSError) as error:  # genkit's own sentences: a checkpoint, say
        raise _error(say(known, "error.model", reason=str(error))) from error
    except gr.Error:
        raise
    except Exception as error:  # a visitor reads a sentence, the operator the trace
        LOG.exception("unforeseen error in a page")
        raise _error(say(known, "error.unforeseen")) from error


def refusals(refused: Sequence[Refused]) -> str:
    """The sentences about values that were left out, as HTML in both languages."""
    pairs = (Pair(error.say("en"), error.say("vi")) for error in refused)
    lines = (f'<p class="gk-note gk-warn">{both("notice.refused", sentence=p)}</p>' for p in pairs)
    return "".join(lines)


def _error(sentence: str) -> gr.Error:
    # Gradio 6 shows its own title, in English, whatever `title` says: page.css hides it.
    return gr.Error(html.escape(sentence, quote=False), duration=15, print_exception=False)
