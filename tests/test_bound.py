"""The section 'bound' without a browser: its numbers against the core, and what it refuses."""

import base64
import io
import json
import math
from collections.abc import Iterator
from itertools import count

import gradio as gr
import numpy as np
import pytest
import torch
from fake import FakeTextToImage, fake_studio, tiny_model
from gradio_client import Client
from PIL import Image

from apps import build, options
from apps.backward import FRAMES, Findings, examine
from apps.bound import Bound, png_bits, reduced
from genkit.data.picturebook import Scene
from genkit.diffusion.denoise import Denoiser, Epsilon
from genkit.diffusion.likelihood import chain, terms, total
from genkit.diffusion.schedule import LinearBeta
from genkit.diffusion.variance import LearnedVariance, Narrow, Replay, Wide
from genkit.models.diffusion import PixelDiffusion, PixelUNet

T = 60
"""Of the short chains of these tests."""


def short(name: str) -> PixelDiffusion:
    """A tiny model over a chain of `T` steps that ends in noise."""
    schedule = LinearBeta(beta_end=0.3, T=T)
    if name == "book32_guided":
        net = tiny_model(name).denoiser.denoiser.backbone
        return PixelDiffusion(LearnedVariance(net, schedule, Epsilon()))
    return PixelDiffusion(Denoiser(tiny_model(name).denoiser.backbone, schedule, Epsilon()))


def page_of(seed: int) -> np.ndarray:
    return reduced(np.asarray(Scene.random(seed).render(128)) / 127.5 - 1, 32)


@pytest.fixture(scope="module", params=["book32_guided", "book32_ddpm"])
def found(request) -> Findings:
    *_, last = examine(short(request.param), page_of(7), None, 3)
    return last


@pytest.fixture(scope="module")
def handlers() -> Bound:
    studio = fake_studio(FakeTextToImage())
    return Bound(type(studio)(studio.load_generator, studio.load_reader, (), load_model=short))


# Numbers


def test_the_sums_are_those_of_the_core(found) -> None:
    """Replayed answers give the bounds that the model wrapped in each limit gives."""
    name = "book32_guided" if found.own == "learned" else "book32_ddpm"
    model = short(name)
    x0 = torch.from_numpy(page_of(7)).permute(2, 0, 1)[None]
    limits = {
        "learned": model.denoiser,
        "narrow": Narrow(model.denoiser),
        "wide": Wide(model.denoiser),
    }
    for times, sums in (
        (chain(LinearBeta(T=T), T), found.fine),
        (chain(LinearBeta(T=T), 50), found.coarse),
    ):
        assert set(sums) == {"narrow", "wide", found.own}
        for one, had in sums.items():
            rngs = [torch.Generator().manual_seed(3)]
            expected = total(terms(limits[one], x0, rngs, model.condition([None]), times)).bits
            assert had.total == pytest.approx(expected.item(), rel=1e-5)
            assert had.total == pytest.approx(sum(had.parts), rel=1e-12)
    assert len(found.fine[found.own].t) == T + 1 and found.done == found.of


def test_the_widths_lie_between_their_limits(found) -> None:
    widths = found.widths
    assert (widths.narrow <= widths.said * (1 + 1e-12)).all()
    assert (widths.said <= widths.wide * (1 + 1e-12)).all()
    np.testing.assert_allclose(widths.wide, LinearBeta(beta_end=0.3, T=T).betas()[1:], rtol=1e-6)
    w = widths.share[:, None]
    middle = np.exp(w[:, 0] * np.log(widths.wide) + (1 - w[:, 0]) * np.log(widths.narrow))
    np.testing.assert_allclose(middle, widths.said, rtol=1e-9)
    assert (widths.share == 0).all() == (found.own == "narrow")


def test_the_frames_begin_at_the_picture_and_share_their_noise(found) -> None:
    x0, frames = page_of(7), found.frames
    assert len(frames) == FRAMES and [len(one.film) for one in frames[:4]] == [1, 1, 1, 2]
    assert frames[-1].t == 1 and len(frames[-1].film) == 12
    noises = [(one.x_t - one.alpha * x0) / one.sigma for one in frames]
    for one in noises[1:]:
        np.testing.assert_allclose(one, noises[0], atol=1e-4)
    for one in frames:
        rms = np.sqrt(np.square(one.x0 - x0).mean(axis=2))
        np.testing.assert_allclose(one.off, rms, atol=1e-6)
        assert abs(one.x0).max() <= 1 and (one.std is None) == (found.own == "narrow")


def test_a_picture_is_reduced_by_means_of_squares_at_the_grey_levels() -> None:
    x0 = np.random.default_rng(0).uniform(-1, 1, (128, 128, 3))
    small = reduced(x0, 32)
    levels = (small + 1) * 127.5
    np.testing.assert_allclose(levels, levels.round(), atol=1e-9)
    assert abs(small[3, 5] - x0[12:16, 20:24].mean(axis=(0, 1))).max() <= 1 / 255 + 1e-9
    assert png_bits(np.ones((32, 32, 3))) < 0.5 < png_bits(page_of(7)) < 8


def test_a_replay_repeats_and_knows_no_other_time() -> None:
    denoiser = short("book32_guided").denoiser
    x, t = torch.randn(2, 3, 32, 32), torch.tensor([0.25, 0.5], dtype=torch.float64)
    label = {"label": torch.tensor([16])}
    said = {time.item(): denoiser(x[i : i + 1], t[i : i + 1], label) for i, time in enumerate(t)}
    again = Replay(denoiser, said)(torch.zeros_like(x), t)
    assert torch.equal(again.mean[1:], said[0.5].mean)
    assert torch.equal(again.std[:1], said[0.25].std)
    with pytest.raises(KeyError):
        Replay(denoiser, said)(x, torch.tensor([0.3, 0.5]))


# What the page and the endpoint get


def test_the_page_grows_and_ends_with_everything(handlers) -> None:
    events = list(handlers.run("en", None, 7, "book32_guided", "sea, night"))
    first, last = json.loads(events[0][1]), json.loads(events[-1][1])
    assert first == {"slots": {}} and "<" not in events[-1][1]
    assert len(last["live"]) == len(last["film"]) == FRAMES
    assert set(last["sheets"]) == {"x0", "x_t", "look", "back", "off", "std", "film"}
    film = Image.open(io.BytesIO(base64.b64decode(last["sheets"]["film"].partition(",")[2])))
    assert film.size == (12 * 32, FRAMES * 32)
    assert "sea, night" in last["slots"]["of"] and "biển, ban đêm" in last["slots"]["of"]
    rows = {}
    for name, file in last["files"].items():
        lines = base64.b64decode(file["url"].partition(",")[2]).decode().splitlines()
        rows[name] = len(lines) - 1
        assert len({line.count(",") for line in lines}) == 1, name
    assert rows == {"terms": T + 1, "sums": 6, "variance": T - 1, "frames": FRAMES}
    assert [status.count("gk-busy") for status, _ in events[-2:]] == [1, 0]


def test_a_model_without_a_variance_of_its_own_says_so(handlers) -> None:
    *_, (_, text) = handlers.run("en", None, 7, "book32_ddpm", "")
    answer = json.loads(text)
    assert "std" not in answer["sheets"] and answer["slots"]["fine-learned"] == "–"
    assert "does not say how unsure" in answer["live"][12]["now"]


def test_a_whole_chain_of_the_endpoint_has_a_thousand_and_one_terms() -> None:
    *_, got = Bound(fake_studio(FakeTextToImage())).bound(seed=7, model="book32_ddpm")
    assert len(got["terms"]["t"]) == len(got["terms"]["bits"]) == 1001
    assert got["evaluations"] == got["of"] == 1231 and len(got["frames"]) == FRAMES
    sums = got["table"]["fine"]["narrow"]
    assert got["bound"] == pytest.approx(sums["L_T"] + sums["L_t"] + sums["L_0"])
    assert all(map(math.isfinite, got["terms"]["bits"])) and json.dumps(got, allow_nan=False)


def test_closing_the_handler_ends_the_work(handlers) -> None:
    ended = []

    def endless(*_: object) -> Iterator[Findings]:
        try:
            yield from count()
        finally:
            ended.append(True)

    handlers._examine = endless
    events = handlers._events(page_of(1), 1, "book32_guided", "")
    assert next(events) == 0 and not ended
    events.close()
    assert ended


def test_a_model_that_says_what_is_not_finite_is_told() -> None:
    net = PixelUNet(channels=(16, 16, 16), blocks=(1, 1, 1), heads=1, dim=16)
    torch.nn.init.constant_(net.out[-1].bias, math.nan)
    broken = PixelDiffusion(Denoiser(net, LinearBeta(T=T), Epsilon()))
    studio = fake_studio(FakeTextToImage())
    told = Bound(type(studio)(studio.load_generator, studio.load_reader, (),
                              load_model=lambda name: broken))  # fmt: skip
    with pytest.raises(gr.Error, match="not finite"):
        list(told.bound(model="book32_ddpm"))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seed": -1}, "from 0 to"),
        ({"seed": None}, "not a number"),
        ({"seed": True}, "not a number"),
        ({"seed": math.nan}, "not a number"),
        ({"seed": 1.5}, "whole number"),
        ({"seed": "7"}, "not a number"),
        ({"model": "book128_latent"}, "unknown"),
        ({"model": None}, "unknown"),
        ({"model": ["book32_ddpm"]}, "unknown"),
        ({"label": "dragon"}, "unknown"),
        ({"label": 3}, "unknown"),
        ({"label": None}, "unknown"),
        ({"image": "§"}, "base64"),
        ({"image": 7}, "base64"),
        ({"language": "xx"}, "unknown"),
    ],
)
def test_bad_values_are_a_sentence_in_both_languages(handlers, values, sentence) -> None:
    with pytest.raises(gr.Error, match=sentence):
        next(handlers.bound(**values))
    if "language" not in values:
        with pytest.raises(gr.Error, match="hãy"):
            next(handlers.bound(**values, language="vi"))
    if not {"image", "language"} & set(values):
        asked = {"seed": 7, "model": "book32_ddpm", "label": ""} | values
        with pytest.raises(gr.Error, match=sentence):
            next(handlers.run("en", None, *asked.values()))


def test_the_endpoint_works_again_after_a_refusal(handlers) -> None:
    studio = fake_studio(FakeTextToImage())
    served = type(studio)(studio.load_generator, studio.load_reader, (), load_model=short)
    blocks = build(served, "noise")
    _, url, _ = blocks.launch(**options(), prevent_thread_lock=True, server_name="127.0.0.1")
    try:
        client = Client(url, verbose=False)
        with pytest.raises(Exception, match="hãy"):
            client.predict(label="rồng", language="vi", api_name="/bound")
        buffer = io.BytesIO()
        Image.new("RGB", (50, 90), "white").save(buffer, "PNG")
        white = base64.b64encode(buffer.getvalue()).decode()
        job = client.submit(image=white, model="book32_ddpm", api_name="/bound")
        assert job.result() is not None
        got = job.outputs()[-1]
        assert got["evaluations"] == got["of"] and got["png"] < 0.5
    finally:
        blocks.close()
