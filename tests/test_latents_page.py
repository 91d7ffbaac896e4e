"""The page 'Latents' without a browser: its handlers and endpoints, and what they refuse."""

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

from apps import build, claims, options, spaces
from apps.atlas import Atlas
from apps.legend import colour_of, described, value_name
from apps.line import Lines
from apps.maps import Maps
from apps.match import Match
from apps.spaces import ATTRIBUTES, ENCODERS, attribute
from apps.text import LANGUAGES
from genkit import probes
from genkit import spaces as cards
from genkit.data.picturebook import Scene, parse
from genkit.data.picturebook.scene import LABELS

FIRST = 210_000


@pytest.fixture(scope="module", autouse=True)
def _few(tmp_path_factory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(spaces, "COUNT", 120)
        patch.setattr(probes, "REDRAWN", 20)
        yield


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return Atlas(fake_studio(FakeTextToImage()))


def last(events) -> dict:
    """The last answer of a handler of the page."""
    *_, (_, answer) = events
    return json.loads(answer)


def file(image: Image.Image, kind: str = "PNG", **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


# What the page is given


def test_the_page_gets_everything_it_draws(atlas) -> None:
    answer = last(Maps(atlas).show("en"))
    assert answer["count"] == 120 and answer["first"] == FIRST
    assert list(answer["views"]["pca"]) == list(ENCODERS) and not answer["views"]["tsne"]
    points = np.frombuffer(base64.b64decode(answer["views"]["pca"]["vit"]), "<f4").reshape(-1, 2)
    where = atlas.kept.spaces["vit"]
    assert np.allclose(points, where.place(where.vectors), atol=1e-6)
    near = np.frombuffer(base64.b64decode(answer["near"]["vae"]), "<u2").reshape(-1, 8)
    assert np.array_equal(near, atlas.kept.spaces["vae"].near)
    assert answer["sheet"].startswith("data:image/webp")
    for name in ATTRIBUTES:
        one = answer["attributes"][name]
        assert len(one["names"]) == len(one["colours"]) == len(one["keys"])
    assert {f"truth.{one}" for one in claims.CLAIMS} < set(answer["slots"])
    assert set(answer["files"]) == {"probes", "claims"}


def test_the_page_and_the_cards_say_the_same(atlas) -> None:
    """Of the same scenes, by the metrics of which cards tell."""
    list(atlas.ready())
    for name in ("convnet", "vit", "contrastive"):
        model, aspects = tiny_model(ENCODERS[name].checkpoint), atlas.measured.aspects
        content, others = cards.nearness(model, 120, 0)
        for aspect, value in {"content": content, **others}.items():
            aspect, _, chance = aspect.partition(" by ")
            found = aspects[aspect][name]
            assert (found.chance if chance else found.value) == pytest.approx(value, abs=1e-9)
        _, shares = cards.probe(model, 120, 0)
        read = dict(zip(ATTRIBUTES, atlas.measured.probes[name]))
        both = set(LABELS) & set(ATTRIBUTES)
        assert len(both) == 8
        assert {k: read[k].value for k in both} == pytest.approx({k: shares[k] for k in both})


def test_everything_is_made_once(atlas, monkeypatch) -> None:
    last(Maps(atlas).show("en"))
    monkeypatch.setattr(spaces, "drawn", lambda count: pytest.fail("drawn again"))
    monkeypatch.setattr(probes, "linear_probe", lambda *_: pytest.fail("measured again"))
    frames = list(Maps(atlas).show("en"))
    assert len(frames) == 1


def test_tsne_is_added_to_the_views(atlas) -> None:
    maps = Maps(atlas)
    answer = last(maps.settle("en"))
    assert list(answer["views"]["tsne"]) == list(ENCODERS)
    found = last(maps.find("en", None, 5))
    assert np.isfinite(found["places"]["vit"]["tsne"]).all()


def test_colours_of_one_attribute_differ() -> None:
    scenes = [Scene.random(seed) for seed in range(3)]
    for name in ATTRIBUTES:
        one = attribute(name, scenes)
        assert len({colour_of(one, i) for i in range(len(one.classes))}) == len(one.classes)
        names = [value_name(one, i) for i in range(len(one.classes))]
        for language in LANGUAGES:
            assert len({pair[language] for pair in names}) == len(names)


def test_descriptions_are_true() -> None:
    for seed in range(212_000, 212_040):
        scene = Scene.random(seed)
        for language in LANGUAGES:
            parsed = parse(described(scene)[language])
            assert not parsed.unknown and all(check.ok for check in parsed.ask.check(scene))


# Pictures


def test_a_scene_of_the_book_is_not_its_own_neighbour(atlas) -> None:
    found = last(Maps(atlas).find("en", None, FIRST + 3))
    assert found["index"] == 3
    assert all(3 not in near for near in found["near"].values())
    where = atlas.kept.spaces["vae"]
    assert np.allclose(found["places"]["vae"]["pca"][0], where.place(where.vectors[3:4])[0])


def test_an_own_picture_is_placed_where_it_belongs(atlas) -> None:
    """The picture of a scene, sent as a file, finds that scene at no distance."""
    found = last(Maps(atlas).find("en", atlas.book.pictures[9].tobytes(), 1))
    assert found["index"] is None and found["seed"] is None
    assert {near[0] for near in found["near"].values()} == {9}
    assert found["places"]["vae"]["pca"][0] == pytest.approx(
        atlas.kept.spaces["vae"].place(atlas.kept.spaces["vae"].vectors[9]).tolist(), abs=1e-5
    )


def test_a_line_is_shown_with_its_decoded_points(atlas) -> None:
    answer = last(Lines(atlas).show("en", None, 1, None, 2))
    assert answer["slots"]["line.row.decoded"].count("<img") == 9
    assert answer["slots"]["line.row.vit"].count("<img") == 9
    assert len(answer["places"]["vit"]["pca"]) == 9
    rows = base64.b64decode(answer["files"]["line"]["url"].partition(",")[2]).decode()
    assert len(rows.splitlines()) == 1 + 4 * 9


def test_a_picture_prefers_a_caption_of_its_own_light(atlas) -> None:
    match = Match(atlas)
    night = next(s for s in atlas.book.scenes if s.time == "night" and s.ground == "sea")
    list(atlas.ready())
    query = atlas.query(night.seed, None)
    fits = match.judge(query, "the sea at night").user
    fails = match.judge(query, "a snow field by day").user
    assert fits and fails and fits.scores[0] > fails.scores[0] + 0.3
    judged = match.judge(query, "a dragon by the sea at night")
    assert judged.unknown == ("dragon",)
    assert all(atlas.book.scenes[i].time == "night" for i in judged.near[:4])
    scores = [np.mean(one.scores) for one in judged.best]
    assert scores == sorted(scores, reverse=True)


def test_what_a_visitor_writes_stays_text(atlas) -> None:
    answer = last(Match(atlas).show("en", None, 5, "<script>alert(1)</script> at night"))
    assert "<script>" not in answer["slots"]["match.bars"] + answer["slots"]["match.unknown"]
    assert "&lt;script&gt;" in answer["slots"]["match.bars"]
    empty = last(Match(atlas).show("en", None, 5, ""))
    assert "Yours" not in empty["slots"]["match.bars"]


# Missing checkpoints


def missing(*names: str) -> Atlas:
    def load(name: str):
        if name in names:
            raise FileNotFoundError(f"there is no checkpoint {name!r}")
        return tiny_model(name)

    return Atlas(replace(fake_studio(FakeTextToImage()), load_model=load))


def test_a_missing_encoder_leaves_a_sentence_and_the_others_work() -> None:
    atlas = missing("book32_vit", "book32_contrastive")
    answer = last(Maps(atlas).show("en"))
    assert answer["encoders"] == ["convnet", "vae"]
    assert "no checkpoint" in answer["slots"]["spaces.missing.vit"]
    assert "missing" in answer["slots"]["truth.identity"]
    assert set(last(Maps(atlas).find("en", None, 5))["near"]) == {"convnet", "vae"}
    with pytest.raises(gr.Error, match="book32_contrastive cannot be used"):
        list(Match(atlas).show("en", None, 5, "two pines"))
    found = list(Maps(atlas).spaces())[-1]
    assert "book32_vit" in found["missing"]["vit"]


def test_a_line_without_a_vae_has_no_decoded_row() -> None:
    answer = last(Lines(missing("book32_vae")).show("en", None, 1, None, 2))
    assert "line.row.decoded" not in answer["slots"] and "line.row.vit" in answer["slots"]


def test_without_any_checkpoint_the_page_opens_and_says_so() -> None:
    atlas = missing(*(one.checkpoint for one in ENCODERS.values()))
    *_, (status, answer) = Maps(atlas).show("vi")
    assert "Chưa có checkpoint" in status
    assert json.loads(answer)["encoders"] == []
    with pytest.raises(gr.Error, match="book32_convnet"):
        list(Maps(atlas).find("en", None, 5))


def test_an_encoder_of_nan_is_told() -> None:
    def load(name: str):
        model = tiny_model(name)
        if name == "book32_vit":
            broken = type(model)(16)
            broken.embed = lambda x: torch.full((len(x), 4), math.nan)
            return broken
        return model

    atlas = Atlas(replace(fake_studio(FakeTextToImage()), load_model=load))
    assert "not finite" in last(Maps(atlas).show("en"))["slots"]["spaces.missing.vit"]


# Over HTTP


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[Client]:
    blocks = build(fake_studio(FakeTextToImage()))
    _, url, _ = blocks.launch(**options(), prevent_thread_lock=True, server_name="127.0.0.1")
    yield Client(url, verbose=False, download_files=tmp_path_factory.mktemp("files"))
    blocks.close()


def test_the_endpoints_answer(client) -> None:
    found = client.predict("ground", "pca", api_name="/spaces")
    assert found["classes"] == ["meadow", "desert", "snow", "sea"]
    assert len(found["spaces"]["vae"]["points"]) == len(found["seeds"]) == 120
    assert found["claims"]["structure"]["encoder"] == "vae"
    near = client.predict(FIRST + 4, k=3, api_name="/neighbours")
    assert near["vit"]["seeds"] != [] and FIRST + 4 not in near["vit"]["seeds"]
    line = client.predict(1, 2, points=5, api_name="/line")
    assert len(line["vae"]["png"]) == len(line["vae"]["seeds"]) == 5
    match = client.predict(5, text="hai cây thông", api_name="/match")
    assert -1 <= match["text"] <= 1 and match["own"]["vi"]["caption"]


GREY16 = Image.fromarray((np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64))


@pytest.mark.parametrize(
    "image",
    [
        file(Image.new("CMYK", (40, 40), (0, 99, 20, 3)), "JPEG"),
        file(GREY16),
        file(Image.new("RGBA", (50, 30), (9, 9, 9, 100))),
        file(Image.new("RGB", (1, 1))),
        file(
            Image.new("P", (40, 40)), "GIF", save_all=True, append_images=[Image.new("P", (9, 9))]
        ),
    ],
)
def test_unusual_pictures_are_understood(atlas, image) -> None:
    *_, found = Maps(atlas).neighbours(0, image)
    assert len(found["vae"]["seeds"]) == 8


def test_a_photograph_is_turned_upright(atlas) -> None:
    image = Image.new("RGB", (64, 64), "white")
    image.paste("black", (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3
    turned, straight = file(image.rotate(180), exif=exif), file(image)
    places = [
        list(Maps(atlas).neighbours(0, one))[-1]["vae"]["place"] for one in (turned, straight)
    ]
    assert np.allclose(*places, atol=1e-4)


BAD = [
    ("/spaces", {"attribute": "colour"}, "unknown; choose one of time"),
    ("/spaces", {"view": "umap"}, "choose one of pca, tsne"),
    ("/spaces", {"language": "xx"}, "unknown"),
    ("/neighbours", {"k": 0}, "from 1 to 50"),
    ("/neighbours", {"k": 51}, "from 1 to 50"),
    ("/neighbours", {"k": 2.5}, "whole number"),
    ("/neighbours", {"k": math.nan}, "not a number"),
    ("/neighbours", {"k": True}, "not a number"),
    ("/neighbours", {"seed": math.nan}, "not a number"),
    ("/neighbours", {"seed": -1}, "from 0"),
    ("/neighbours", {"image": "§"}, "base64"),
    ("/neighbours", {"image": base64.b64encode(b"no picture").decode()}, "choose one of"),
    ("/neighbours", {"image": file(Image.new("RGB", (30_000, 1)))}, "30000×1"),
    ("/neighbours", {"image": file(Image.new("1", (5000, 5000)))}, "pixels"),
    ("/line", {"seed_a": 5, "seed_b": 5}, "same picture"),
    ("/line", {"points": 2}, "from 3 to 33"),
    ("/line", {"points": 34, "language": "vi"}, "hãy chọn lại"),
    ("/line", {"seed_b": "7"}, "not a number"),
    ("/match", {"text": "x" * 1001}, "at most 1000"),
    ("/match", {"text": "a\0b"}, r"U\+0000"),
    ("/match", {"text": "pine " * 201, "seed": 1}, "at most 1000|shorten"),
    ("/match", {"text": 7}, "not text"),
]


@pytest.mark.parametrize(("name", "values", "sentence"), BAD)
def test_what_is_refused_is_a_sentence(atlas, name, values, sentence) -> None:
    """As an API client's raw JSON reaches the handlers, which knows NaN."""
    maps, lines, match = Maps(atlas), Lines(atlas), Match(atlas)
    known = {"/spaces": maps.spaces, "/neighbours": maps.neighbours}
    known |= {"/line": lines.line, "/match": match.match}
    with pytest.raises(gr.Error, match=sentence):
        list(known[name](**values))


def test_a_refusal_reaches_the_client(client) -> None:
    with pytest.raises(Exception, match="from 1 to 50"):
        client.predict(k=0, api_name="/neighbours")
    assert client.predict(5, k=1, api_name="/neighbours")["vae"]["seeds"]


def test_a_line_between_a_picture_and_the_same_scene_is_refused(atlas) -> None:
    image = file(Scene.random(7).render(32))
    with pytest.raises(gr.Error, match="same picture"):
        list(Lines(atlas).line(7, 0, "", image))
