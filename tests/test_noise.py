"""The page 'Noise' without a browser: its numbers against closed forms, and what it refuses."""

import base64
import io
import json
import math
import re

import gradio as gr
import numpy as np
import pytest
import torch
from fake import FakeTextToImage, fake_studio
from gradio_client import Client
from PIL import Image

from apps import build, options, upload
from apps.explorer import WALK, Explorer
from apps.figure import Curve, chart
from apps.forward import (
    FRAMES,
    GRIDS,
    KINDS,
    check_side,
    divergence,
    levels,
    places,
    visited,
    walk,
)
from apps.settings import Refused
from genkit.diffusion.exchange import from_diffusers

BOTH = {"schedule_a": {"kind": "linear"}, "schedule_b": {"kind": "cosine"}}


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer(fake_studio(FakeTextToImage()))


@pytest.fixture(scope="module")
def answer(explorer) -> dict:
    return explorer.noise(**BOTH, seed=7)


def small(kind: str, **values) -> object:
    return check_side("a", {"kind": kind, "T": 48} | values)


# Numbers


@pytest.mark.parametrize("kind", KINDS)
def test_the_curves_start_at_the_picture_and_their_steps_compose(kind) -> None:
    """σ_k² = (α_k/α_{k−1})² σ_{k−1}² + β_k, for every kind, from the clean picture on."""
    at = levels(small(kind))
    assert (at.alpha[0], at.sigma[0], at.log_snr[0]) == (1, 0, math.inf) and math.isnan(at.beta[0])
    composed = (at.alpha[1:] / at.alpha[:-1] * at.sigma[:-1]) ** 2 + at.beta[1:]
    np.testing.assert_allclose(composed, at.sigma[1:] ** 2, rtol=1e-9)


def test_the_linear_chain_is_the_product_of_its_betas(answer) -> None:
    beta = np.linspace(1e-4, 0.02, 1000)
    curves = answer["a"]["curves"]
    np.testing.assert_allclose(curves["alpha_bar"][1:], np.cumprod(1 - beta), rtol=1e-12)
    np.testing.assert_allclose(curves["beta"][1:], beta, rtol=1e-12)
    assert curves["beta"][0] is None and curves["log_snr"][0] is None


@pytest.mark.parametrize(("alpha", "sigma", "s"), [(0.3, 0.9, 1.0), (1.0, 80.0, 80.0), (0, 1, 1)])
def test_the_divergence_is_that_of_torch(alpha, sigma, s) -> None:
    x0 = np.random.default_rng(0).uniform(-1, 1, 50)
    q = torch.distributions.Normal(torch.from_numpy(alpha * x0), sigma)
    p = torch.distributions.Normal(torch.zeros(50, dtype=torch.float64), s)
    expected = torch.distributions.kl_divergence(q, p).sum().item() / math.log(2)
    assert divergence(x0, alpha, sigma, s) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert divergence(x0, 1.0, 0.0, 1.0) == math.inf


def test_the_jump_and_the_chain_agree_with_theory_and_with_each_other() -> None:
    side, x0 = small("cosine"), torch.rand(12_288, dtype=torch.float64) * 2 - 1
    at, marks = levels(side), places(48)
    walked = walk(x0, at, marks, 3)
    alpha, sigma = at.alpha[marks], at.sigma[marks]
    error = sigma / math.sqrt(len(x0))  # of a mean; 5 deviations and the slope's own scale
    assert (abs(walked.noise - sigma) <= 5 * error).all()
    assert (abs(walked.mean) <= 5 * error).all()
    assert (abs(walked.slope - alpha) <= 5 * error / 0.577).all()
    assert walked.apart.max() < 1e-12
    assert not np.allclose(walked.slope[0][5:], walked.slope[1][5:])  # noise of their own


def test_both_schedules_get_the_same_noise(explorer) -> None:
    same = explorer._half(explorer.picture(5, None), small("cosine"), 5, "uniform", 4)[0]
    other = explorer._half(explorer.picture(5, None), small("linear"), 5, "uniform", 4)[0]
    x0 = explorer.picture(5, None)
    noises = [(h.frames[12] - h.at.alpha[24] * x0) / h.at.sigma[24] for h in (same, other)]
    np.testing.assert_allclose(*noises, atol=1e-12)
    assert same.histograms[-1].sum() * 7 / 56 == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_falls_within_the_chain(grid) -> None:
    steps = visited(check_side("a", {"kind": "linear"}), grid, 10)
    assert len(steps) == 10 and all(a > b for a, b in zip(steps, steps[1:]))
    assert steps[0] <= 1 and steps[-1] > 0
    if grid == "trailing":
        np.testing.assert_allclose(steps, np.arange(10, 0, -1) / 10, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_diffusers_file_is_the_schedule(explorer, kind) -> None:
    half = explorer.noise({"kind": kind, "T": 1000}, BOTH["schedule_b"])["a"]
    read = from_diffusers(half["diffusers"]).chain()
    np.testing.assert_allclose(read.sigma.numpy()[-1], half["curves"]["sigma"][-1], rtol=1e-12)


def test_a_leaking_end_is_told_and_a_pure_one_is_not(explorer, answer) -> None:
    pure = {"kind": "scaled_linear", "zero_terminal_snr": True}
    text, note = explorer.explore(None, 7, "trailing", 20, {"kind": "scaled_linear"}, pure)
    slots = json.loads(text)["slots"]
    assert (
        "gk-leak" in slots["end-a"] and "0.0683" in slots["end-a"] and "0,0683" in slots["end-a"]
    )
    assert "gk-leak" not in slots["end-b"] and not note
    assert 0 < answer["b"]["kl_bits"] < 1e-3 < answer["a"]["kl_bits"]
    assert explorer.noise(pure, pure)["a"]["terminal_snr"] == 0


def test_the_answer_has_every_frame_and_every_file(explorer) -> None:
    text, _ = explorer.explore(None, 7, "karras", 12, {"kind": "edm"}, {"kind": "rectified"})
    got = json.loads(text)
    assert {len(rows) for rows in got["live"].values()} == {FRAMES}
    assert "<" not in text  # nothing in it can become a tag of the page
    lines = base64.b64decode(got["files"]["curves"]["url"].partition(",")[2]).decode().splitlines()
    assert len(lines) == 1 + 2 * 1001 and lines[0].startswith("schedule,k,beta")
    assert {len(line.split(",")) for line in lines} == {7}
    for name, size in (("a", 128), ("b-walk", WALK)):
        data = base64.b64decode(got["sheets"][name].partition(",")[2])
        assert Image.open(io.BytesIO(data)).size == (5 * size, 5 * size)


def test_charts_leave_out_what_is_not_finite_and_have_no_colour_of_their_own() -> None:
    drawn = chart([Curve("a", [0, 0.5, 1], [math.nan, 1.0, math.inf], [(0.5, 1.0)])], "σ")
    assert "nan" not in drawn and "inf" not in drawn and "#" not in drawn
    assert len(re.findall("<circle", drawn)) == 1


# Refusals

BAD = [
    ({"T": 0}, "from 2 to 4000"),
    ({"T": 1}, "from 2 to 4000"),
    ({"T": 10**9}, "from 2 to 4000"),
    ({"T": 2.5}, "whole number"),
    ({"T": math.nan}, "not a number"),
    ({"T": True}, "not a number"),
    ({"beta_start": 0}, "from 1e-07 to 0.999"),
    ({"beta_end": 1}, "from 1e-07 to 0.999"),
    ({"beta_end": -0.5}, "from 1e-07 to 0.999"),
    ({"beta_end": math.nan}, "not a number"),
    ({"beta_end": "0.02"}, "not a number"),
    ({"beta_start": 0.5, "beta_end": 0.02}, "noise only grows"),
    ({"kind": "nothing"}, "unknown"),
    ({"kind": None}, "unknown"),
    ({"s": 0.1}, "unknown"),
    ({"zero_terminal_snr": 1}, "true or false"),
    ({"kind": "edm", "zero_terminal_snr": True}, "no chain"),
    ({"kind": "edm", "sigma_min": 5, "sigma_max": 5}, "noise only grows"),
    ({"kind": "edm", "sigma_max": math.inf}, "not a number"),
    ({"kind": "sigmoid", "start": 20, "end": 20}, "noise only grows"),
    ({"kind": "sigmoid", "start": -20, "end": 20, "tau": 0.05}, "so flat or so steep"),
]


@pytest.mark.parametrize(("values", "sentence"), BAD)
def test_a_bad_schedule_is_a_sentence_in_both_languages(explorer, values, sentence) -> None:
    with pytest.raises(gr.Error, match=sentence):
        explorer.noise(values, {})
    with pytest.raises(gr.Error, match="hãy") as caught:
        explorer.noise({}, values, language="vi")
    assert len(caught.value.message) < 300
    kept, note = explorer.explore(None, 1, "uniform", 5, values, {})
    assert isinstance(kept, dict) and re.search(sentence, note)  # gr.skip(): the page stays


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"schedule_a": None}, "must be an object"),
        ({"schedule_b": [1]}, "must be an object"),
        ({"steps": 0}, "from 1 to 100"),
        ({"steps": 101}, "from 1 to 100"),
        ({"grid": "random"}, "unknown"),
        ({"grid": "leading", "schedule_a": {"kind": "rectified"}}, "leading counts the steps"),
        ({"grid": "leading", "schedule_a": {"T": 9}, "steps": 20}, "do not fit"),
        ({"seed": -1}, "from 0 to"),
        ({"seed": None}, "not a number"),
        ({"image": "§"}, "base64"),
        ({"image": 7}, "base64"),
        ({"language": "xx"}, "unknown"),
    ],
)
def test_the_endpoint_refuses_in_a_sentence(explorer, values, sentence) -> None:
    with pytest.raises(gr.Error, match=sentence):
        explorer.noise(**(BOTH | values))


def file(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG whose header promises 60,000 × 60,000 pixels."""
    data = bytearray(file(Image.new("RGB", (8, 8))))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not a picture"),
        (b"<svg/>", "not a picture"),
        (bomb(), "pixels are read"),
        (file(Image.new("L", (30_000, 1))), "longer than wide"),
        (file(Image.new("RGB", (64, 64), "red"))[:60], "damaged|not a picture"),
        (b"x" * (upload.MAX_BYTES + 1), "at most 8388608"),
    ],
)
def test_bad_files_are_a_sentence_each(data, sentence) -> None:
    with pytest.raises(Refused, match=sentence) as caught:
        upload.decode(data, 128)
    assert "hãy" in caught.value.say("vi")


def test_every_sort_of_picture_becomes_a_square_of_rgb() -> None:
    deep = Image.fromarray(np.full((9, 9), 32_768, np.uint16))
    clear = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    turned, exif = Image.new("RGB", (60, 60), "red"), Image.Exif()
    turned.paste("blue", (0, 0, 60, 30))
    exif[0x112] = 3  # stands on its head
    cases = [
        (file(Image.new("CMYK", (50, 50)), "JPEG"), (255, 255, 255), 2),
        (file(deep), (128, 128, 128), 1),
        (file(clear), (255, 255, 255), 0),
        (file(frames[0], "GIF", save_all=True, append_images=frames[1:]), (255, 0, 0), 1),
        (file(Image.new("RGB", (1, 1), "green")), (0, 128, 0), 0),
        (file(turned, "JPEG", exif=exif.tobytes(), quality=95), (255, 0, 0), 4),
    ]
    for data, colour, slack in cases:
        image = upload.decode(data, 128)
        assert image.size == (128, 128) and image.mode == "RGB"
        assert all(abs(a - b) <= slack for a, b in zip(image.getpixel((64, 10)), colour)), colour


def test_an_own_picture_takes_the_place_of_the_scene(explorer, tmp_path) -> None:
    white = file(Image.new("RGB", (300, 200), "white"))
    (tmp_path / "white.png").write_bytes(white)
    own = explorer.open_picture("en", str(tmp_path / "white.png"))
    assert own == b"\xff" * 128 * 128 * 3
    got = explorer.noise(**BOTH, image=base64.b64encode(white).decode())
    alpha = got["a"]["curves"]["alpha"][-1]
    expected = divergence(np.ones(49_152), alpha, math.sqrt(1 - alpha**2), 1.0)
    assert got["a"]["kl_bits"] == pytest.approx(expected, rel=1e-9)
    for path in (None, 7, str(tmp_path / "gone.png")):
        with pytest.raises(gr.Error, match="No picture was sent|no longer kept"):
            explorer.open_picture("en", path)


def test_the_endpoint_answers_over_http_and_works_again_after_a_refusal() -> None:
    blocks = build(fake_studio(FakeTextToImage()), "noise")
    _, url, _ = blocks.launch(**options(), prevent_thread_lock=True, server_name="127.0.0.1")
    try:
        client = Client(url, verbose=False)
        with pytest.raises(Exception, match="hãy"):
            client.predict({"T": 10**9}, {}, language="vi", api_name="/noise")
        got = client.predict({"T": 50}, {"kind": "rectified"}, steps=5, api_name="/noise")
        assert got["a"]["T"] == 50 and len(got["b"]["steps"]) == 5
        assert got["b"]["curves"]["log_snr"][-1] is None
    finally:
        blocks.close()
