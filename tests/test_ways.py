"""The section "One picture, three ways" without a browser: its numbers against the core."""

import base64
import io
import json
import math
import re
import struct
import zlib
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest
import torch
from fake import FakeTextToImage, fake_studio, tiny_model
from PIL import Image
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from apps import bill, route, travel
from apps.mosaic import diverging, heat, mosaic, squares
from apps.small import Small
from apps.stack import Bar, Piece, shades, stacked
from apps.travel import Travel
from apps.ways import (
    FEW,
    SOLVERS,
    Found,
    apart,
    cloud,
    examine,
    fitting,
    ladder,
    psnr,
    road,
    toll,
)
from genkit.diffusion.denoise import Denoiser, Epsilon
from genkit.diffusion.estimate import estimate
from genkit.diffusion.invert import FIRST
from genkit.diffusion.sample import noise
from genkit.diffusion.schedule import LinearBeta, Schedule
from genkit.distributions import Dirac
from genkit.models.diffusion import PixelDiffusion, PixelUNet
from genkit.models.hvae import HVAE
from genkit.models.vae import VAE, parts

NAMES = ("book32_vae", "book32_hvae", "book32_ddpm")
STEPS = 6


def rngs(count: int, seed: int = 3) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


@pytest.fixture(scope="module")
def x() -> Tensor:
    return Small(fake_studio(FakeTextToImage())).picture(None, 7)


@pytest.fixture(scope="module")
def found(x) -> Found:
    *_, last = examine(tuple(map(tiny_model, NAMES)), x, STEPS, "dpm++2m", 5, 3)
    return last


@pytest.fixture(scope="module")
def handlers() -> Travel:
    return Travel(fake_studio(FakeTextToImage()))


def png(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


# The VAE and the HVAE


def test_the_clouds_bill_is_that_of_the_core(x) -> None:
    """With the draws of the model itself, and the divergence by torch."""
    vae = tiny_model("book32_vae")
    got = cloud(vae, x, 5, 3)
    with torch.no_grad():
        coded = vae(x.expand(5, -1, -1, -1), rngs(5))
        expected = parts(coded, x.expand(5, -1, -1, -1))
        law = vae.encode(x)[0].posterior
    assert got.bill.bits == pytest.approx(expected.bits.mean().item(), rel=1e-5)
    error = expected.bits.std().item() / math.sqrt(5)
    assert got.bill.error == pytest.approx(error, rel=1e-2)
    torch.testing.assert_close(got.draws, coded.picture.mean, rtol=0, atol=1e-5)
    exact = kl_divergence(Normal(law.mean[0], law.std[0]), Normal(0.0, 1.0))
    torch.testing.assert_close(got.nats, exact, rtol=1e-4, atol=1e-5)
    told = got.bill.parts[1]
    assert told.bits == pytest.approx(exact.sum().item() / (3072 * math.log(2)), rel=1e-5)
    assert (told.name, told.error) == ("4×4", 0)


def test_the_ladder_keeps_the_first_levels_and_dreams_the_others(x) -> None:
    hvae = tiny_model("book32_hvae")
    got = ladder(hvae, x, 5, 3)
    with torch.no_grad():
        levels = hvae.encode(x)
        prior = hvae.generate(rngs(FEW))[1].mean
        given = [levels[0].z.expand(FEW, -1, -1, -1)]
        kept, again = hvae.generate(rngs(FEW), given)
        costs = parts(hvae(x.expand(5, -1, -1, -1), rngs(5)), x.expand(5, -1, -1, -1))
    assert torch.equal(kept[0], given[0])
    torch.testing.assert_close(got.kept[0], prior, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.kept[1], again.mean, rtol=0, atol=1e-5)
    whole = hvae.decode([level.z for level in levels]).mean[0]
    torch.testing.assert_close(got.back, whole, rtol=0, atol=1e-5)
    assert [len(one) for one in got.kept] == [FEW, FEW, FEW, 1]
    names = ["reconstruction", "16×16 · 1", "8×8 · 1", "4×4 · 1"]
    assert [part.name for part in got.bill.parts] == names
    for part in got.bill.parts:
        bits = costs.parts[part.name].mean().item() / (3072 * math.log(2))
        assert part.bits == pytest.approx(bits, rel=1e-5)
    assert got.bill.bits == pytest.approx(costs.bits.mean().item(), rel=1e-6)
    assert got.numbers == (64, 128, 512)


# The diffusion model


class Gaussians:
    """The denoiser of pixels N(m, s²), for which every path is known; a model for `road`."""

    passes, mean, std = 1, 0.2, 0.3

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.denoiser = schedule, self

    def condition(self, names: list[None]) -> dict[str, Tensor]:
        return {}

    def __call__(self, x_t: Tensor, t: Tensor, cond: object = None) -> Dirac:
        alpha, sigma = (c.to(x_t)[:, None, None, None] for c in self.schedule(t))
        gain = alpha * self.std**2 / (alpha.square() * self.std**2 + sigma.square())
        return Dirac(self.mean + gain * (x_t - alpha * self.mean))


def test_the_roads_go_where_the_exact_flow_goes(x) -> None:
    model, n = Gaussians(LinearBeta()), 40
    *counts, got = road(model, x, n, SOLVERS["dpm++2m"], 3)
    assert counts == [*range(1, n + 1), *range(2 * n, 3 * n + 1)]
    assert len(got.flow.states) == len(got.noisy.looks) == 2 * n + 1 and got.evaluations == 2 * n
    # Up by noise: q(x_t | x_0) with the same ε at every time.
    alpha, sigma = (torch.tensor(c)[:, None, None, None] for c in (got.alpha, got.sigma))
    eps = noise(rngs(1), x.shape[1:])
    q = (alpha * x + sigma * eps).float()
    torch.testing.assert_close(got.noisy.states[: n + 1], q, rtol=0, atol=1e-5)
    # Up by the flow: (x_t − α m)/√(α² s² + σ²) stays what it is.
    wide = (alpha.square() * model.std**2 + sigma.square()).sqrt()
    unit = (got.flow.states[: n + 1] - alpha * model.mean) / wide
    torch.testing.assert_close(unit[-1], unit[0], rtol=0, atol=0.02)
    # A look is what the model says of the state at its time.
    for path in (got.flow, got.noisy):
        for i in (3, n, n + 5):
            t = torch.tensor([got.times[min(i, 2 * n - i)]])
            said = model(path.states[i : i + 1], t).mean[0]
            torch.testing.assert_close(path.looks[i], said, rtol=0, atol=1e-4)
    # And back: to the picture by the flow, to another one from fresh noise.
    assert psnr(got.back, x[0]) > 50 > 30 > psnr(got.noisy.looks[-1], x[0])
    assert got.times[0] == FIRST and got.times[-1] == 1


def test_an_order_more_comes_back_closer(x) -> None:
    near = {}
    for name, solver in SOLVERS.items():
        *_, got = road(Gaussians(LinearBeta()), x, 20, solver, 3)
        near[name] = psnr(got.back, x[0])
    assert near["dpm++2m"] > near["ddim"] + 10


@pytest.mark.parametrize("name", ["book32_ddpm", "book32_guided"])
def test_the_toll_is_the_estimate_in_groups(x, name) -> None:
    model = tiny_model(name)
    got = toll(model, x, 3)
    whole = estimate(model.denoiser, x.double(), rngs(1), model.condition([None]))
    assert got.bits == pytest.approx(whole.bits.item(), rel=1e-9)
    assert got.error == pytest.approx(whole.error.item(), rel=1e-9)
    assert [part.name for part in got.parts] == ["L_0", *4 * ["L_t"], "L_T"]
    steps = got.parts[1:-1]
    assert all(a.high == b.low for a, b in zip(steps, steps[1:]))
    squares_ = sum(part.error**2 for part in got.parts)
    assert got.error == pytest.approx(math.sqrt(squares_), rel=1e-9)
    assert bill.bills(replace_toll(got))["diffusion"] is got


def replace_toll(one: object) -> Found:
    part = type("Row", (), {"bill": None})()
    return Found(part, part, one)


# What the page shows


def test_everything_is_known_in_the_end_and_the_same_twice(found, x) -> None:
    first, *_, last = examine(tuple(map(tiny_model, NAMES)), x, STEPS, "dpm++2m", 5, 3)
    assert first.toll is None and first.done == 0
    assert last.done == last.of == 52 + 3 * STEPS
    assert bill.bills(last) == bill.bills(found)
    assert torch.equal(last.road.flow.states, found.road.flow.states)
    assert torch.equal(last.cloud.draws, found.cloud.draws)


def test_the_slider_passes_every_stop(found, x) -> None:
    ways = route.ways(found, x[0], STEPS)
    assert ways["vae"].places == [0] * 3 + [1] * 7 + [2] * 3
    down = [1, 1, 2, 3, 3, 3, 4]  # 1 + k levels kept, halves rounded to even
    assert ways["hvae"].places == [0, *down[-2::-1], *down[1:]]
    assert ways["flow"].places == list(range(2 * STEPS + 1))
    answer = route.routes(found, x[0], STEPS)
    sheet = png(answer["flow"]["sheet"])
    assert sheet.shape == (-(-3 * (2 * STEPS + 1) // 12) * 32, 12 * 32, 4)
    grey = ((x[0] + 1) * 127.5).round().permute(1, 2, 0).numpy()
    near = np.abs(sheet[:32, :32, :3].astype(float) - grey)
    assert near.max() <= 1  # x_start = α_start x_0
    file = route.table(found, x[0], STEPS)
    lines = base64.b64decode(file["url"].partition(",")[2]).decode().splitlines()
    assert len(lines) == 2 + 2 * STEPS and lines[1].startswith("0,1e-15,")


def test_psnr_and_spread_of_known_pictures() -> None:
    flat = torch.zeros(3, 4, 4)
    assert psnr(flat + 0.02, flat) == pytest.approx(40, abs=1e-6)
    assert psnr(flat, flat) == math.inf
    assert psnr(flat + 1.5, flat + 1) == math.inf  # both are white
    pair = torch.stack((flat, flat + 0.2))
    torch.testing.assert_close(apart(pair), torch.full((4, 4), 0.2 / math.sqrt(2)))
    assert not apart(pair[:1]).any()


def test_a_mosaic_has_its_tiles_in_their_places() -> None:
    tiles = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 2, 2, 3)
    sheet = png(mosaic([tiles[:1], tiles[1:]], 2, gap=1, scale=2))
    assert sheet.shape == (9, 9, 4)
    assert (sheet[:4, 5:] == [1, 1, 1, 255]).all() and (sheet[5:, :4] == [2, 2, 2, 255]).all()
    assert not sheet[4].any() and not sheet[5:, 5:].any()
    assert squares(tiles, 8).shape == (1, 8, 8, 3)


def test_maps_have_the_colours_that_are_told() -> None:
    values = torch.tensor([[[0.0, 1 / 3, 1.0, 2.0]]])
    assert heat(values)[0, 0].tolist() == [[0, 0, 0], [255, 0, 0], [255] * 3, [255] * 3]
    values = torch.tensor([[[-2.0, -1.0, 0.0, 1.0]]])
    blue = [44, 108, 147]
    assert diverging(values)[0, 0].tolist() == [blue, blue, [255] * 3, [181, 72, 45]]


def test_bars_are_as_long_as_their_parts() -> None:
    pieces = [Piece("s1", 1.0), Piece("s2", 2.0), Piece("s2", 0.5), Piece("s2", -1.0)]
    svg = stacked([Bar("a", pieces, 0.25, "3.5"), Bar("b", ())], "bits", 4.0)
    widths = [float(one.partition('"')[0]) for one in svg.split('width="')[1:]]
    unit = widths[0]
    assert widths[1:] == pytest.approx([2 * unit, unit / 2, 0], abs=0.02)
    assert unit == pytest.approx((620 - 84 - 96) / 4, abs=0.01)
    assert svg.count("gk-whisker") == svg.count("gk-sum") == 1
    assert shades(pieces) == [1.0, 1.0, 0.72, 0.5]


def test_the_page_gets_the_vaes_first_and_then_the_rest(handlers) -> None:
    events = list(handlers.run("en", None, 7, "book32_ddpm", "dpm++2m", STEPS))
    texts = [text for _, text in events if isinstance(text, str)]
    assert all("<" not in text for text in texts)
    answers = list(map(json.loads, texts))
    assert answers[0] == {"slots": {}}
    assert [sorted(one["rows"]) for one in answers[1:]] == [
        ["hvae", "vae"], ["hvae", "vae"], ["flow", "hvae", "noise", "vae"],
    ]  # fmt: skip
    assert sorted(answers[1]["files"]) == ["cloud", "levels", "spread"]
    last = answers[-1]
    rows = {}
    for name, file in last["files"].items():
        lines = base64.b64decode(file["url"].partition(",")[2]).decode().splitlines()
        assert len({line.count(",") for line in lines}) == 1, name
        rows[name] = len(lines) - 1
    counts = {"cloud": 64, "spread": 1024, "levels": 4, "bound": 3 + 5 + 7, "way": 13}
    assert rows == counts
    html = travel._road() + travel._bound() + travel._cloud() + travel._ladder()
    assert set(re.findall(r'data-part="([^"]+)"', html)) == set(last["slots"])
    assert "gk-busy" in events[-2][0] and "gk-busy" not in events[-1][0]


# The endpoint


def test_the_endpoint_tells_all_parts_and_the_same_twice(handlers) -> None:
    asked = {"seed": 7, "steps": 5, "draws": 4, "keep": 1, "importance": 3}
    first, last = handlers.compare(**asked)
    again = list(handlers.compare(**asked))[-1]
    assert not first["done"] and last["done"] and set(first["bounds"]) == {"vae", "hvae"}
    for key in ("bounds", "psnr", "psnr_of_levels", "kept", "importance"):
        assert last[key] == again[key]
    for one in last["bounds"].values():
        assert one["bits"] == pytest.approx(sum(part["bits"] for part in one["parts"]))
        assert one["nats"] == pytest.approx(one["bits"] * 3072 * math.log(2))
    assert set(last["psnr"]) == set(last["bounds"]) == {"vae", "hvae", "diffusion"}
    assert len(last["psnr_of_levels"]) == 4
    assert json.dumps(last, allow_nan=False)
    kept = png(last["kept"]["png"])
    assert kept.shape == (32, FEW * 32, 4) and last["kept"]["levels"] == 1
    whole = next(handlers.compare(**asked | {"keep": 3}))
    strip = png(whole["kept"]["png"])
    assert (strip[:, :32] == strip[:, 32:64]).all()  # all levels kept: always the same


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seed": -1}, "from 0 to"),
        ({"seed": None}, "not a number"),
        ({"seed": math.nan}, "not a number"),
        ({"model": "book32_vae"}, "unknown"),
        ({"model": ["book32_ddpm"]}, "unknown"),
        ({"solver": "heun"}, "unknown"),
        (
            {"steps": 1},
            "The number of sampler steps .* is 1, and must be a whole number from 2 to 50",
        ),
        ({"steps": 51}, "from 2 to 50"),
        ({"steps": 2.5}, "whole number"),
        ({"steps": math.inf}, "not a number"),
        ({"draws": 1}, "The number of draws .* is 1, and must be a whole number from 2 to 32"),
        ({"draws": 10**9}, "from 2 to 32"),
        ({"importance": 0}, "from 1 to 64"),
        ({"importance": 65}, "importance-weighted draws"),
        ({"importance": True}, "not a number"),
        ({"keep": -1}, "levels kept"),
        ({"keep": 4}, "levels kept .* is 4, and must be a whole number from 0 to 3"),
        ({"keep": "all"}, "not a number"),
        ({"image": "§"}, "base64"),
        ({"image": 7}, "base64"),
        ({"image": [0.5, math.nan]}, "base64"),
        ({"language": "xx"}, "unknown"),
    ],
)
def test_bad_values_are_a_sentence_in_both_languages(handlers, values, sentence) -> None:
    with pytest.raises(gr.Error, match=sentence):
        next(handlers.compare(**values))
    if "language" not in values:
        with pytest.raises(gr.Error, match="hãy"):
            next(handlers.compare(**values, language="vi"))
    if not {"image", "language", "importance", "keep", "draws"} & set(values):
        asked = {"seed": 7, "model": "book32_ddpm", "solver": "ddim", "steps": 3} | values
        order = [asked[name] for name in ("seed", "model", "solver", "steps")]
        with pytest.raises(gr.Error, match=sentence):
            list(handlers.run("en", None, *order))


def encoded(image: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def bomb() -> str:
    """A small PNG that says it has 100,000 × 100,000 pixels."""
    data = bytearray(base64.b64decode(encoded(RED, "PNG")))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return base64.b64encode(data).decode()


def turned() -> str:
    """Black on the left and white on the right, to be turned by a quarter."""
    image = Image.new("RGB", (64, 64), "white")
    image.paste("black", (0, 0, 32, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "PNG", exif=exif)


RED = Image.new("RGB", (40, 30), (255, 0, 0))
GREY16 = Image.fromarray(np.full((20, 20), 65535, np.uint16))
NAN = Image.fromarray(np.full((20, 20), math.nan, np.float32))


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (encoded(RED.convert("CMYK"), "JPEG", quality=95), (1, -1, -1)),
        (encoded(GREY16, "PNG"), (1, 1, 1)),
        (encoded(RED, "GIF", save_all=True, append_images=[Image.new("RGB", (40, 30))]), None),
        (encoded(Image.new("RGB", (1, 1), (255, 0, 0)), "PNG"), (1, -1, -1)),
        (encoded(RED.convert("RGBA"), "PNG"), (1, -1, -1)),
    ],
)
def test_odd_pictures_are_read(image, colour) -> None:
    x = Small(fake_studio(FakeTextToImage())).sent(image, 7)
    assert x.shape == (1, 3, 32, 32) and x.dtype == torch.float32
    levels = (x + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    for channel, value in enumerate(colour or (1, -1, -1)):
        assert (x[0, channel] - value).abs().max() < 0.05


def test_a_picture_is_turned_as_its_camera_was() -> None:
    x = Small(fake_studio(FakeTextToImage())).sent(turned(), 7)
    assert (x[0, :, 0] == -1).all() and (x[0, :, -1] == 1).all()


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (encoded(NAN, "TIFF"), "damaged"),
        (encoded(Image.new("RGB", (30_000, 1)), "PNG"), "30000×1"),
        (bomb(), "at most 16000000 pixels"),
        (base64.b64encode(b"%PDF-1.4").decode(), "not a picture"),
        (encoded(RED, "PNG")[:60] + "====", "damaged"),
    ],
)
def test_pictures_that_are_refused(handlers, image, sentence) -> None:
    with pytest.raises(gr.Error, match=sentence):
        next(handlers.compare(image=image))


# Checkpoints


def served(**models: object) -> Travel:
    studio = fake_studio(FakeTextToImage())
    return Travel(replace(studio, load_model=lambda name: models.get(name) or tiny_model(name)))


def test_a_checkpoint_of_another_family_or_size_is_a_sentence() -> None:
    with pytest.raises(TypeError, match="book32_vae is a HVAE, and a VAE is needed here"):
        fitting(tiny_model("book32_hvae"), VAE, "book32_vae", 32)
    large = HVAE((4, 2, 2), (1, 1, 1), (16, 16, 16), (1, 1, 1), mixture=2, size=64)
    with pytest.raises(ValueError, match="draws pictures of 64 × 64, and this page compares 32"):
        fitting(large, HVAE, "book32_hvae", 32)
    for models in (
        {"book32_vae": tiny_model("book32_hvae")},
        {"book32_hvae": large},
        {"book32_ddpm": tiny_model("book32_classifier")},
    ):
        name = next(iter(models))
        with pytest.raises(gr.Error, match=f"could not do this: {name}"):
            next(served(**models).compare())


def test_a_model_that_says_what_is_not_finite_is_told() -> None:
    net = PixelUNet(channels=(16, 16, 16), blocks=(1, 1, 1), heads=1, dim=16)
    torch.nn.init.constant_(net.out[-1].bias, math.nan)
    broken = PixelDiffusion(Denoiser(net, LinearBeta(), Epsilon()))
    with pytest.raises(gr.Error, match="not finite"):
        list(served(book32_ddpm=broken).compare(steps=2))
    vae = VAE(4, (16, 16, 16), (1, 1, 1), (1, 1, 1), mixture=2)
    torch.nn.init.constant_(vae.posterior[1].bias, math.nan)
    with pytest.raises(gr.Error, match="not finite"):
        list(served(book32_vae=vae).compare(steps=2))


def test_closing_the_handler_ends_the_work(handlers) -> None:
    """A step later nothing more is asked."""
    asked = []
    model = tiny_model("book32_ddpm")

    class Counting(Gaussians):
        def __call__(self, x_t: Tensor, t: Tensor, cond: object = None) -> Dirac:
            asked.append(len(x_t))
            return super().__call__(x_t, t, cond)

    events = road(Counting(LinearBeta()), torch.zeros(1, 3, 32, 32), 8, SOLVERS["ddim"], 1)
    next(events), next(events)
    events.close()
    assert asked == [1, 1] and isinstance(model, PixelDiffusion)
