"""The race of samplers without a browser: its numbers against closed forms, what it refuses."""

import base64
import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest
import torch
from fake import FakeTextToImage, fake_studio, tiny_model
from gradio_client import Client
from PIL import Image

from apps import build, contest, options, scoreboard
from apps import race as module
from apps.contest import FLOOR, GRIDS, THEORY, Result, checked, order, run
from apps.figure import Across, Curve, Frame, chart
from apps.race import EVALUATIONS, Race
from genkit.asked import SAMPLERS
from genkit.diffusion.guide import Clipped
from genkit.diffusion.sample import DPMPP2M, noise
from genkit.diffusion.schedule import LinearBeta
from genkit.distributions import Dirac

SMALL = {"samplers": ["euler", "heun", "unipc"], "evaluations": [2, 4, 5]}


@pytest.fixture(autouse=True)
def _short(monkeypatch) -> None:
    for place in (contest, module, scoreboard):
        monkeypatch.setattr(place, "REFERENCE", 30)
    monkeypatch.setattr(module, "EVERY", 0.0)


@pytest.fixture()
def race() -> Race:
    return Race(fake_studio(FakeTextToImage()))


def request(**changed):
    values = {"seed": 3, "model": "book32_ddpm", "label": "sea, night", "grid": "logsnr"}
    return checked(**(values | SMALL | changed))


# Numbers


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_the_order_of_a_power_law_is_its_exponent(p) -> None:
    points = [(n, 4e6 * n**-p) for n in EVALUATIONS if 4e6 * n**-p > FLOOR]
    assert order(points) == pytest.approx(p, rel=1e-9)
    few = [(n, 1e9) for n in EVALUATIONS if n < 10]  # what is early has no say
    assert order([*few, *[(n, e) for n, e in points if n >= 10]]) == pytest.approx(p, rel=1e-9)
    flat = [*points, *((n, FLOOR / 2) for n in (60, 80, 100))]  # nor what is rounding
    assert order(flat) == pytest.approx(p, rel=1e-9)


def test_too_few_points_have_no_order() -> None:
    assert math.isnan(order([])) and math.isnan(order([(10, 1.0), (20, 0.5)]))
    assert math.isnan(order([(n, math.nan) for n in EVALUATIONS]))


def test_the_reference_and_every_run_are_the_samplers_own() -> None:
    """From the seed's noise, with the class, clipped: to the last bit."""
    model, asked = tiny_model("book32_ddpm"), request()
    events = list(run(model, asked))
    reference = next(event for event in events if isinstance(event, torch.Tensor))
    x = noise([torch.Generator().manual_seed(3)], (3, 32, 32))
    x = x * model.denoiser.schedule.level(1.0).sigma
    denoiser, cond = Clipped(model.denoiser), model.condition(["sea, night"])
    expected = DPMPP2M(grid=GRIDS["logsnr"])(denoiser, x, 30, cond)
    assert torch.equal(reference, expected)
    results = {(e.sampler, e.evaluations): e for e in events if isinstance(e, Result)}
    assert len(results) == 9
    unipc = replace(SAMPLERS["unipc"], grid=GRIDS["logsnr"])(denoiser, x, 5, cond)
    assert torch.equal(results["unipc", 5].picture, unipc)
    # Heun evaluates twice in all steps but the last.
    assert [results["heun", n].nfe for n in (2, 4, 5)] == [1, 3, 5]
    euler = replace(SAMPLERS["euler"], grid=GRIDS["logsnr"])(denoiser, x, 1, cond)
    assert torch.equal(results["heun", 2].picture, euler)


def test_the_error_is_the_deviation_in_grey_levels(race) -> None:
    *_, answer = race.race(**SMALL, seed=3)
    assert answer["done"] and len(answer["results"]) == 9

    def picture(url):
        file = io.BytesIO(base64.b64decode(url.partition(",")[2]))
        return np.asarray(Image.open(file)).astype(float)

    truth = picture(answer["reference"]["png"])
    for one in answer["results"]:
        apart = math.sqrt(np.square(picture(one["png"]) - truth).mean())
        assert one["error"] == pytest.approx(apart, abs=0.6)  # pixels are rounded
        assert one["seconds"] > 0
    errors = {n: e["error"] for e in answer["results"] if e["sampler"] == "euler"
              for n in [e["nfe"]]}  # fmt: skip
    assert errors[5] < errors[2]


@pytest.mark.parametrize("model", ["book32_ddpm", "book32_guided"])
@pytest.mark.parametrize("grid", GRIDS)
def test_every_model_and_grid_runs(race, model, grid) -> None:
    *_, answer = race.race(model=model, grid=grid, samplers=list(THEORY)[:6],
                           evaluations=[1, 3])  # fmt: skip
    assert all(math.isfinite(one["error"]) for one in answer["results"])


def test_the_reference_is_made_once(race, monkeypatch) -> None:
    calls = []
    original = module.run
    monkeypatch.setattr(module, "run", lambda m, r, k: calls.append(k) or original(m, r, k))
    for changed in ({}, {}, {"samplers": ["deis"]}, {"seed": 4}, {"grid": "karras"}):
        list(race.race(**({"evaluations": [1], "samplers": ["euler"]} | changed)))
    assert calls == [False, True, True, False, False]
    for seed in range(20):
        race._remember((seed,), torch.zeros(1, 3, 32, 32))
    assert len(race._references) == module.KEPT


# What the page is given


def test_the_page_gets_the_race_while_it_goes_on(race, monkeypatch) -> None:
    monkeypatch.setattr(module, "EVALUATIONS", (1, 2, 3, 5, 10))
    values = (3, "book32_ddpm", "", ["euler", "heun"], "logsnr")
    states = [(status, json.loads(text)) for status, text in race.show("vi", *values)]
    assert "lần gọi mạng" in states[1][0] and "sheet" not in states[1][1]
    status, last = states[-1]
    assert "Done in" in status and "width:100%" in status
    assert last["columns"] == [1, 2, 3, 5, 10] and last["names"] == [
        ["euler", "s1"],
        ["heun", "s2"],
    ]
    assert all(all(row) for row in last["captions"]) and len(last["says"]) == 5
    assert "closest" in last["says"][3] and "gần tham chiếu nhất" in last["says"][3]
    url = last["sheet"].partition(",")[2]
    sheet = Image.open(io.BytesIO(base64.b64decode(url)))
    assert sheet.size == (5 * 32, 3 * 32) and sheet.format == "PNG"
    csv = base64.b64decode(last["files"]["race"]["url"].partition(",")[2]).decode().splitlines()
    assert csv[0].startswith("sampler,evaluations,nfe,error") and len(csv) == 1 + 2 * 5
    filled = [sum(bool(one) for row in a["captions"] for one in row) for _, a in states]
    assert filled == sorted(filled) and filled[-1] == 10


def test_stopping_ends_the_run(race) -> None:
    ended, run = [], race._run

    def watched(*asked: object) -> Iterator[object]:
        try:
            yield from run(*asked)
        finally:
            ended.append(True)

    race._run = watched
    states = race.show("en", 3, "book32_ddpm", "", ["euler"], "logsnr")
    next(states), next(states)
    assert not ended
    states.close()
    assert ended and not race._references


def test_a_chart_has_logarithmic_axes_and_names_that_do_not_touch() -> None:
    curves = [Curve(f"s{i}", [1, 10, 100], [100, 10, 1 + i / 100], label=f"m{i}") for i in (1, 2)]
    drawn = chart(curves, "e", True, Across((1, 10, 100), log=True), frame=Frame(540, 300, 74),
                  now=False)  # fmt: skip
    assert "gk-now" not in drawn and "#" not in drawn
    first = drawn.split('points="')[1].split('"')[0].split()
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in first)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y1 - y0 == pytest.approx(y2 - y1, abs=1)
    places = [float(part.split('y="')[1].split('"')[0])
              for part in drawn.split("gk-name-of")[1:]]  # fmt: skip
    assert abs(places[0] - places[1]) >= 15


# Refusals


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seed": -1}, "from 0 to"),
        ({"seed": 1.5}, "whole number"),
        ({"seed": True}, "not a number"),
        ({"seed": math.nan}, "not a number"),
        ({"model": "book128_latent"}, "unknown"),
        ({"model": None}, "unknown"),
        ({"label": "sea"}, "unknown"),
        ({"label": None}, "unknown"),
        ({"grid": "leading"}, "unknown"),
        ({"grid": ["logsnr"]}, "unknown"),
        ({"samplers": []}, "list of 1 to 6"),
        ({"samplers": "euler"}, "list of 1 to 6"),
        ({"samplers": ["euler"] * 7}, "list of 1 to 6"),
        ({"samplers": ["ddpm"]}, "unknown"),
        ({"samplers": [{}]}, "unknown"),
        ({"evaluations": []}, "list of 1 to 20"),
        ({"evaluations": 5}, "list of 1 to 20"),
        ({"evaluations": list(range(1, 22))}, "list of 1 to 20"),
        ({"evaluations": [0]}, "from 1 to 200"),
        ({"evaluations": [201]}, "from 1 to 200"),
        ({"evaluations": [2.5]}, "whole number"),
        ({"evaluations": ["5"]}, "not a number"),
        ({"language": "xx"}, "unknown"),
    ],
)
def test_a_bad_value_is_a_sentence(race, values, sentence) -> None:
    with pytest.raises(gr.Error, match=sentence):
        next(race.race(**(SMALL | values)))
    if "language" not in values:
        with pytest.raises(gr.Error, match="hãy"):
            next(race.race(**(SMALL | values), language="vi"))


def test_the_endpoint_answers_over_http_and_works_again_after_a_refusal() -> None:
    blocks = build(fake_studio(FakeTextToImage()), "noise")
    _, url, _ = blocks.launch(**options(), prevent_thread_lock=True, server_name="127.0.0.1")
    try:
        client = Client(url, verbose=False)
        with pytest.raises(Exception, match="hãy"):
            client.predict(seed=-1, language="vi", api_name="/race")
        got = client.predict(samplers=["deis"], evaluations=[3], api_name="/race")
        got = got if got["done"] else client.submit(
            samplers=["deis"], evaluations=[3], api_name="/race").outputs()[-1]  # fmt: skip
        assert got["results"][0]["nfe"] == 3 and got["orders"]["deis"]["fitted"] is None
        with pytest.raises(Exception, match="unknown"):
            client.predict("nowhere", api_name="/steer")
        got = client.predict("sea, night", steps=2, api_name="/steer")
        assert set(got["chances"]) == {"none", "classifier", "free"}
    finally:
        blocks.close()


@pytest.mark.parametrize("grid", sorted(GRIDS))
def test_all_samplers_have_one_limit(grid) -> None:
    """With a denoiser that is linear and smooth only the ends of a grid could tell them apart."""
    model = Linear()
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    ends = [
        replace(SAMPLERS[name], grid=GRIDS[grid])(model, x, 400) for name in ("dpm++2m", "heun")
    ]
    apart = 127.5 * (ends[0] - ends[1]).square().mean().sqrt()
    assert apart < 0.05


class Linear:
    """x̂_0 of data that are N(0, ¼ I), on DDPM's schedule."""

    passes = 1
    schedule = LinearBeta()

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor, cond: dict | None = None) -> Dirac:
        alpha, sigma = (c.to(x_t)[:, None, None, None] for c in self.schedule(t))
        return Dirac(alpha / 4 / (alpha.square() / 4 + sigma.square()) * x_t)


def test_a_race_that_is_too_long_is_refused(race) -> None:
    with pytest.raises(gr.Error, match="takes 3810 evaluations in all, and at most 3000"):
        next(race.race(samplers=["euler"], evaluations=list(range(181, 201))))
