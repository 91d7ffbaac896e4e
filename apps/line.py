"""A straight line between two pictures, in each of the four spaces.

    v(s) = (1 − s) v(A) + s v(B)

Nobody promised that something lies on it. The scene that is nearest to each of its points, and how
far that is beside the distance of neighbours elsewhere, says whether the line leads through
inhabited country; the VAE can moreover draw what it thinks of a point. Distance is that of
directions, as everywhere (`genkit.probes`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np

from apps import spaces
from apps.atlas import Atlas, Query
from apps.cards import progress, table_file
from apps.common import HEAVY, html_part, timed, told
from apps.forward import check_whole
from apps.legend import pair
from apps.maps import own_picture, plots
from apps.picker import picker, tag
from apps.section import Live, answered, buttons, endpoint, formula, link, packed, place, wire
from apps.settings import Refused, check_language
from apps.spaces import ENCODERS, Array, Line
from apps.text import Words, both, number, spans

__all__ = ["POINTS", "Lines", "section"]

POINTS = 9
"""Points of a line on the page, A and B included."""
FEWEST, MOST = 3, 33
FIRST, SECOND = 212_038, 212_060
"""The two scenes with which the page opens."""


@dataclass(frozen=True, eq=False)
class Way:
    """The line of one space: its points, their nearest scenes, and where they stand."""

    line: Line
    length: float
    unit: float
    places: dict[str, list[list[float]] | None]

    @property
    def middle(self) -> float:
        """Distance of the middle from the nearest scene, in units of neighbours' distance."""
        return float(self.line.distance[len(self.line.s) // 2]) / self.unit

    @property
    def different(self) -> int:
        """How many different scenes lie along it."""
        return len(set(self.line.near[1:-1].tolist()))


class Lines:
    """The handlers of the section over an atlas."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas

    def show(
        self, language: Any, own_a: Any, seed_a: Any, own_b: Any, seed_b: Any
    ) -> Iterator[tuple[str, Any]]:
        """(status, answer for the browser)."""
        with told(language):
            for step in timed(self.atlas.ready()):
                yield progress(*step), gr.skip()
            self.atlas.check()
            a, b = (self.atlas.query(*one) for one in ((seed_a, own_a), (seed_b, own_b)))
            ways = self.ways(a, b, POINTS)
            yield progress(1, 1, both("latents.line.done")), packed(self._answer(a, b, ways))

    def line(
        self,
        seed_a: int = FIRST,
        seed_b: int = SECOND,
        image_a: str = "",
        image_b: str = "",
        points: int = POINTS,
        language: str = "en",
    ) -> Iterator[dict[str, Any]]:
        """What lies on the straight line between two pictures in the space of each encoder.

        An image is a picture file in base64; empty: the scene of the seed. `points` (3 to 33)
        lie on the line, A and B included. Returns for each encoder the seed of the scene that is
        nearest to each point (A and B left out), its distance, and the unit of distances; for
        the VAE also the decoded points as PNG data URLs.
        """
        with told(language):
            check_language(language)
            count = check_whole("points", points, FEWEST, MOST)
            own_a, own_b = own_picture(image_a), own_picture(image_b)
            for _ in timed(self.atlas.ready()):
                yield {"done": False}
            self.atlas.check()
            a, b = self.atlas.query(seed_a, own_a), self.atlas.query(seed_b, own_b)
            yield {"done": True} | self._numbers(self.ways(a, b, count))

    def ways(self, a: Query, b: Query, count: int) -> dict[str, Way]:
        """The line of each space that is there.

        Raises:
            Refused: A and B are the same picture.
        """
        if np.array_equal(a.picture, b.picture):
            raise Refused("latents.line.same")
        ends = [one.index for one in (a, b) if one.index is not None]
        found = {}
        for name, (first, last) in self.atlas.vectors([a.picture, b.picture]).items():
            where = self.atlas.kept.spaces[name]
            one = spaces.line(where, first, last, count, ends)
            length = where.distance(first, last)
            found[name] = Way(one, length, where.apart, self.atlas.places(name, one.points))
        return found

    def _pictures(self, ways: dict[str, Way]) -> Array | None:
        """The decoded points, if there is a VAE."""
        return self.atlas.decoded(ways["vae"].line.points) if "vae" in ways else None

    def _numbers(self, ways: dict[str, Way]) -> dict[str, Any]:
        first, drawn = self.atlas.book.scenes[0].seed, self._pictures(ways)
        found: dict[str, Any] = {
            name: {
                "s": way.line.s.tolist(),
                "seeds": (first + way.line.near).tolist(),
                "distances": way.line.distance.tolist(),
                "unit": way.unit,
                "length": way.length,
            }
            for name, way in ways.items()
        }
        if drawn is not None:
            found["vae"]["png"] = [tag(one).split('"')[3] for one in drawn]
        return found

    def _answer(self, a: Query, b: Query, ways: dict[str, Way]) -> dict[str, Any]:
        book, drawn = self.atlas.book, self._pictures(ways)
        slots, rows = {}, []
        for name, way in ways.items():
            inner = [book.pictures[i] for i in way.line.near[1:-1]]
            slots[f"line.row.{name}"] = "".join(map(tag, (a.picture, *inner, b.picture)))
            slots |= {
                f"line.middle.{name}": spans(number(way.middle, 2)),
                f"line.length.{name}": spans(number(way.length / way.unit, 2)),
                f"line.different.{name}": str(way.different),
            }
            values = zip(way.line.s.tolist(), way.line.near.tolist(), way.line.distance.tolist())
            rows += [(name, s, book.scenes[i].seed, d, way.unit) for s, i, d in values]
        if drawn is not None:
            slots["line.row.decoded"] = "".join(map(tag, drawn))
        near, far = (f(ways, key=lambda name: ways[name].middle) for f in (min, max))
        told_of = {"near": pair(f"latents.name.{near}"), "far": pair(f"latents.name.{far}")}
        told_of |= {"a": number(ways[near].middle, 2), "b": number(ways[far].middle, 2)}
        slots["line.now"] = both("latents.line.now", points=POINTS - 2, **told_of)
        columns = "encoder,s,nearest_seed,distance,unit"
        return {
            "slots": slots,
            "places": {name: way.places for name, way in ways.items()},
            "files": {"line": table_file("latents-line.csv", columns, rows)},
        }


def section(words: Words, atlas: Atlas, language: gr.Radio) -> None:
    """The section in the current context: figure on the left, words and controls on the right."""
    lines = Lines(atlas)
    with gr.Row(elem_id="gk-line", elem_classes="gk-part"):
        with gr.Column(scale=7, min_width=320, elem_classes="gk-figure"):
            html_part(_figure())
        with gr.Column(scale=5, min_width=320, elem_classes="gk-text"):
            now = place("line.now", "span", content=both("latents.line.lead"))
            html_part(f"<h2>{both('latents.line.title')}</h2><p>{now}</p>")
            a = picker(words, language, "a", "latents.a", FIRST)
            b = picker(words, language, "b", "latents.b", SECOND)
            run = buttons(words, "latents.walk", "latents.stay")
            places = answered("line", both("latents.line.quiet"))
            live = {name: Live(f"line.middle.{name}") for name in ENCODERS}
            why = formula(both("latents.line.why", **live))
            html_part(
                f"<details><summary>{both('noise.why')}</summary><p>{why}</p></details>"
                f'<p class="gk-files">{link("line", "latents.save.line")}</p>'
            )
    wire("line", lines.show, [language, *a, *b], run, places)
    gr.api(endpoint(lines.line, "line"), api_name="line", **HEAVY)


def _figure() -> str:
    """The line in the four planes, and below them what lies on it, a row for each space."""
    empty = '<i class="gk-pixels"></i>' * POINTS
    rows = []
    for name in ENCODERS:
        rows.append(_row(both(f"latents.name.{name}"), f"line.row.{name}", empty))
        if name == "vae":
            rows.append(_row(both("latents.line.decoded"), "line.row.decoded", empty))
    heads = "".join(f"<th>{both(f'latents.short.{name}')}</th>" for name in ENCODERS)
    lines = ""
    for what in ("length", "middle", "different"):
        cells = "".join(f"<td>{Live(f'line.{what}.{name}')}</td>" for name in ENCODERS)
        lines += f"<tr><th>{both(f'latents.line.{what}')}</th>{cells}</tr>"
    return (
        f'<div class="gk-maps gk-small">{plots("line")}</div>'
        f'<p class="gk-rule-of"><b>A</b><span>{both("latents.line.between")}</span><b>B</b></p>'
        f'{"".join(rows)}<div class="gk-numbers-of"><table><thead><tr><th></th>{heads}</tr>'
        f"</thead><tbody>{lines}</tbody></table></div>"
    )


def _row(name: str, part: str, empty: str) -> str:
    return f'<p class="gk-axis">{name}</p>{place(part, look="gk-row", content=empty)}'
