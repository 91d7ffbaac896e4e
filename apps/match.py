"""Captions against pictures: the encoder that has both in one space.

The contrastive encoder gives a picture and a caption a unit vector each; their cosine says how
well they fit. It was trained to tell the right caption of a picture from those of the other
pictures beside it, in English and in Vietnamese.

The captions here are those of scenes that no encoder has seen, one in each language; a picture's
best ones among them, its own and the visitor's text are shown as bars. The other way round, the
scenes whose vectors are nearest to the visitor's text.
"""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np
import torch

from apps.atlas import Atlas, Query
from apps.cards import progress, table_file
from apps.common import HEAVY, html_part, timed, told
from apps.legend import described, percent
from apps.maps import SEED, own_picture
from apps.picker import picker, tag
from apps.section import Live, answered, buttons, endpoint, formula, link, packed, place, wire
from apps.settings import check_language, check_text
from apps.spaces import ENCODERS, SIZE, Array, Matches
from apps.text import LANGUAGES, Pair, Words, both, number, spans
from genkit.data.picturebook import Scene, parse
from genkit.data.picturebook.scene import SPLITS
from genkit.probes import NEAREST

__all__ = ["POOL", "Match", "Scored", "section"]

NAME = "contrastive"
POOL = 100
"""Scenes whose captions stand to choice."""
BEST = 5
"""Captions that are shown."""
TEXT = "a lighthouse by the sea at night"


@dataclass(frozen=True)
class Scored:
    """A caption in both languages, and its cosine with the picture in each."""

    text: Pair
    scores: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the encoder says of a picture and a text.

    Args:
        own: The scene's own caption; None for a visitor's picture.
        best: The captions of the pool that fit best.
        user: The visitor's text with one score; None where there is none.
        near: Scenes nearest to that text.
        cosines: Their cosines.
        unknown: Words of the text that nobody taught it.
    """

    own: Scored | None
    best: tuple[Scored, ...]
    user: Scored | None
    near: Array
    cosines: Array
    unknown: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """The captions of the pool: their texts, their vectors "P 2 D", and how often they win."""

    texts: tuple[Pair, ...]
    vectors: Array
    right: float


class Match:
    """The handlers of the section over an atlas."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas
        self._pool: Choice | None = None
        studio = atlas.studio

        # A closure, as in `handlers.Desk`: the studio stays in its process.
        def say(captions: Sequence[str]) -> Iterator[Array]:
            model = studio.model(ENCODERS[NAME].checkpoint)
            assert isinstance(model, Matches)
            with torch.inference_mode():
                yield model.embed_text(captions).float().cpu().numpy()

        self._say = studio.on_gpu(say)

    def show(self, language: Any, own: Any, seed: Any, text: Any) -> Iterator[tuple[str, Any]]:
        """(status, answer for the browser)."""
        with told(language):
            text = check_text("text", text)
            for step in timed(self.atlas.ready()):
                yield progress(*step), gr.skip()
            self._check()
            query = self.atlas.query(seed, own)
            judgement = self.judge(query, text)
            yield progress(1, 1, both("latents.match.done")), packed(self._answer(judgement))

    def match(
        self, seed: int = SEED, image: str = "", text: str = TEXT, language: str = "en"
    ) -> Iterator[dict[str, Any]]:
        """How well captions fit a picture, by the contrastive encoder: cosines from −1 to 1.

        `image` is a picture file in base64; empty: the scene of `seed`. `text` is your own
        caption, English or Vietnamese; it may be empty. Returns the scores of the scene's own
        caption, of the best captions among 100 in both languages, of your text, and the scenes
        that are nearest to your text.
        """
        with told(language):
            check_language(language)
            text = check_text("text", text)
            own = own_picture(image)
            for _ in timed(self.atlas.ready()):
                yield {"done": False}
            self._check()
            judgement = self.judge(self.atlas.query(seed, own), text)
            first = self.atlas.book.scenes[0].seed
            yield {
                "done": True,
                "own": _row(judgement.own),
                "best": [_row(one) for one in judgement.best],
                "text": judgement.user and judgement.user.scores[0],
                "unknown": list(judgement.unknown),
                "nearest": [
                    {"seed": first + int(i), "cosine": float(c)}
                    for i, c in zip(judgement.near, judgement.cosines)
                ],
            }

    def judge(self, query: Query, text: str) -> Judgement:
        """Everything about a picture and a text, which may be empty."""
        pool, picture = self._choice(), self.atlas.vectors([query.picture])[NAME][0]
        scores = pool.vectors @ picture  # "P 2"
        order = np.argsort(-scores.mean(axis=1), kind="stable")[:BEST]
        best = tuple(Scored(pool.texts[i], tuple(scores[i].tolist())) for i in order)
        own = None
        if query.seed is not None:
            caption = described(Scene.random(query.seed))
            own = Scored(caption, tuple((self._texts([caption])[0] @ picture).tolist()))
        if not text:
            return Judgement(own, best, None, np.zeros(0, int), np.zeros(0), ())
        vector = next(iter(self._say([text])))[0]
        user = Scored(Pair(text, text), (float(vector @ picture),))
        cosines = self.atlas.kept.spaces[NAME].vectors @ vector
        near = np.argsort(-cosines, kind="stable")[:NEAREST]
        return Judgement(own, best, user, near, cosines[near], parse(text).unknown)

    def _check(self) -> None:
        kept = self.atlas.kept
        if NAME in kept.missing and NAME not in kept.spaces:
            raise kept.missing[NAME]
        self.atlas.check()

    def _texts(self, captions: Sequence[Pair]) -> Array:
        """ "P 2 D", the vectors of captions in both languages."""
        sides = [[one[language] for one in captions] for language in LANGUAGES]
        return np.stack([next(iter(self._say(side))) for side in sides], axis=1)

    def _choice(self) -> Choice:
        if self._pool is None:
            scenes = [Scene.random(seed) for seed in SPLITS["test"][-POOL:]]
            texts = tuple(map(described, scenes))
            vectors = self._texts(texts)
            pictures = [np.asarray(scene.render(SIZE)) for scene in scenes]
            cosines = self.atlas.vectors(pictures)[NAME] @ vectors[:, 0].T
            right = float((cosines.argmax(axis=1) == np.arange(len(texts))).mean())
            self._pool = Choice(texts, vectors, right)
        return self._pool

    def _answer(self, one: Judgement) -> dict[str, Any]:
        rows = [(both("latents.match.own"), one.own)] if one.own else []
        rows += [(both("latents.match.best", rank=i + 1), each) for i, each in enumerate(one.best)]
        user = [(both("latents.match.user"), one.user)] if one.user else []
        bars = "".join(_bar(name, each) for name, each in user + rows)
        scenes = "".join(
            f"<figure>{tag(self.atlas.book.pictures[i])}<figcaption>"
            f"{spans(number(float(cosine), 2))}</figcaption></figure>"
            for i, cosine in zip(one.near, one.cosines)
        )
        unknown = ", ".join(one.unknown)
        slots = {
            "match.bars": bars,
            "match.scenes": scenes or _EMPTY,
            "match.unknown": both("latents.match.unknown", words=unknown) if unknown else "",
            "match.right": spans(percent(self._choice().right)),
            "match.now": _now(one),
        }
        if one.user:
            slots["match.score"] = spans(number(one.user.scores[0], 2))
        kinds = [("text", one.user), ("own", one.own), *(("best", each) for each in one.best)]
        table = [
            (kind, language, _quoted(each.text[language]), score)
            for kind, each in kinds if each for language, score in zip(LANGUAGES, each.scores)
        ]  # fmt: skip
        file = table_file("latents-captions.csv", "kind,language,caption,cosine", table)
        return {"slots": slots, "files": {"match": file}}


def _row(one: Scored | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        language: {"caption": one.text[language], "cosine": score}
        for language, score in zip(LANGUAGES, one.scores)
    }


def _bar(name: str, one: Scored) -> str:
    """A caption and a bar for each language; one bar for the visitor's text."""
    bars = []
    for language, score in zip(LANGUAGES, one.scores):
        low, high = sorted((0.5, 0.5 + score / 2))
        code = f"<small>{language.upper()}</small>" if len(one.scores) > 1 else ""
        bars.append(
            f'<div class="gk-bar-of">{code}<span><i style="left:{100 * low:.1f}%;'
            f'width:{100 * (high - low):.1f}%"></i></span>{spans(number(score, 2))}</div>'
        )
    text = Pair(*(html.escape(one.text[language], quote=False) for language in LANGUAGES))
    return f"<li><p><b>{name}</b> <bdi>{spans(text)}</bdi></p>{''.join(bars)}</li>"


def _now(one: Judgement) -> str:
    top = one.best[0]
    values = {"best": number(float(np.mean(top.scores)), 2), "all": POOL}
    if one.user is None:
        return both("latents.match.some", **values)
    return both("latents.match.now", score=number(one.user.scores[0], 2), **values)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


_EMPTY = '<figure><i class="gk-pixels"></i><figcaption>&nbsp;</figcaption></figure>' * NEAREST


def section(words: Words, atlas: Atlas, language: gr.Radio) -> None:
    """The section in the current context: figure on the left, words and controls on the right."""
    match = Match(atlas)
    with gr.Row(elem_id="gk-match", elem_classes="gk-part"):
        with gr.Column(scale=7, min_width=320, elem_classes="gk-figure"):
            html_part(_figure())
        with gr.Column(scale=5, min_width=320, elem_classes="gk-text"):
            now = place("match.now", "span", content=both("latents.match.lead"))
            html_part(f"<h2>{both('latents.match.title')}</h2><p>{now}</p>")
            picked = picker(words, language, "caption", "latents.scene", SEED)
            text = words.add(gr.Textbox, "latents.text", value=TEXT, lines=2, max_lines=4)
            html_part(place("match.unknown", "p", "gk-note"), elem_classes="gk-unknown")
            run = buttons(words, "latents.compare", "latents.end")
            places = answered("match", both("latents.match.quiet"))
            live = {name: Live(f"match.{name}") for name in ("right", "score")}
            why = formula(both("latents.match.why", all=POOL, **live))
            html_part(
                f"<details><summary>{both('noise.why')}</summary><p>{why}</p></details>"
                f'<p class="gk-files">{link("match", "latents.save.match")}</p>'
            )
    wire("match", match.show, [language, *picked, text], run, places)
    gr.api(endpoint(match.match, "match"), api_name="match", **HEAVY)


def _figure() -> str:
    blank = '<li><p>&nbsp;</p><div class="gk-bar-of"><span></span></div></li>' * (BEST + 2)
    return (
        f'<p class="gk-axis">{both("latents.match.axis")}</p>'
        f"{place('match.bars', 'ul', 'gk-captions', blank)}"
        f'<p class="gk-axis">{both("latents.match.found")}</p>'
        f"{place('match.scenes', look='gk-row gk-eight', content=_EMPTY)}"
    )
