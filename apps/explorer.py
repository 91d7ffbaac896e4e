"""What happens when a control of the page `noise` is used: one request makes everything it shows.

The answer is one JSON text: two sheets of 25 pictures, the numbers beside each of them, figures as
SVG, sentences in both languages, files to save. The browser puts the parts into their places and
then scrubs through the times without asking again (`genkit.noise` in `static/page.js`).
Every value is checked, whoever sends it; the page tells a refusal in its place, as one types.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image

from apps import upload
from apps.cards import jpeg_url, table_file, text_file
from apps.common import Studio, refusals, told
from apps.figure import BINS, RANGE, Curve, chart, histogram
from apps.forward import (
    FRAMES,
    KINDS,
    Levels,
    Side,
    Walk,
    check_side,
    check_whole,
    divergence,
    levels,
    places,
    start_deviation,
    visited,
    walk,
)
from apps.settings import LIMITS, Refused, check_language, draw_seed
from apps.text import Pair, both, number, spans
from genkit.data.picturebook import Scene
from genkit.diffusion.exchange import to_diffusers

__all__ = ["LETTERS", "Explorer"]

LETTERS = ("a", "b")
SHEET = 5
"""Pictures in a row of a sheet."""
WALK = 64
"""Side of the picture that walks the chain, in pixels: T steps of it take a fifth of a second."""
POINTS = 161
"""Points of a drawn curve."""
TOLD = 0.5
"""Deviations by which a white picture may shift the mean of the noise before it is told."""
CURVES = (("beta", True), ("alpha_bar", False), ("sigma", False), ("log_snr", False))


@dataclass(frozen=True)
class Half:
    """Everything about the picture under one of the two schedules."""

    side: Side
    at: Levels
    marks: list[int]
    frames: np.ndarray
    histograms: np.ndarray
    bits: list[float]
    walk: Walk
    steps: list[float]

    @property
    def shift(self) -> float:
        """How far a white picture moves the mean of x_T, in deviations of that mean."""
        return float(self.at.alpha[-1] / self.at.sigma[-1] * math.sqrt(self.frames[0].size))


class Explorer:
    """The handlers of the page over one studio, of which it needs the size of a picture only."""

    def __init__(self, studio: Studio) -> None:
        self.size = studio.size

    def explore(
        self, picture: bytes | None, seed: Any, grid: Any, steps: Any, a: Any, b: Any
    ) -> tuple[Any, str]:
        """(the answer for the browser, a note): what is refused is told, and the page stays."""
        try:
            x0 = self.picture(seed, picture)
            first, refused_a = self._half(x0, check_side("a", a), seed, grid, steps)
            second, refused_b = self._half(x0, check_side("b", b), seed, grid, steps)
        except Refused as error:
            return gr.skip(), refusals([error])
        # <script> in a text would be a tag to the browser that holds it.
        text = json.dumps(_answer(first, second), ensure_ascii=True).replace("<", "\\u003c")
        return text, refusals([*refused_a, *refused_b])

    def open_picture(self, language: Any, path: Any) -> bytes:
        """The uploaded picture, ready for `explore`."""
        with told(language):
            return upload.from_file(path, self.size).tobytes()

    def another(self) -> int:
        """The seed of another scene."""
        return draw_seed() % 1_000_000

    def noise(
        self,
        schedule_a: dict[str, Any],
        schedule_b: dict[str, Any],
        image: str = "",
        seed: int = 0,
        grid: str = "trailing",
        steps: int = 20,
        language: str = "en",
    ) -> dict[str, Any]:
        """The forward process of a picture under two schedules, in numbers.

        A schedule is {"kind": "linear", "T": 1000, "zero_terminal_snr": false} and the parameters
        of its kind (linear, scaled_linear and sigmoid_beta: beta_start, beta_end; cosine: s;
        sigmoid: start, end, tau; rectified: shift; edm: sigma_min, sigma_max, rho); what is left
        out has its published value. `image` is a picture file in base64; empty: the scene of
        `seed`, which seeds the noise too. Returns for each schedule its curves at k = 0 … T, the
        divergence from noise in bits, what was measured of the jump and of the chain, where the
        steps of `grid` fall (k/T), and its diffusers scheduler_config. Infinite values are null.
        """
        with told(language):
            check_language(language)
            picture = upload.from_base64(image, self.size).tobytes() if image != "" else None
            x0 = self.picture(seed, picture)
            result: dict[str, Any] = {"dimensions": x0.size}
            for letter, values in zip(LETTERS, (schedule_a, schedule_b)):
                half, refused = self._half(x0, check_side(letter, values), seed, grid, steps)
                if refused:
                    raise refused[0]
                result[letter] = _numbers(half)
            return _finite(result)

    def picture(self, seed: Any, picture: bytes | None) -> np.ndarray:
        """x_0 in [−1, 1], height × width × 3: the visitor's own, or the scene of the seed."""
        if picture is None:
            return self.scene(seed, self.size)
        check_whole("seed", seed, *LIMITS["seed"])  # which seeds the noise
        values = np.frombuffer(picture, np.uint8).reshape(self.size, self.size, 3)
        return values / 127.5 - 1

    def scene(self, seed: Any, size: int) -> np.ndarray:
        """The scene of the seed, size × size, as `picture`."""
        seed = check_whole("seed", seed, *LIMITS["seed"])
        return np.asarray(Scene.random(seed).render(size)) / 127.5 - 1

    def _half(
        self, x0: np.ndarray, side: Side, seed: int, grid: Any, steps: Any
    ) -> tuple[Half, list[Refused]]:
        """The numbers of one side, and why the steps of the grid are missing if they are."""
        refused: list[Refused] = []
        try:
            fallen = visited(side, grid, steps)
        except Refused as error:
            fallen, refused = [], [error]
        at, marks = levels(side), places(side.T)
        epsilon = np.random.default_rng(int(seed)).standard_normal(x0.shape)
        alpha, sigma = at.alpha[marks, None, None, None], at.sigma[marks, None, None, None]
        frames = alpha * x0 + sigma * epsilon
        scaled = frames / np.sqrt(alpha**2 + sigma**2)
        bins = np.linspace(-RANGE, RANGE, BINS + 1)
        counts = [np.histogram(one, bins)[0] for one in scaled]
        density = np.array(counts) / x0.size * BINS / (2 * RANGE)
        s = start_deviation(side)
        bits = [divergence(x0, at.alpha[k], at.sigma[k], s) for k in marks]
        small = torch.from_numpy(_reduced(x0).ravel())
        walked = walk(small, at, marks, int(seed))
        return Half(side, at, marks, frames, density, bits, walked, fallen), refused


def _reduced(x0: np.ndarray) -> np.ndarray:
    """The picture at `WALK` × `WALK`, by means of squares."""
    factor = x0.shape[0] // WALK
    return x0.reshape(WALK, factor, WALK, factor, 3).mean(axis=(1, 3))


def _answer(a: Half, b: Half) -> dict[str, Any]:
    halves = (a, b)
    return {
        "sheets": {h.side.letter: _sheet(h.frames, h) for h in halves}
        | {f"{h.side.letter}-walk": _sheet(h.walk.states.reshape(FRAMES, WALK, WALK, 3), h)
           for h in halves},
        "slots": _curves(halves) | _texts(a) | _texts(b),
        "picture": hashlib.sha256(a.frames[0].tobytes()).hexdigest(),
        "live": {h.side.letter: _live(h) for h in halves},
        "histograms": {h.side.letter: h.histograms.round(4).tolist() for h in halves},
        "files": _files(halves),
    }  # fmt: skip


def _sheet(frames: np.ndarray, half: Half) -> str:
    """All frames in rows as one JPEG; noise beyond the range of a picture is scaled down."""
    alpha, sigma = half.at.alpha[half.marks], half.at.sigma[half.marks]
    scale = np.maximum(np.sqrt(alpha**2 + sigma**2), 1.0)[:, None, None, None]
    pixels = ((frames / scale + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    size = pixels.shape[1]
    rows = pixels.reshape(SHEET, -1, size, size, 3).transpose(0, 2, 1, 3, 4)
    return jpeg_url(Image.fromarray(rows.reshape(SHEET * size, -1, 3)))


def _curves(halves: Sequence[Half]) -> dict[str, str]:
    """The four charts, as the browser's places `chart-…`."""
    slots = {}
    for name, log in CURVES:
        curves = []
        for half in halves:
            y, u = _curve(half.at, name), half.at.u
            shown = np.unique(np.linspace(0, half.side.T, POINTS).round().astype(int))
            marks = [(x, float(np.interp(x, u[1:], y[1:]))) for x in half.steps]
            points = u[shown].tolist(), y[shown].tolist()
            curves.append(Curve(half.side.letter, *points, marks))
        tall = name == "sigma" and max(half.at.sigma[-1] for half in halves) > 2
        slots[f"chart-{name}"] = chart(curves, CHART_NAMES[name], log or tall)
    return slots | {f"histogram-{one}": histogram(one, "x_k, N(0, 1)") for one in LETTERS}


CHART_NAMES = {"beta": "β", "alpha_bar": "ᾱ = α²", "sigma": "σ", "log_snr": "ln α²/σ²"}


def _curve(at: Levels, name: str) -> np.ndarray:
    return at.alpha**2 if name == "alpha_bar" else getattr(at, name)


def _texts(half: Half) -> dict[str, str]:
    """What is said about one side: its name, its end, what diffusers can hold of it."""
    letter = half.side.letter
    title = f"{KINDS[half.side.kind].label}, T = {half.side.T}"
    if getattr(half.side.schedule, "base", None) is not None:
        title += ", SNR(T) = 0"
    return {
        f"title-{letter}": title,
        f"end-{letter}": _end(half),
        f"diffusers-{letter}": _exchange(half.side)[1],
    }


def _end(half: Half) -> str:
    """Whether the end is really noise, and what it does to a model if it is not."""
    letter, alpha, sigma = half.side.letter.upper(), half.at.alpha[-1], half.at.sigma[-1]
    if alpha == 0:
        return f'<p class="gk-end gk-fine">{both("noise.end.zero", letter=letter)}</p>'
    numbers = {
        "letter": letter,
        "alpha": number(alpha),
        "snr": number((alpha / sigma) ** 2),
        "shift": number(half.shift, 2),
    }
    if half.shift < TOLD:
        return f'<p class="gk-end gk-fine">{both("noise.end.hidden", **numbers)}</p>'
    remedy = "noise.end.rescale" if KINDS[half.side.kind].chain else "noise.end.widen"
    warning = f"{both('noise.end.warning', **numbers)} {both(remedy)}"
    return f'<p class="gk-end gk-leak" role="note">{warning}</p>'


def _exchange(side: Side) -> tuple[dict[str, Any] | None, str]:
    """The diffusers configuration of a schedule, if there is one, and a word about it."""
    try:
        config = to_diffusers(side.schedule) | {"num_train_timesteps": side.T}
    except ValueError:
        return None, both("noise.diffusers.none")
    key = "noise.diffusers.betas" if "trained_betas" in config else "noise.diffusers.named"
    return config, both(key, name=str(config["_class_name"]))


def _live(half: Half) -> list[dict[str, str]]:
    """The numbers of each frame, as HTML in both languages."""
    at, walked, dimensions = half.at, half.walk, half.frames[0].size
    rows = []
    for index, k in enumerate(half.marks):
        bits = half.bits[index]
        row = {
            "k": Pair(str(k), str(k)),
            "alpha": number(at.alpha[k]),
            "sigma": number(at.sigma[k]),
            "beta": number(at.beta[k]),
            "snr": number(at.log_snr[k]),
            "bits": number(bits),
            "each": number(bits / dimensions),
            "apart": number(walked.apart[index], 2),
        }
        for name in ("slope", "mean", "noise"):
            jump, chain = getattr(walked, name)[:, index]
            row |= {f"{name}-jump": number(jump), f"{name}-chain": number(chain)}
        rows.append({name: spans(value) for name, value in row.items()})
    return rows


def _files(halves: Sequence[Half]) -> dict[str, dict[str, str]]:
    """name of the link -> {name, address} of the file behind it."""
    tables = {"curves": [], "steps": [], "histogram": [], "chain": []}
    for half in halves:
        letter, at = half.side.letter, half.at
        columns = (at.beta, at.alpha**2, at.alpha, at.sigma, at.log_snr)
        tables["curves"] += [(letter, k, *row) for k, row in enumerate(zip(*columns))]
        tables["steps"] += [(letter, i, u) for i, u in enumerate(half.steps)]
        middle = (np.arange(BINS) + 0.5) * 2 * RANGE / BINS - RANGE
        for index, k in enumerate(half.marks):
            bars = zip(middle, half.histograms[index])
            tables["histogram"] += [(letter, k, *bar) for bar in bars]
            measured = (half.walk.slope, half.walk.mean, half.walk.noise)
            pairs = [value for one in measured for value in one[:, index]]
            theory = (at.alpha[k], at.sigma[k])
            rest = (half.walk.apart[index], half.bits[index])
            tables["chain"].append((letter, k, *theory, *pairs, *rest))
    files = {}
    for name, rows in tables.items():
        files[name] = table_file(f"noise-{name}.csv", COLUMNS[name], rows)
    for half in halves:
        config, _ = _exchange(half.side)
        if config is not None:
            text = json.dumps(config, indent=2) + "\n"
            name = f"diffusers-{half.side.letter}"
            files[name] = text_file("scheduler_config.json", "application/json", text)
    return files


COLUMNS = {
    "curves": "schedule,k,beta,alpha_bar,alpha,sigma,log_snr",
    "steps": "schedule,step,k_over_T",
    "histogram": "schedule,k,value,density",
    "chain": "schedule,k,alpha,sigma,slope_jump,slope_chain,mean_jump,mean_chain,noise_jump,"
    "noise_chain,largest_difference,kl_bits",
}


def _numbers(half: Half) -> dict[str, Any]:
    """One side for an API client."""
    at = half.at
    return {
        "T": half.side.T,
        "curves": {
            "k": list(range(half.side.T + 1)),
            "beta": at.beta.tolist(),
            "alpha_bar": (at.alpha**2).tolist(),
            "alpha": at.alpha.tolist(),
            "sigma": at.sigma.tolist(),
            "log_snr": at.log_snr.tolist(),
        },
        "terminal_snr": float((at.alpha[-1] / at.sigma[-1]) ** 2),
        "kl_bits": half.bits[-1],
        "kl_bits_per_dimension": half.bits[-1] / half.frames[0].size,
        "frames": {
            "k": half.marks,
            "kl_bits": half.bits,
            "slope": dict(zip(("jump", "chain"), half.walk.slope.tolist())),
            "mean": dict(zip(("jump", "chain"), half.walk.mean.tolist())),
            "noise": dict(zip(("jump", "chain"), half.walk.noise.tolist())),
            "largest_difference": half.walk.apart.tolist(),
        },
        "steps": half.steps,
        "diffusers": _exchange(half.side)[0],
    }


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
