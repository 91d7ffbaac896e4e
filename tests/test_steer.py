"""Steering without a browser: what the pictures are, what is measured of them, what is refused."""

import base64
import io
import json
import math

import gradio as gr
import numpy as np
import pytest
import torch
from fake import FakeTextToImage, fake_studio, tiny_model
from PIL import Image

from apps import steer as module
from apps.steer import KINDS, Steer, checked, run
from genkit.diffusion.grid import LogSNR
from genkit.diffusion.guide import ClassifierGuided, Clipped, Guided
from genkit.diffusion.sample import DPMPP2M, noise
from genkit.models.classifier import CLASSES


@pytest.fixture()
def steer() -> Steer:
    return Steer(fake_studio(FakeTextToImage()))


def steps(**changed):
    values = {"label": "sea, night", "scale": 4, "seed": 3, "model": "book32_guided", "steps": 3}
    request = checked(**(values | changed))
    return list(run(tiny_model(request.model), tiny_model("book32_classifier"), request))


@pytest.mark.parametrize("name", ["book32_guided", "book32_ddpm"])
def test_each_way_is_the_sampler_of_its_denoiser(name) -> None:
    model, classifier = tiny_model(name), tiny_model("book32_classifier")
    rngs = [torch.Generator().manual_seed(3 + i) for i in range(4)]
    x = noise(rngs, (3, 32, 32)) * model.denoiser.schedule.level(1.0).sigma
    cond, blank = model.condition(["sea, night"] * 4), model.condition([None])
    free = Guided(model.denoiser, 0, blank)
    ways = {
        "none": free,
        "classifier": ClassifierGuided(free, classifier, 4),
        "free": Guided(model.denoiser, 4, blank),
    }
    last = steps(model=name)[-1]
    for got, (kind, denoiser) in zip(last.pictures, ways.items()):
        expected = DPMPP2M(grid=LogSNR())(Clipped(denoiser), x, 3, cond)
        torch.testing.assert_close(got, expected, msg=kind)
    assert list(ways) == list(KINDS)
    end = classifier(last.pictures.flatten(0, 1), torch.zeros(12, dtype=torch.float64))
    expected = end.mean[:, CLASSES.index("sea, night")].reshape(3, 4)
    torch.testing.assert_close(last.chances, expected)


def test_all_start_alike_and_strength_0_and_1_are_what_they_say() -> None:
    first, *_, none = steps(scale=0)
    assert first.t == 1 and none.t == 0 and len(steps()) == 4
    assert torch.equal(first.chances[0], first.chances[1])
    assert torch.equal(first.chances[0], first.chances[2])
    torch.testing.assert_close(none.pictures[0], none.pictures[1])
    torch.testing.assert_close(none.pictures[0], none.pictures[2])
    *_, one = steps(scale=1)
    model = tiny_model("book32_guided")
    rngs = [torch.Generator().manual_seed(3 + i) for i in range(4)]
    x = noise(rngs, (3, 32, 32)) * model.denoiser.schedule.level(1.0).sigma
    cond = model.condition(["sea, night"] * 4)
    expected = DPMPP2M(grid=LogSNR())(Clipped(model.denoiser), x, 3, cond)
    torch.testing.assert_close(one.pictures[2], expected)


def test_the_classifier_is_pleased_where_it_steers() -> None:
    weak, strong = (steps(scale=scale, steps=10)[-1].chances.mean(dim=1) for scale in (0, 20))
    assert strong[1] > weak[1]


def test_the_largest_seed_goes_on_at_0() -> None:
    assert steps(seed=2**31 - 1)[-1].pictures.isfinite().all()


def test_the_page_gets_every_step(steer, monkeypatch) -> None:
    monkeypatch.setattr(module, "EVERY", -1.0)
    asked = ("sea, night", 4, 3, "book32_guided", 3)
    states = [(status, json.loads(text)) for status, text in steer.show("vi", *asked)]
    assert len(states) == 5 and "sheet" not in states[0][1]
    status, last = states[-1]
    assert "Done in" in status and "biển, ban đêm" in last["slots"]["steer.now"]
    data = base64.b64decode(last["sheet"].partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (4 * 32, 3 * 32)
    assert [len(row) for row in last["captions"]] == [4, 4, 4]
    assert "nan" not in last["slots"]["steer.chart"]
    csv = base64.b64decode(last["files"]["steer"]["url"].partition(",")[2]).decode().splitlines()
    assert len(csv) == 1 + 12 * 4 and csv[0] == "kind,picture,step,t,probability"


def test_the_endpoint_has_chances_for_every_time(steer) -> None:
    *_, answer = steer.steer("meadow, day", steps=2)
    assert answer["done"] and answer["t"][0] == 1 and answer["t"][-1] == 0
    chances = np.array([answer["chances"][kind] for kind in KINDS])
    assert chances.shape == (3, 3, 4) and ((chances >= 0) & (chances <= 1)).all()
    assert [len(answer["png"][kind]) for kind in KINDS] == [4, 4, 4]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"label": ""}, "unknown"),
        ({"label": "dragon"}, "unknown"),
        ({"label": None}, "unknown"),
        ({"scale": -1}, "from 0 to 100"),
        ({"scale": 101}, "from 0 to 100"),
        ({"scale": math.nan}, "not a number"),
        ({"scale": "4"}, "not a number"),
        ({"scale": True}, "not a number"),
        ({"seed": -1}, "from 0 to"),
        ({"seed": 2**31}, "from 0 to"),
        ({"steps": 0}, "from 1 to 100"),
        ({"steps": 101}, "from 1 to 100"),
        ({"steps": 2.5}, "whole number"),
        ({"model": "book32_classifier"}, "unknown"),
        ({"language": 7}, "unknown"),
    ],
)
def test_a_bad_value_is_a_sentence(steer, values, sentence) -> None:
    with pytest.raises(gr.Error, match=sentence):
        next(steer.steer(**({"label": "sea, night"} | values)))
    if "language" not in values:
        with pytest.raises(gr.Error, match="hãy"):
            next(steer.steer(**({"label": "sea, night"} | values), language="vi"))
