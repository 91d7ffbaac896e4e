"""What lies between pictures, without a browser: identities, and what is refused."""

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

from apps import blur, bridge, crossing, dreams, quartet, standings, traverse
from apps.quartet import FAMILIES, scenes
from apps.settings import Refused
from genkit.diffusion.sample import noise
from genkit.interpolation import lerp

STUDIO = fake_studio(FakeTextToImage())
X = scenes(5, 1)
NAMES = list(FAMILIES)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def file_of(picture: torch.Tensor) -> str:
    array = ((picture[0].permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).resize((128, 128), Image.Resampling.NEAREST).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def opened(url: str) -> np.ndarray:
    data = base64.b64decode(url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# --- what is drawn ------------------------------------------------------------------------------


def drawn(**changed):
    values = {"seed": 7, "count": 3, "temperature": 1.0, "families": NAMES} | changed
    return {row.family: row for row in dreams.draw(tiny_model, dreams.checked(**values))}


def test_a_picture_depends_on_its_own_seed_alone() -> None:
    rows, later = drawn(), drawn(seed=8, count=2)
    assert list(rows) == NAMES
    for name, row in rows.items():
        torch.testing.assert_close(row.pictures[1:], later[name].pictures, atol=1e-4, rtol=0)


def test_a_family_draws_by_its_own_prior() -> None:
    rows = drawn(temperature=0.5)
    vae = tiny_model("book32_vae")
    z = 0.5 * noise(generators(7, 8, 9), (4, 4, 4))
    expected = {
        "autoencoder": tiny_model("book32_autoencoder").sample(generators(7, 8, 9)),
        "vae": vae.decode([z]).mean,
        "diffusion": tiny_model("book32_ddpm").sample(generators(7, 8, 9)),
    }
    for name, pictures in expected.items():
        torch.testing.assert_close(rows[name].pictures, pictures.clamp(-1, 1), msg=name)
    cold = drawn(temperature=0, families=["hvae", "vae"])
    assert list(cold) == ["vae", "hvae"]
    for row in cold.values():  # the most probable picture is one
        torch.testing.assert_close(row.pictures, row.pictures[:1].expand(3, -1, -1, -1))


def test_seeds_go_round() -> None:
    last = 2**31 - 1
    torch.testing.assert_close(scenes(last, 2)[1], scenes(0, 1)[0])
    assert quartet.generators(last, 2)[1].initial_seed() == 0


def test_the_endpoint_of_the_dreams() -> None:
    *_, answer = dreams.Dreams(STUDIO).dreams(7, 2, 1.0, ["vae", "autoencoder"])
    assert answer["done"] and list(answer["families"]) == ["autoencoder", "vae"]
    row = drawn(count=2)["vae"]
    shown = opened(answer["families"]["vae"]["png"])
    assert shown.shape == (32, 64, 3)
    expected = ((row.pictures[1].permute(1, 2, 0) + 1) * 127.5).round().numpy()
    assert np.abs(shown[:, 32:].astype(float) - expected).max() <= 1
    json.dumps(answer, allow_nan=False)


# --- from one picture to another ----------------------------------------------------------------


def crossed(families=NAMES, b=6, count=5):
    request = crossing.checked(X, scenes(b, 1), count, families)
    return {way.family: way for way in crossing.cross(tiny_model, request) if way is not None}


def test_the_ends_are_what_the_model_makes_of_the_pictures() -> None:
    ways, ends = crossed(NAMES[:3]), torch.cat((X, scenes(6, 1)))
    with torch.no_grad():
        autoencoder = tiny_model("book32_autoencoder")
        expected = {"cross": ends, "autoencoder": autoencoder(ends).mean.clamp(-1, 1)}
        for name in ("vae", "hvae"):
            expected[name] = tiny_model(f"book32_{name}")(ends).picture.mean
    for name, pictures in expected.items():
        for path in range(2):
            got = ways[name].pictures[path][[0, -1]]
            torch.testing.assert_close(got, pictures, atol=2e-4, rtol=0, msg=name)
    assert torch.equal(ways["cross"].pictures[0], lerp(*ends, torch.linspace(0, 1, 5)))


def test_the_arc_keeps_the_length_and_the_line_does_not() -> None:
    for way in list(crossed(NAMES[:3]).values())[1:]:
        straight, arc = way.lengths.double()
        torch.testing.assert_close(
            arc, torch.linspace(*arc[[0, -1]], 5).double(), rtol=1e-4, atol=0
        )
        # |(a + b)/2|² = (|a|² + |b|² + 2|a||b| cos)/4
        a, b = straight[[0, -1]].tolist()
        half = (a * a + b * b + 2 * a * b * math.cos(math.radians(way.angle))) ** 0.5 / 2
        assert straight[2].item() == pytest.approx(half, rel=1e-4)
        assert way.half(0) == pytest.approx(half / ((a + b) / 2), rel=1e-4)


def test_the_codes_of_the_autoencoder_are_white() -> None:
    model = tiny_model("book32_autoencoder")
    z = model.mean + noise(generators(1, 2), (64,)) @ model.root.T
    white = crossing._white(model, z.reshape(2, 4, 4, 4))
    torch.testing.assert_close(white.flatten(1).float(), noise(generators(1, 2), (64,)),
                               atol=1e-4, rtol=0)  # fmt: skip


def test_diffusion_goes_through_noise_and_back(monkeypatch) -> None:
    monkeypatch.setattr(crossing, "STEPS", 3)
    events = list(crossing.cross(tiny_model, crossing.checked(X, scenes(6, 1), 3, ["diffusion"])))
    assert events.count(None) == 6 and events[-1].dims == 3 * 32 * 32
    assert events[-1].pictures.shape == (2, 3, 3, 32, 32)
    torch.testing.assert_close(*events[-1].pictures[:, [0, -1]], atol=1e-4, rtol=0)


def test_a_picture_with_itself_is_a_sentence() -> None:
    with pytest.raises(Refused, match="A and B are the same picture"):
        crossing.checked(X, X.clone(), 9, NAMES)
    endpoint = bridge.Bridge(STUDIO).between
    for same in ({"seed_a": 3, "seed_b": 3}, {"image_a": file_of(X), "image_b": file_of(X)}):
        with pytest.raises(gr.Error, match="the same picture"):
            next(endpoint(**same))
    with pytest.raises(gr.Error, match="cùng một bức tranh"):
        next(endpoint(seed_a=3, seed_b=3, language="vi"))


def test_the_endpoint_of_the_bridge() -> None:
    *_, answer = bridge.Bridge(STUDIO).between(file_of(X), 1, "", 6, 4, ["vae"])
    assert answer["done"] and list(answer["families"]) == ["cross", "vae"]
    line = opened(answer["families"]["cross"]["straight"]["png"])
    a = ((X[0].permute(1, 2, 0).numpy() + 1) * 127.5).round()
    assert np.abs(line[:, :32] - a).max() <= 1 and line.shape == (32, 128, 3)
    json.dumps(answer, allow_nan=False)


# --- one number at a time -----------------------------------------------------------------------


def strips(**changed):
    request = traverse.checked(X, **({"count": 3, "places": 5, "reach": 2.0} | changed))
    known, *units = traverse.walk(tiny_model("book32_vae"), request, census())
    return request, known, units


def census() -> traverse.Census:
    return traverse.census(tiny_model("book32_vae"), scenes(200_000, 12))


def test_the_numbers_are_ranked_by_what_they_say() -> None:
    model, pictures = tiny_model("book32_vae"), scenes(200_000, 12)
    with torch.no_grad():
        (level,) = model.encode(pictures)
    prior = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    posterior = torch.distributions.Normal(level.posterior.mean, level.posterior.std)
    said = torch.distributions.kl_divergence(posterior, prior).mean(dim=0)
    found = census()
    torch.testing.assert_close(found.divergence, said)
    ranked = [said[place].item() for place in found.ranked()]
    assert len(ranked) == 64 and ranked == sorted(ranked, reverse=True)


def test_a_strip_changes_one_number_alone() -> None:
    request, known, units = strips()
    model = tiny_model("book32_vae")
    with torch.no_grad():
        (level,) = model.encode(X)
        for unit, place in zip(units, known.ranked()):
            assert unit.place == place
            assert unit.own == pytest.approx(level.z[(0, *place)].item())
            assert unit.bits == pytest.approx(known.divergence[place].item() / math.log(2))
            z = level.z.clone()
            z[(0, *place)] = request.values[1]
            torch.testing.assert_close(unit.strip[1], model.decode([z]).mean[0], atol=1e-5, rtol=0)
            std = unit.strip.std(dim=0, unbiased=False)
            torch.testing.assert_close(unit.effect**2, (std**2).mean(dim=0))
    assert request.values.tolist() == [-2, -1, 0, 1, 2]


def test_the_endpoint_of_the_strips(monkeypatch) -> None:
    monkeypatch.setattr(traverse, "PICTURES", 8)
    handlers = traverse.Traverse(STUDIO)
    *_, answer = handlers.traverse("", 5, 2, 3, 3.0)
    assert answer["done"] and answer["values"] == [-3, 0, 3] and answer["dimensions"] == 64
    assert opened(answer["units"][0]["png"]).shape == (32, 96, 3)
    again = list(handlers.traverse("", 5, 2, 3, 3.0))
    assert again[-1] == answer
    json.dumps(answer, allow_nan=False)


# --- why the mean is soft -----------------------------------------------------------------------


def explained(**changed):
    values = {"picture": X, "seed": 1, "draws": 12, "kept": 4} | changed
    *_, found = blur.explain(tiny_model, blur.checked(**values))
    return found


def test_fine_energy_is_that_of_the_mean_and_of_the_disagreement() -> None:
    draws = noise(generators(*range(20)), (3, 32, 32))
    whole, mean, apart = blur.split(draws)
    assert whole == pytest.approx(mean + apart, rel=1e-9)
    # White noise: the mean of n draws has a share 1/n of the energy.
    assert mean / whole == pytest.approx(1 / 20, rel=0.1)
    # Parseval: all frequencies together are the sum of squares.
    coarse = draws.mean(dim=(2, 3), keepdim=True).expand_as(draws)
    assert blur.energy(coarse) == pytest.approx(0, abs=1e-9)


def test_the_prediction_meets_the_measurement_at_both_ends() -> None:
    points = blur._points(explained())
    assert [n for n, *_ in points] == [1, 2, 4, 8, 12]
    for n, measured, predicted in (points[0], points[-1]):
        assert measured == pytest.approx(predicted, rel=1e-6), n
    assert all(a[2] >= b[2] for a, b in zip(points, points[1:]))


def test_the_draws_keep_the_coarse_levels() -> None:
    found, model = explained(), tiny_model("book32_hvae")
    with torch.no_grad():
        coded = model.encode(X)
        given = [level.z for level in coded[:1]]
        expected = model.generate(generators(3), given)[1].mean
        torch.testing.assert_close(found.draws[2:3], expected, atol=1e-4, rtol=0)
        vae = tiny_model("book32_vae")(X).picture
    assert found.levels == (1, 3) and explained(kept=8).levels == (2, 3)
    torch.testing.assert_close(found.mean, vae.mean)
    torch.testing.assert_close(found.std**2, (vae.std[0] ** 2).mean(dim=0))


def test_a_picture_without_detail_has_no_shares() -> None:
    found = explained(picture=torch.zeros(1, 3, 32, 32))
    assert all(math.isnan(value) for value in found.fine().values())
    assert "nan" not in json.dumps(blur._numbers(found), allow_nan=False)
    assert "nan" not in blur._chart(found)


def test_the_endpoint_of_the_blur() -> None:
    *before, answer = blur.Blur(STUDIO).blur("", 5, 4, 8)
    assert [one["drawn"] for one in before] == [0, 4] and answer["done"]
    assert answer["kept"] == {"levels": 2, "of": 3}
    fine = answer["fine"]
    assert fine["draws"] == pytest.approx(fine["average"] + fine["apart"])
    assert np.shape(answer["sigma"]) == (32, 32)
    json.dumps(answer, allow_nan=False)


# --- the table ----------------------------------------------------------------------------------

ROWS = {
    "book32_vae": {"bits/dim": 2.5, "kind": "bound", "frechet": 9.0, "floor": 1.2, "n": 2000,
                   "precision": 0.5, "precision of real": 0.8, "sharpness": 0.4,
                   "parameters": 900_000, "training PFLOP": 8.0, "evaluations": 1},
    "book32_autoencoder": {"bits/dim": None, "kind": "undefined", "frechet": 20.0, "floor": 1.2,
                           "sharpness": 1.9, "parameters": 1_000_000, "training PFLOP": 10.0},
    "book32_ddpm": {"bits/dim": 2.0, "kind": "bound", "frechet": 3.0, "precision": 0.7,
                    "sharpness": 0.9, "parameters": 800_000, "training PFLOP": 9.0,
                    "evaluations": 10, "seconds alone": 0.25},
}  # fmt: skip


def written(tmp_path, rows):
    path = tmp_path / "families.json"
    path.write_text(json.dumps({"n": 2000, "families": rows}))
    return path


def test_the_best_of_a_line_is_bold(tmp_path) -> None:
    rows = standings.read(written(tmp_path, ROWS))
    assert list(rows) == ["book32_autoencoder", "book32_vae", "book32_ddpm"]
    html = standings.table(rows)
    for best in ("2.00", "3.00", "0.70", "0.90", "250"):
        assert f"<b>{best}" in html.replace('<span lang="en">', ""), best
    assert html.count("<b>") < html.count("<tr>") * 3
    assert "undefined" in html and "bound" in html and "real: " in html


def test_the_budgets_are_compared_in_words(tmp_path) -> None:
    rows = standings.read(written(tmp_path, ROWS))
    assert standings.apart(rows, "parameters") == pytest.approx(0.2)
    assert standings.apart(rows, "training PFLOP") == pytest.approx(0.2)
    assert math.isnan(standings.apart(rows, "training minutes"))
    # The plain autoencoder is no part of the match: 900,000 to 800,000, and 9 to 8.
    said = standings._fair(rows)
    assert "Of <bdi>VAE, diffusion</bdi> the parameters are equal within <bdi>12</bdi> %" in said
    assert "within <bdi>12</bdi> %." in said
    assert "had <bdi>111</bdi> % of that cost" in said
    assert "hierarchical VAE" in said


def test_a_table_that_is_not_there_or_broken_is_a_sentence(tmp_path) -> None:
    assert standings.read(tmp_path / "none.json") == {}
    for text in ("", "[]", '{"families": 3}', '{"families": {"book32_vae": 4}}', '{"n": 3}'):
        path = tmp_path / "families.json"
        path.write_text(text)
        with pytest.raises(ValueError, match="make it again"):
            standings.read(path)
        with gr.Blocks() as blocks:
            standings.section(path)
        assert "python -m benchmarks.families" in str(blocks.get_config_file())
    rows = standings.read(written(tmp_path, {"book32_vae": {}, "other": {"frechet": 1}}))
    assert list(rows) == ["book32_vae"] and "–" in standings.table(rows)
    assert math.isnan(standings.apart(rows, "parameters"))


# --- what is refused ----------------------------------------------------------------------------

BAD = {
    "dreams": (
        ({"seed": -1}, "from 0 to"),
        ({"count": 9}, "from 1 to 8"),
        ({"count": True}, "not a number"),
        ({"temperature": math.nan}, "not a number"),
        ({"temperature": 2.5}, "from 0 to 2"),
        ({"families": ["gan"]}, "unknown; choose one of"),
        ({"families": []}, "a list of 1 to 4"),
        ({"families": "vae"}, "a list of 1 to 4"),
        ({"language": "fr"}, "unknown"),
    ),
    "between": (
        ({"count": 2}, "from 3 to 25"),
        ({"seed_b": 1.5}, "whole number"),
        ({"image_b": "!!"}, "base64"),
        ({"image_a": base64.b64encode(b"no picture").decode()}, "PNG, JPEG"),
        ({"families": ["vae"] * 5}, "a list of 1 to 4"),
    ),
    "traverse": (
        ({"count": 0}, "from 1 to 16"),
        ({"places": 100}, "from 3 to 41"),
        ({"reach": math.inf}, "not a number"),
        ({"seed": "3"}, "not a number"),
    ),
    "blur": (
        ({"draws": 1}, "from 2 to 64"),
        ({"kept": 5}, "choose one of 4, 8"),
        ({"kept": math.nan}, "choose one of 4, 8"),
        ({"kept": [4]}, "choose one of 4, 8"),
        ({"seed": 2**31}, "from 0 to"),
    ),
}
HANDLERS = {
    "dreams": dreams.Dreams, "between": bridge.Bridge, "traverse": traverse.Traverse,
    "blur": blur.Blur,
}  # fmt: skip


@pytest.mark.parametrize(("name", "values", "match"),
                         [(n, *one) for n, all_of in BAD.items() for one in all_of])  # fmt: skip
def test_bad_input_is_a_sentence(name, values, match) -> None:
    handlers = HANDLERS[name](STUDIO)
    with pytest.raises(gr.Error, match=match) as told:
        next(iter(getattr(handlers, name)(**values)))
    assert str(told.value).count(". ") == 0 and "\n" not in str(told.value)


def test_a_checkpoint_of_another_family_or_size_is_a_sentence() -> None:
    with pytest.raises(TypeError, match="book32_vae is a HVAE, and must be a VAE"):
        quartet.load("vae", lambda name: tiny_model("book32_hvae"))

    large = tiny_model("book32_vae").__class__(channels=4, mixture=2, widths=(16, 16, 16), size=64)
    with pytest.raises(ValueError, match="draws 64×64 pixels, and this page compares 32×32"):
        quartet.load("vae", lambda name: large)


def test_numbers_that_are_not_finite_are_told() -> None:
    broken = tiny_model("book32_vae").__class__(channels=4, mixture=2, widths=(16, 16, 16))
    torch.nn.init.constant_(broken.decoder[0].weight, math.nan)
    with pytest.raises(FloatingPointError):
        next(dreams.draw(lambda name: broken, dreams.checked(1, 1, 1.0, ["vae"])))
