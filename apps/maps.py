"""The four spaces side by side: every scene a point, one of them or a visitor's own picked out.

The answer holds everything that the browser needs to colour, choose and compare points without
asking again: one sheet with all pictures, the points of each view, the classes of every attribute
and the nearest neighbours of every scene. A picture that is not among the scenes is embedded by
the server; it gets a place in each space and its neighbours.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from apps import verdicts
from apps.atlas import Atlas, Query, check_attribute
from apps.cards import progress, table_file
from apps.common import HEAVY, html_part, timed, told
from apps.forward import check_whole
from apps.legend import colour_of, described, name_of, pair, percent, said, value_name
from apps.picker import Picker, picker, tag
from apps.section import Live, answered, buttons, endpoint, formula, link, packed, place, wire
from apps.settings import check_choice, check_language
from apps.spaces import ATTRIBUTES, ENCODERS, SIZE, Array
from apps.text import LANGUAGES, Pair, Words, both, locale, number, spans
from apps.upload import from_base64
from genkit.data.picturebook import Scene
from genkit.probes import NEAREST, Found

__all__ = ["SEED", "VIEWS", "Maps", "own_picture", "plots", "section"]

VIEWS = ("pca", "tsne")
SEED = 212_011
"""The scene whose neighbours are looked for first: no encoder has seen it."""
COLUMNS = 50
"""Pictures in a row of the sheet."""
QUALITY = 82
MOST = 50
"""Neighbours that an API client may ask for."""

SAID = ("seed", "own", "same", "far")
"""Sentences whose gaps the browser fills."""

Progress = Iterator[tuple[str, str]]


class Maps:
    """The handlers of the section over an atlas."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas
        self._packed: tuple[Any, str] = (None, "")

    def show(self, language: Any) -> Progress:
        """(status, answer for the browser) when the page opens; slow the first time only."""
        with told(language):
            for step in timed(self.atlas.ready()):
                yield progress(*step), ""
            yield self._status(), self._answer()

    def settle(self, language: Any) -> Progress:
        """The t-SNE planes, one space after the other."""
        with told(language):
            for step in timed(self.atlas.ready()):
                yield progress(*step), gr.skip()
            self.atlas.check()
            names = list(self.atlas.kept.spaces)
            for done, name in enumerate(names):
                text = both("latents.settling", done=done + 1, all=len(names))
                yield progress(done, len(names), text), gr.skip()
                self.atlas.settle(name)
            yield progress(1, 1, both("latents.settled")), self._answer()

    def find(self, language: Any, own: Any, seed: Any) -> Progress:
        """The place of a picture in each space, and its neighbours."""
        with told(language):
            for step in timed(self.atlas.ready()):
                yield progress(*step), gr.skip()
            self.atlas.check()
            query = self.atlas.query(seed, own)
            found = self._found(query, NEAREST)
            done = progress(1, 1, both("latents.found"))
            yield done, packed(_chosen(query, found) | {"files": _near_file(found, self.atlas)})

    def spaces(
        self, attribute: str = "time", view: str = "pca", language: str = "en"
    ) -> Iterator[dict[str, Any]]:
        """The spaces of four encoders over the same 2,000 test scenes of the picture book.

        `view` is pca or tsne (the first call of tsne takes half a minute), `attribute` what the
        points are classed by: time, ground, weather, light, mountains, clouds, rainbow, balloon,
        thing, house or things. Returns the seeds, the class of every scene, and for each encoder
        (convnet, vae, vit, contrastive) its points, linear probes, agreement of neighbours and
        the measured claims; `missing` says in a sentence which encoder is not there, and why.
        """
        with told(language):
            check_language(language)
            name, view = check_attribute(attribute), check_choice("view", view, VIEWS)
            for done, whole, _ in timed(self.atlas.ready()):
                yield {"done": False, "progress": done / whole}
            self.atlas.check()
            for one in self.atlas.kept.spaces if view == "tsne" else ():
                self.atlas.settle(one)
                yield {"done": False, "progress": 1.0}
            yield self._numbers(name, view, language)

    def neighbours(
        self, seed: int = SEED, image: str = "", k: int = NEAREST, language: str = "en"
    ) -> Iterator[dict[str, Any]]:
        """The k scenes (1 to 50) that are nearest to a picture in the space of each encoder.

        `image` is a picture file in base64; empty: the scene of `seed`, which is not its own
        neighbour. Near is a large cosine c after the mean of the space is taken off, and distance
        √(2 − 2c). Returns for each encoder the seeds, the distances, the unit of distances (the
        median distance of a scene from its nearest one), and the place in the PCA plane.
        """
        with told(language):
            check_language(language)
            count = check_whole("k", k, 1, MOST)
            own = own_picture(image)
            for _ in timed(self.atlas.ready()):
                yield {"done": False}
            self.atlas.check()
            found = self._found(self.atlas.query(seed, own), count)
            first = self.atlas.book.scenes[0].seed
            yield {"done": True} | {
                name: {
                    "seeds": [first + i for i in one["near"]],
                    "distances": one["distances"],
                    "unit": one["unit"],
                    "place": one["places"]["pca"][0],
                }
                for name, one in found.items()
            }

    def _found(self, query: Query, count: int) -> dict[str, dict[str, Any]]:
        """Encoder -> its neighbours, their distances, and the place in each view."""
        without = () if query.index is None else (query.index,)
        found = {}
        for name, vector in self.atlas.vectors([query.picture]).items():
            where = self.atlas.kept.spaces[name]
            near, distance = where.nearest(vector, count, without)
            found[name] = {
                "near": near[0].tolist(),
                "distances": distance[0].tolist(),
                "unit": where.apart,
                "places": self.atlas.places(name, vector),
            }
        return found

    def _status(self) -> str:
        if not self.atlas.kept.spaces:
            return progress(1, 1, both("latents.nothing"))
        count = len(self.atlas.book.scenes)
        return progress(
            1, 1, both("latents.ready", count=Pair(f"{count:,}", f"{count:,}".replace(",", ".")))
        )

    def _answer(self) -> str:
        """Everything for the browser; made again only when there is more than before."""
        kept = self.atlas.kept
        stand = (id(kept.book), *kept.spaces, "", *kept.planes, "", *kept.missing)
        if self._packed[0] != stand:
            self._packed = stand, packed(_whole(self.atlas))
        return self._packed[1]

    def _numbers(self, name: str, view: str, language: str) -> dict[str, Any]:
        kept, measured = self.atlas.kept, self.atlas.measured
        chosen = kept.attributes[name]
        answer: dict[str, Any] = {"done": True, "attribute": name, "classes": chosen.classes}
        answer["seeds"] = [scene.seed for scene in self.atlas.book.scenes]
        answer["values"] = chosen.values.tolist()
        answer["claims"] = verdicts.numbers(measured)
        answer["missing"] = {one: error.say(language) for one, error in kept.missing.items()}
        answer["spaces"] = {}
        for one, where in kept.spaces.items():
            points = kept.planes[one] if view == "tsne" else where.place(where.vectors)
            answer["spaces"][one] = {
                "dimensions": where.vectors.shape[1],
                "points": points.astype(float).tolist(),
                "variance": where.shares,
                "probes": _by_name(measured.probes[one]),
                "agreement": _by_name(measured.agreements[one]),
            }
        return answer


def own_picture(image: Any) -> bytes | None:
    """The picture of an API client; None for the empty text.

    Raises:
        Refused: As `upload.from_base64`.
    """
    return None if image == "" else from_base64(image, SIZE).tobytes()


def plots(over: str) -> str:
    """The four plots, in which the script draws the points and what is picked out.

    Args:
        over: What is drawn over the points: query or line.
    """
    return "".join(
        f'<figure data-encoder="{name}"><figcaption><b>{both(f"latents.name.{name}")}</b>'
        f'<span data-part="spaces.size.{name}">&nbsp;</span></figcaption><div class="gk-plot">'
        f'<canvas tabindex="0" role="img" data-plot="{name}" data-over="{over}"></canvas>'
        f'<p class="gk-gone" data-part="spaces.missing.{name}"></p></div>'
        f"{_beneath(name) if over == 'query' else ''}</figure>"
        for name in ENCODERS
    )


def _beneath(name: str) -> str:
    near = "".join(f'<i class="gk-pixels" data-rank="{i}"></i>' for i in range(NEAREST))
    return (
        f'<p class="gk-axis" data-part="spaces.share.{name}">&nbsp;</p>'
        f'<div class="gk-nearest" data-nearest="{name}">{near}</div>'
        f'<p class="gk-axis" data-agree="{name}">&nbsp;</p>'
    )


def _whole(atlas: Atlas) -> dict[str, Any]:
    kept, book = atlas.kept, atlas.book
    answer: dict[str, Any] = {"first": book.scenes[0].seed, "count": len(book.scenes)}
    answer |= {"columns": COLUMNS, "sheet": _sheet(book.pictures), "encoders": list(kept.spaces)}
    answer["attributes"] = {
        name: {
            "values": _bytes(one.values.astype(np.uint8)),
            "names": [_two(value_name(one, i)) for i in range(len(one.classes))],
            "colours": [colour_of(one, i) for i in range(len(one.classes))],
            "keys": one.classes,
            "title": _two(name_of(name)),
        }
        for name, one in kept.attributes.items()
    }
    answer["texts"] = {
        key: [locale(language)[f"latents.said.{key}"] for language in LANGUAGES] for key in SAID
    }
    answer["near"] = {n: _bytes(one.near.astype("<u2")) for n, one in kept.spaces.items()}
    flat = {name: one.place(one.vectors) for name, one in kept.spaces.items()}
    views = {"pca": flat, "tsne": kept.planes}
    answer["views"] = {
        view: {name: _bytes(points.astype("<f4")) for name, points in planes.items()}
        for view, planes in views.items()
    }
    answer["slots"] = {f"spaces.missing.{n}": "" for n in ENCODERS}
    answer["slots"] |= {
        f"spaces.missing.{n}": both("latents.gone", sentence=said(error))
        for n, error in kept.missing.items()
    }
    for name, one in kept.spaces.items():
        shown = percent(sum(one.shares))
        answer["slots"][f"spaces.share.{name}"] = both("latents.share", share=shown)
        size = one.vectors.shape[1]
        answer["slots"][f"spaces.size.{name}"] = both(f"latents.kind.{name}", size=size)
        answer["slots"][f"spaces.plane.{name}"] = spans(shown)
    answer["slots"] |= verdicts.slots(atlas)
    answer["files"] = verdicts.files(atlas)
    return answer


def _sheet(pictures: Array) -> str:
    """All pictures in rows of `COLUMNS` as one WebP."""
    count = len(pictures)
    rows = -(-count // COLUMNS)
    whole = np.zeros((rows * COLUMNS, SIZE, SIZE, 3), np.uint8)
    whole[:count] = pictures
    sheet = whole.reshape(rows, COLUMNS, SIZE, SIZE, 3).transpose(0, 2, 1, 3, 4)
    buffer = io.BytesIO()
    image = Image.fromarray(sheet.reshape(rows * SIZE, COLUMNS * SIZE, 3))
    image.save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _chosen(query: Query, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A picked picture for the browser; a scene of the book by its index."""
    return {
        "index": query.index,
        "seed": query.seed,
        "picture": tag(query.picture),
        "words": None if query.seed is None else _two(described(Scene.random(query.seed))),
        "near": {name: one["near"] for name, one in found.items()},
        "places": {name: one["places"] for name, one in found.items()},
        "far": {
            name: _two(number(round(one["distances"][0] / one["unit"], 2), 2))
            for name, one in found.items()
        },
    }


def _near_file(found: dict[str, dict[str, Any]], atlas: Atlas) -> dict[str, dict[str, str]]:
    first = atlas.book.scenes[0].seed
    rows = [
        (name, rank + 1, first + one["near"][rank], distance)
        for name, one in found.items()
        for rank, distance in enumerate(one["distances"])
    ]
    return {"near": table_file("latents-neighbours.csv", "encoder,rank,seed,distance", rows)}


def _bytes(array: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _two(pair: Any) -> list[str]:
    return [pair.english, pair.vietnamese]


def _by_name(values: Sequence[Found]) -> dict[str, dict[str, float]]:
    return {n: {"share": v.value, "chance": v.chance} for n, v in zip(ATTRIBUTES, values)}


def section(blocks: gr.Blocks, words: Words, atlas: Atlas, language: gr.Radio) -> None:
    """The section in the current context: controls over the four plots, words below them."""
    maps = Maps(atlas)
    with gr.Row(elem_id="gk-spaces", elem_classes="gk-maps-desk"):
        with gr.Column(scale=6, min_width=320):
            _colouring(words)
            run = buttons(words, "latents.settle", "latents.halt")
            places = answered("spaces", both("latents.quiet"))
        with gr.Column(scale=5, min_width=320):
            picked = picker(words, language, "near", "latents.scene", SEED)
            near = buttons(words, "latents.find", "latents.stop")
            told_near = answered("near", both("latents.point"))
    html_part(_figure(), elem_id="gk-spaces-figure")
    wire("spaces", maps.settle, [language], run, places)
    wire("near", maps.find, [language, *_asked(picked)], near, told_near)
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    blocks.load(maps.show, [language], list(places), **quiet, **HEAVY)
    gr.api(endpoint(maps.spaces, "spaces"), api_name="spaces", **HEAVY)
    gr.api(endpoint(maps.neighbours, "neighbours"), api_name="neighbours", **HEAVY)


def _asked(picked: Picker) -> list[Any]:
    return [picked.own, picked.seed]


def _colouring(words: Words) -> None:
    """What points are coloured by and which view is seen: both are answered by the browser."""
    choices = [(name_of(name), name) for name in ATTRIBUTES]
    views = [(pair(f"latents.view.{view}"), view) for view in VIEWS]
    with gr.Row(elem_classes="gk-fields"):
        colour = words.add(
            gr.Dropdown, "latents.attribute", choices=choices, value="time", min_width=150
        )
        view = words.add(gr.Radio, "latents.view", choices=views, value="pca", min_width=170)
    private = {"fn": None, "queue": False, "api_visibility": "private"}
    colour.change(inputs=[colour], js="(name) => { genkit.spaces.colour(name); }", **private)
    view.change(inputs=[view], js="(name) => { genkit.spaces.view(name); }", **private)


def _figure() -> str:
    live = {name: Live(f"spaces.plane.{name}") for name in ENCODERS}
    why = formula(both("latents.maps.why", **live))
    save = '<button type="button" class="gk-save" data-make="{}">{}</button>'
    links = "".join(
        save.format(kind, both(f"latents.save.{kind}")) for kind in ("figure", "points")
    )
    return (
        f'<p class="gk-classes" aria-label="legend" data-part="spaces.legend">&nbsp;</p>'
        f'<div class="gk-maps">{plots("query")}</div>'
        f'<div class="gk-chosen"><div data-part="spaces.chosen"><i class="gk-pixels"></i></div>'
        f'<p data-part="spaces.told">{both("latents.choose")}</p></div>'
        f'<div class="gk-text"><details><summary>{both("noise.why")}</summary><p>{why}</p>'
        f'</details><p class="gk-files">{links}{link("near", "latents.save.near")}</p></div>'
        f"{place('spaces.tip', look='gk-tip')}"
    )
