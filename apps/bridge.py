"""Bridge: the section about what lies between two pictures (`apps.crossing` finds it)."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import torch

from apps.cards import progress, table_file
from apps.classes import pixels, sheet_url
from apps.common import HEAVY, LIGHT, TOLD, Studio, html_part, timed, told
from apps.crossing import COUNT, PATHS, STEPS, Request, Way, checked, cross
from apps.quartet import CROSS, FAMILIES, row, sharp, told_of
from apps.section import Live, answered, buttons, endpoint, formula, link, packed, wire
from apps.settings import check_language
from apps.small import SIDE, Small, tile
from apps.text import Pair, Words, both, fixed, number, spans

__all__ = ["PATHS", "Bridge", "Request", "Way", "cross", "section"]

SEED = 210_045
"""Of the scene B with which the page opens."""


@dataclass(eq=False)
class Ways:
    """All ways of a request so far, and how much of them is done."""

    request: Request
    found: dict[str, Way] = field(default_factory=dict)
    events: int = 0

    @property
    def of(self) -> int:
        families = self.request.families
        return 1 + len(families) + (2 * STEPS if "diffusion" in families else 0)

    @property
    def done(self) -> bool:
        return len(self.found) == 1 + len(self.request.families)

    def off(self, family: str) -> tuple[float, ...]:
        """Deviation of the ends of the way from A and B, in grey levels of 255."""
        ends = self.found[family].pictures[0][[0, -1]]
        apart = ends - torch.cat((self.request.a, self.request.b))
        return tuple((127.5 * apart.square().mean(dim=(1, 2, 3)).sqrt()).tolist())

    def sharpness(self, family: str, path: int, index: int) -> float:
        """Of one picture, against A and B."""
        picture = self.found[family].pictures[path, index : index + 1]
        return sharp(picture, torch.cat((self.request.a, self.request.b)))


class Bridge:
    """The handlers of the section over one studio."""

    def __init__(self, studio: Studio) -> None:
        self.small = Small(studio)

        # A closure, as in `handlers.Desk`: the studio stays in its process.
        def ran(request: Request) -> Iterator[Way | None]:
            yield from cross(studio.model, request)

        self._run = studio.on_gpu(ran)

    def show(
        self, language: Any, picture: bytes | None, seed: Any, other: bytes | None, seed_b: Any
    ) -> Iterator[tuple[str, Any]]:
        """(status, answer for the browser) again and again."""
        with told(language):
            begun = time.monotonic()
            a, b = self.small.picture(picture, seed), self.small.picture(other, seed_b)
            shown = -1
            for ways in self._ways(checked(a, b, COUNT, list(FAMILIES))):
                text = both("bridge.busy", done=ways.events, of=ways.of)
                if ways.done:
                    text = both("race.done", seconds=number(time.monotonic() - begun, 2))
                fresh = len(ways.found) > shown
                shown = len(ways.found)
                answer = packed(_answer(ways)) if fresh else gr.skip()
                yield progress(ways.events, ways.of, text), answer

    def between(
        self,
        image_a: str = "",
        seed_a: int = 0,
        image_b: str = "",
        seed_b: int = 1,
        count: int = COUNT,
        families: list[str] = list(FAMILIES),  # noqa: B006
        language: str = "en",
    ) -> Iterator[dict[str, Any]]:
        """Pictures between two, in the latents of autoencoder, vae, hvae and diffusion.

        A and B are picture files in base64; empty: the scenes of the seeds. They must differ.
        `count` (3 to 25) pictures lie on each way, the ends included. Streams after every family;
        for each and for the cross-fade of the pixels: the pictures of the straight line and of
        the arc side by side as PNG, the lengths |z| of their points, the angle between the ends in
        degrees, and how far the ends are from A and B in grey levels. Complete when `done`.
        """
        with told(language):
            check_language(language)
            a, b = self.small.sent(image_a, seed_a), self.small.sent(image_b, seed_b)
            shown = -1
            for ways in self._ways(checked(a, b, count, families)):
                if len(ways.found) > shown:
                    yield _numbers(ways)
                    shown = len(ways.found)

    def _ways(self, request: Request) -> Iterator[Ways]:
        ways = Ways(request)
        yield ways
        for event in timed(self._run(request)):
            ways.events += 1
            if event is not None:
                ways.found[event.family] = event
            yield ways


# The answer


def _answer(ways: Ways) -> dict[str, Any]:
    names = ["cross", *FAMILIES]
    found = [ways.found.get(name) for name in names]
    rows: list[Sequence[Any]] = [
        list(pixels(way.pictures[path])) if way else [None] * COUNT
        for path in range(len(PATHS)) for way in found
    ]  # fmt: skip
    slots = {f"bridge.of.{name}": _said(ways, name) for name in names}
    slots |= {f"bridge.now.{path}": both("bridge.soon") for path in PATHS}
    for name in FAMILIES:
        way = ways.found.get(name)
        slots[f"bridge.angle.{name}"] = spans(fixed(way.angle, 0)) if way else "–"
    if ways.done:
        for i, path in enumerate(PATHS):
            values = {name: _percent(ways.found[name].half(i)) for name in FAMILIES}
            slots[f"bridge.now.{path}"] = formula(both(f"bridge.now.{path}", **values))
    answer = {"sheet": sheet_url(rows, SIDE), "slots": slots, "files": {}, "count": len(names)}
    answer["rows"] = [i for i, way in enumerate(found) if way]
    answer["other"] = tile(ways.request.b)
    if ways.done:
        answer["files"] = {"bridge": table_file("between.csv", COLUMNS, _table(ways))}
    return answer


def _said(ways: Ways, name: str) -> str:
    """What stands above a row: how far its ends are from A and B, and |z| half way."""
    if name not in ways.found:
        return "–"
    way, middle = ways.found[name], ways.request.count // 2
    texts = []
    for i, path in enumerate(PATHS):
        values = {"sharpness": fixed(ways.sharpness(name, i, middle))}
        if name != "cross":
            values |= {"off": number(sum(ways.off(name)) / 2, 2), "half": _percent(way.half(i))}
        key = "bridge.said.cross" if name == "cross" else "bridge.said"
        texts.append(f'<i data-path="{path}">{both(key, **values)}</i>')
    return "".join(texts)


COLUMNS = "family,path,s,length,sharpness"


def _table(ways: Ways) -> Iterator[tuple[Any, ...]]:
    places = torch.linspace(0, 1, ways.request.count).tolist()
    for name, way in ways.found.items():
        for i, path in enumerate(PATHS):
            for j, (s, length) in enumerate(zip(places, way.lengths[i].tolist())):
                yield name, path, s, length, ways.sharpness(name, i, j)


def _numbers(ways: Ways) -> dict[str, Any]:
    """What is known, for an API client."""
    families = {}
    for name, way in ways.found.items():
        paths = {
            path: {
                "length": way.lengths[i].tolist(),
                "png": sheet_url([list(pixels(way.pictures[i]))], SIDE),
            }
            for i, path in enumerate(PATHS)
        }
        degrees = None if math.isnan(way.angle) else way.angle
        off = list(ways.off(name))
        families[name] = {"angle": degrees, "dimensions": way.dims, "off": off} | paths
    return {"done": ways.done, "families": families}


# The layout


def section(words: Words, studio: Studio, language: Any, picture: Any, seed: Any) -> None:
    """The section in the current context: figure on the left, words and controls on the right."""
    handlers = Bridge(studio)
    other = gr.State(None)
    with gr.Row(elem_id="gk-bridge", elem_classes="gk-part"):
        with gr.Column(scale=7, min_width=320, elem_classes="gk-figure"):
            html_part(_figure())
        with gr.Column(scale=5, min_width=320, elem_classes="gk-text"):
            now = "".join(
                f'<i data-path="{path}" data-part="bridge.now.{path}">{both("bridge.lead")}</i>'
                for path in PATHS
            )
            html_part(f"<h2>{both('bridge.title')}</h2>{told_of(now)}")
            seed_b = _other(words, handlers.small, language, other)
            pair = buttons(words, "bridge.run", "bridge.stop")
            places = answered("bridge", both("bridge.quiet"))
            live = {name: Live(f"bridge.angle.{name}") for name in FAMILIES}
            why = formula(both("bridge.why", steps=STEPS, **live))
            html_part(
                f"<details><summary>{both('noise.why')}</summary><p>{why}</p></details>"
                f'<p class="gk-files">{link("bridge", "bridge.csv")}</p>'
            )
    inputs = [language, picture, seed, other, seed_b]
    wire("bridge", handlers.show, inputs, pair, places)
    gr.api(endpoint(handlers.between, "between"), api_name="between", **HEAVY)


def _other(words: Words, small: Small, language: Any, other: gr.State) -> gr.Number:
    """What chooses the picture B, and B as the models see it; returns the control of its seed."""
    with gr.Row(elem_classes="gk-other"):
        with gr.Column(scale=3, min_width=150):
            seed_b = words.add(gr.Number, "bridge.seed", value=SEED, min_width=120)
            upload = words.add(gr.UploadButton, "bridge.own", size="sm")
        view = html_part(small.shown("en", None, SEED), elem_id="gk-bridge-other", min_width=90)
    own = upload.upload(small.open, [language, upload], other, **TOLD)
    typed = seed_b.input(lambda: None, None, other, trigger_mode="always_last", **LIGHT)
    for event in (own, typed):
        event.success(small.shown, [language, other, seed_b], view, **TOLD)
    tell = "(html) => { genkit.bridge.other(html); }"
    view.change(fn=None, inputs=[view], js=tell, queue=False, api_visibility="private")
    return seed_b


def _figure() -> str:
    choices = "".join(
        f'<button type="button" data-to="{path}" aria-pressed="{str(path == "arc").lower()}">'
        f"{both(f'bridge.{path}')}</button>"
        for path in PATHS
    )
    sides = dict([CROSS]) | {name: one.colour for name, one in FAMILIES.items()}
    rows = "".join(
        row("bridge", name, side, i, COUNT) for i, (name, side) in enumerate(sides.items())
    )
    ends = "<p class='gk-ends'><b>A</b><b>B</b></p>"
    return f'<p class="gk-paths">{choices}</p>{ends}{rows}'


def _percent(share: float) -> Pair:
    return fixed(100 * share, 0)
