"""Bound: what a model says about the picture of the page, and how many bits that costs.

A section of the page `noise` with three figures: the terms of the bound over the time,

    −log₂ P(x_0) ≤ L_T + Σ_k L_(k−1) + L_0,

the picture at 25 times as the model sees it, and the variance of its steps between the two limits
β̃ and β. One run makes all of it (`backward`), streams the curve as it grows, and the browser puts
the answer into places that are there from the start and scrubs (`genkit.bound` in page.js).
"""

import io
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from apps import upload
from apps.backward import FRAMES, Findings, Frame, Terms, Widths, examine
from apps.cards import png_url, progress, table_file
from apps.classes import check_label, choices, named
from apps.common import HEAVY, Studio, html_part, timed, told
from apps.explorer import Explorer
from apps.figure import Curve, chart
from apps.figure import Frame as Outline
from apps.section import Live, answered, buttons, endpoint, formula, link, packed, place, wire
from apps.settings import check_choice, check_language
from apps.text import Pair, Words, both, number, spans
from genkit.models.diffusion import PixelDiffusion

__all__ = ["MODELS", "Bound", "reduced", "section"]

MODELS = {"book32_guided": "DDPM + Σ · book32_guided", "book32_ddpm": "DDPM · book32_ddpm"}
"""Checkpoints that can be asked, and their names on the page."""
VARIANCES = ("narrow", "learned", "wide")
CHAINS = ("fine", "coarse")
CANVASES = ("x0", "x_t", "look", "back", "off", "std")
ROW = 5
"""Pictures in a row of a sheet."""
FILM = 12
"""Places of the film."""
LIVE = ("t", "alpha", "sigma", "look", "back", "steps", "bits")
"""Numbers of the slider's time in the explanations."""
RAW = 8.0
"""Bits/dim of the picture as it lies in memory."""
LIMITS = (1e-6, 10.0)
"""Bits/dim that the chart of the terms holds in any case, so that it grows in its place."""
WIDE = Outline(620, 290)
GREY = 127.5
"""Grey levels in a unit of [−1, 1]."""


class Bound:
    """The handlers of the section over one studio."""

    def __init__(self, studio: Studio) -> None:
        self.pages = Explorer(studio)

        # A closure: ZeroGPU sends the arguments to another process, and a studio stays here.
        def examined(
            name: str, x0: np.ndarray, label: str | None, seed: int
        ) -> Iterator[Findings]:
            model = studio.model(name)
            if not isinstance(model, PixelDiffusion):
                raise TypeError(f"{name} is a {type(model).__name__}, not a PixelDiffusion")
            yield from examine(model, x0, label, seed)

        self._examine = studio.on_gpu(examined)

    def run(
        self, language: Any, picture: bytes | None, seed: Any, model: Any, label: Any
    ) -> Iterator[tuple[str, Any]]:
        """(status, the answer for the browser) after every batch of the network."""
        with told(language):
            start, x0 = time.monotonic(), self._picture(picture, seed)
            for found in self._events(x0, seed, model, label):
                text = both("bound.busy", done=found.done, of=found.of)
                if found.done == found.of:
                    text = both("bound.done", seconds=number(time.monotonic() - start, 2))
                # The pictures come all together; the first answer empties the places.
                whole = len(found.frames) in (0, FRAMES)
                answer = _answer(found, x0, model, label) if whole else gr.skip()
                yield progress(found.done, found.of, text), answer

    def bound(
        self,
        image: str = "",
        seed: int = 0,
        model: str = "book32_guided",
        label: str = "",
        language: str = "en",
    ) -> Iterator[dict[str, Any]]:
        """How many bits a diffusion model needs for a picture: all terms of the bound.

        `image` is a picture file in base64; empty: the scene of `seed`, which seeds the noise
        too. It is reduced to 32 × 32. `model` is book32_guided or book32_ddpm, `label` one of its
        16 classes such as "meadow, day", or empty. Yields what is known so far, complete when
        `evaluations` is `of`: the terms in bits/dim (L_T first, L_0 last), their sums for each
        variance on the whole chain and on one of 50 times, the variance over the times, and the
        errors of 25 looks and of the ways back from there.
        """
        with told(language):
            check_language(language)
            side = self.pages.size
            own = upload.from_base64(image, side).tobytes() if image != "" else None
            x0 = self._picture(own, seed)
            for found in self._events(x0, seed, model, label):
                if len(found.frames) in (0, FRAMES):
                    yield _numbers(found, x0, model, label)

    def _picture(self, picture: bytes | None, seed: Any) -> np.ndarray:
        if picture is None:
            return self.pages.scene(seed, 32)  # drawn as small as those that the model knows
        return reduced(self.pages.picture(seed, picture), 32)

    def _events(self, x0: np.ndarray, seed: Any, model: Any, label: Any) -> Iterator[Findings]:
        """What is found, within the wall clock; closed with the one who reads it."""
        name = check_choice("model", model, tuple(MODELS))
        asked = check_label(label)
        yield from timed(self._examine(name, x0, asked, int(seed)))


def reduced(x0: np.ndarray, side: int) -> np.ndarray:
    """The picture at side × side by means of squares, rounded to the grey levels −1 + 2k/255."""
    factor = x0.shape[0] // side
    means = x0.reshape(side, factor, side, factor, 3).mean(axis=(1, 3))
    return ((means + 1) * GREY).round() / GREY - 1


# The answer


def _answer(found: Findings, x0: np.ndarray, model: str, label: str) -> str:
    """What the browser shows; the pictures and files come with the last one."""
    answer: dict[str, Any] = {"slots": {}}
    if found.fine:
        of = both("bound.of", model=MODELS[model], label=named(label))
        answer["slots"] = _slots(found, x0) | {"of": of}
    if found.frames:
        answer |= _pictures(found, x0) | {"files": _files(found)}
    return packed(answer)


def _slots(found: Findings, x0: np.ndarray) -> dict[str, str]:
    terms = found.fine[found.own]
    complete = found.widths is not None
    line = terms.bits[1:][terms.t[1:] > 0]  # L_0 is a dot of its own
    points = terms.t[1 : 1 + len(line)].tolist(), line.tolist()
    marks = [(0.0, float(terms.bits[-1]))] if complete else []
    curve = Curve("a", *points, marks)
    slots = {"chart-terms": chart([curve], "L", log=True, limits=LIMITS, frame=WIDE)}
    if found.widths is None:
        slots["sum"] = both("bound.sum.soon", bits=number(terms.total))
        return slots
    names = ("end", "steps", "decoder", "total", "png")
    values = (*terms.parts, terms.total, png_bits(x0))
    slots["sum"] = formula(both("bound.sum.now", **dict(zip(names, map(_bits, values)))))
    if terms.total > RAW:
        slots["sum"] += f" {both('bound.sum.more')}"
    slots |= _charts(found.widths, found.own) | _table(found)
    return slots


def _charts(widths: Widths, own: str) -> dict[str, str]:
    t = widths.t.tolist()
    share = [Curve("b", t, widths.asked.clip(max=1.25).tolist())]
    error = [Curve("b", t, (GREY * widths.error).tolist())]
    if own == "learned":
        share.insert(0, Curve("a", t, widths.share.tolist()))
        error.insert(0, Curve("a", t, (GREY * widths.std).tolist()))
    return {"chart-share": chart(share, "w"), "chart-error": chart(error, "ς", log=True)}


def _table(found: Findings) -> dict[str, str]:
    """The cells of the table, the least of a column in bold, and a sentence about them."""
    slots = {f"{chain}-{name}": "–" for chain in CHAINS for name in VARIANCES}
    least = {}
    for chain in CHAINS:
        sums = {name: terms.total for name, terms in getattr(found, chain).items()}
        least[chain] = min(sums, key=sums.__getitem__, default=found.own)
        for name, value in sums.items():
            text = spans(_bits(value))
            slots[f"{chain}-{name}"] = f"<b>{text}</b>" if name == least[chain] else text
    if found.coarse:
        winners = {chain: _symbol(name) for chain, name in least.items()}
        slots["table"] = formula(both("bound.variance.now", **winners))
    return slots


def _symbol(name: str) -> Pair:
    return {
        "narrow": Pair("β̃", "β̃"),
        "learned": Pair("the learned Σ", "Σ học được"),
        "wide": Pair("β", "β"),
    }[name]


def _pictures(found: Findings, x0: np.ndarray) -> dict[str, Any]:
    frames = found.frames
    scales = [max(one.off.max(), 0 if one.std is None else one.std.max()) for one in frames]
    scales = [max(scale, 1e-6) for scale in scales]
    power = [np.hypot(one.alpha, one.sigma) for one in frames]
    sheets = {
        "x0": [x0] * FRAMES,
        "x_t": [one.x_t / max(1.0, p) for one, p in zip(frames, power)],
        "look": [one.x0 for one in frames],
        "back": [one.film[-1] for one in frames],
        "off": [_heat(one.off / scale) for one, scale in zip(frames, scales)],
    }
    if frames[0].std is not None:
        sheets["std"] = [
            _heat(one.std / s) for one, s in zip(frames, scales) if one.std is not None
        ]
    blank = np.zeros_like(x0)
    film = [p for one in frames for p in (*one.film, *[blank] * (FILM - len(one.film)))]
    return {
        "sheets": {name: _sheet(one, ROW) for name, one in sheets.items()}
        | {"film": _sheet(film, FILM)},
        "film": [len(one.film) for one in frames],
        "live": [_live(one, s, x0, found.fine[found.own]) for one, s in zip(frames, scales)],
    }


def _live(frame: Frame, scale: float, x0: np.ndarray, terms: Terms) -> dict[str, str]:
    """The sentence and the numbers of a time, as HTML in both languages."""
    values = {
        "t": number(frame.t, 3),
        "alpha": number(frame.alpha),
        "sigma": number(frame.sigma),
        "look": _grey(frame.x0 - x0),
        "back": _grey(frame.film[-1] - x0),
        "steps": Pair(*[str(len(frame.film))] * 2),
        "scale": number(scale * GREY, 3),
        "bits": _bits(float(terms.bits[1:][np.abs(terms.t[1:] - frame.t).argmin()])),
    }
    key = "bound.frames.point"
    if frame.std is not None:
        key, values["std"] = "bound.frames.now", _grey(frame.std)
    rows = {name: spans(value) for name, value in values.items()}
    return rows | {"now": formula(both(key, **values))}


def _grey(x: np.ndarray) -> Pair:
    """Root of the mean square in grey levels."""
    return number(float(np.sqrt(np.square(x).mean())) * GREY, 3)


def _bits(value: float) -> Pair:
    text = f"{value:.3f}"
    small = 0 < abs(value) < 0.0005
    return number(value, 2) if small else Pair(text, text.replace(".", ","))


def _heat(x: np.ndarray) -> np.ndarray:
    """0 … 1 as black, red, yellow, white, a picture in [−1, 1]."""
    thirds = 3 * x[..., None] - np.arange(3)
    return thirds.clip(0, 1) * 2 - 1


def _sheet(pictures: list[np.ndarray], columns: int) -> str:
    """Pictures in rows as one PNG: noise and small pictures do not bear JPEG."""
    pixels = ((np.stack(pictures) + 1) * GREY).round().clip(0, 255).astype(np.uint8)
    side = pixels.shape[1]
    rows = pixels.reshape(-1, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
    return png_url(_png(rows.reshape(-1, columns * side, 3)))


def _png(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def png_bits(x0: np.ndarray) -> float:
    """Bits/dim of the picture as a PNG file."""
    pixels = ((x0 + 1) * GREY).round().astype(np.uint8)
    return 8 * len(_png(pixels, optimize=True)) / pixels.size


def _files(found: Findings) -> dict[str, dict[str, str]]:
    """Name of the link -> {name, address} of the table behind it."""
    names = list(found.fine)
    bits = zip(*(found.fine[name].bits.tolist() for name in names))
    t = found.fine[found.own].t.tolist()
    kinds = ("L_T", *["L_t"] * (len(t) - 2), "L_0")
    sums = [
        (chain, len(terms.t) - 1, name, *terms.parts, terms.total)
        for chain in CHAINS
        for name, terms in getattr(found, chain).items()
    ]
    widths = vars(found.widths)
    tables = {
        "terms": (",".join(("term,t", *names)), [(*one, *b) for *one, b in zip(kinds, t, bits)]),
        "sums": ("chain,T,variance,L_T,L_t,L_0,total", sums),
        "variance": (",".join(widths), zip(*(column.tolist() for column in widths.values()))),
        "frames": (",".join(FRAME_COLUMNS), [tuple(_frame(one).values()) for one in found.frames]),
    }
    return {name: table_file(f"bound-{name}.csv", *table) for name, table in tables.items()}


FRAME_COLUMNS = ("t", "alpha", "sigma", "error", "std", "steps")


def _frame(frame: Frame) -> dict[str, float | None]:
    """The numbers of a time; error and std are roots of mean squares in [−1, 1]."""
    std = None if frame.std is None else float(np.sqrt(np.square(frame.std).mean()))
    error = float(np.sqrt(np.square(frame.off).mean()))
    values = (frame.t, frame.alpha, frame.sigma, error, std, len(frame.film))
    return dict(zip(FRAME_COLUMNS, values))


def _numbers(found: Findings, x0: np.ndarray, model: str, label: str) -> dict[str, Any]:
    """What is known so far for an API client."""

    def sums(terms: Terms) -> dict[str, float]:
        return dict(zip(("L_T", "L_t", "L_0", "total"), (*terms.parts, terms.total)))

    own = found.fine.get(found.own)
    return {
        "model": model,
        "label": label,
        "dimensions": x0.size,
        "evaluations": found.done,
        "of": found.of,
        "raw": RAW,
        "png": png_bits(x0),
        "variance": found.own,
        "terms": {"t": own.t.tolist(), "bits": own.bits.tolist()} if own else None,
        "bound": own.total if own and found.widths else None,
        "table": {
            chain: {name: sums(terms) for name, terms in getattr(found, chain).items()}
            for chain in CHAINS
            if found.widths
        },
        "widths": {name: column.tolist() for name, column in vars(found.widths).items()}
        if found.widths
        else None,
        "frames": [_frame(one) for one in found.frames],
    }


# The layout


def section(words: Words, studio: Studio, language: Any, picture: Any, seed: Any) -> None:
    """Lays out the section and says what its controls do.

    Args:
        words: Of the page.
        studio: The models.
        language: The control of the language.
        picture: The visitor's own picture as bytes, or None.
        seed: The control of the scene.
    """
    with gr.Row(elem_id="gk-bound", elem_classes="gk-fields gk-bar"):
        models = [(name, key) for key, name in MODELS.items()]
        model = words.add(
            gr.Dropdown, "bound.model", choices=models, value=models[0][1], min_width=210
        )
        label = words.add(gr.Dropdown, "bound.label", choices=choices(), value="", min_width=190)
        pair = buttons(words, "bound.run", "bound.stop")
    status, answer = answered("bound", both("bound.hint"))
    figures = {"elem_id": "gk-bound-figures", "elem_classes": "gk-figures"}
    stale = f'<p class="gk-note gk-warn gk-old">{both("bound.stale")}</p>'
    html_part(stale + _terms() + _looks() + _widths(), **figures)
    handlers = Bound(studio)
    inputs = [language, picture, seed, model, label]
    wire("bound", handlers.run, inputs, pair, (status, answer))
    gr.on(
        [model.change, label.change],
        fn=None,
        js="() => genkit.bound.stale()",
        queue=False,
        api_visibility="private",
    )
    gr.api(endpoint(handlers.bound, "bound"), api_name="bound", **HEAVY)


def _terms() -> str:
    empty = chart([], "L", log=True, limits=LIMITS, frame=WIDE)
    figure = _place("chart-terms", "bound.axis.terms", empty)
    now = place("bound.sum", "p", content=both("bound.sum.none"))
    now += place("bound.of", "p", content="&nbsp;")
    return _part("bound", figure, now, "terms")


def _looks() -> str:
    """The picture at the time of the slider: what comes in, what the model makes of it."""
    frames = "".join(
        f'<figure><canvas data-bound-sheet="{name}" width="32" height="32"></canvas>'
        f"<figcaption>{formula(both(f'bound.picture.{name}'))}</figcaption></figure>"
        for name in CANVASES
    )
    film = "".join(
        f'<canvas data-bound-film="{i}" width="32" height="32"></canvas>' for i in range(FILM)
    )
    figure = (
        f'<div class="gk-six">{frames}</div><label class="gk-time"><span>{both("noise.time")}'
        f'</span><input id="gk-bound-time" type="range" min="0" max="{FRAMES - 1}" value="12" '
        f'step="1"></label><p class="gk-note">{formula(both("bound.film"))}</p>'
        f'<div class="gk-twelve">{film}</div>'
    )
    now = place("bound.now", "p", content=both("bound.frames.none"))
    return _part("frames", figure, now, "frames")


def _widths() -> str:
    empty = {
        "share": chart([], "w", limits=(0, 1)),
        "error": chart([], "ς", True, limits=(1, 100)),
    }
    charts = "".join(_place(f"chart-{name}", f"bound.axis.{name}", empty[name]) for name in empty)
    legend = "".join(
        f'<span><b class="gk-dash gk-{side}"></b>{formula(both(f"bound.legend.{side}"))}</span>'
        for side in ("a", "b")
    )
    head = "".join(f"<th>{formula(both(f'bound.{chain}'))}</th>" for chain in CHAINS)
    rows = "".join(
        f"<tr><th>{formula(both(f'bound.row.{name}'))}</th>"
        + "".join(place(f"bound.{chain}-{name}", "td", content="–") for chain in CHAINS)
        + "</tr>"
        for name in VARIANCES
    )
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>"
    figure = (
        f'<div class="gk-charts">{charts}</div><p class="gk-legend">{legend}</p>'
        f'<div class="gk-sums">{table}</div>'
    )
    now = place("bound.table", "p", content=both("bound.variance.none"))
    return _part("variance", figure, now, "variance", "sums")


def _place(slot: str, caption: str, empty: str) -> str:
    chart = place(f"bound.{slot}", look="gk-place", content=empty)
    return f"<figure><figcaption>{formula(both(caption))}</figcaption>{chart}</figure>"


def _part(name: str, figure: str, now: str, *files: str) -> str:
    gaps = {one: Live(f"bound.{one}") for one in LIVE}
    why = formula(both(f"bound.{name}.why", **gaps))
    links = "".join(link(file, f"bound.csv.{file}") for file in files)
    return (
        f'<section id="gk-section-{name}"><div class="gk-figure">{figure}</div>'
        f"<div class='gk-text'><h2>{both(f'bound.{name}.title')}</h2>{now}"
        f"<details><summary>{both('noise.why')}</summary><p>{why}</p></details>"
        f'<p class="gk-files">{links}</p></div></section>'
    )
