"""Text to picture: the order of events, what it costs, whom it disturbs, and what it refuses."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from jaxtyping import config
from torch import nn

from genkit import generate
from genkit.asked import LIMITS, MAX_SEED, SAMPLERS, SIZES, Manner
from genkit.diffusion.denoise import Denoiser, Flow
from genkit.diffusion.schedule import Rectified
from genkit.generate import Picture, Preview, TextToImage
from genkit.models.autoencoder import Autoencoder
from genkit.models.latent import LatentDiffusion
from genkit.models.text import TextEncoder, train_vocabulary
from genkit.nn.unet import UNet
from genkit.runtime import Runtime

FLOAT32 = Runtime(torch.device("cpu"), torch.float32, 1, "sdpa", ())
PROMPTS = (
    "a red house at night", "two pines", "một ngôi nhà đỏ", "a whale", "", "snow", "thuyền",
    "a red red red house",
)  # fmt: skip


def tiny(randomised: bool = True) -> LatentDiffusion:
    torch.manual_seed(1)
    text = TextEncoder(train_vocabulary(PROMPTS, 300), dim=16, layers=1, heads=2, tokens=5)
    unet = UNet(latent=4, channels=(16, 16), blocks=(1, 1), heads=(1, 1), text=16, dim=16)
    denoiser = Denoiser(unet, Rectified(3.0), Flow())
    model = LatentDiffusion(Autoencoder(4, (8, 8), (8, 8), (0, 0), (0, 0)), text, denoiser)
    for p in model.parameters() if randomised else ():
        if not p.any():
            nn.init.normal_(p, std=0.1)
    return model


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return TextToImage(tiny(), "tiny", FLOAT32)


@pytest.fixture()
def fast() -> Iterator[None]:
    """Without checks of annotations: what the module itself refuses, and with which words."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture()
def chatty(monkeypatch) -> None:
    """A preview at every step, however fast the steps are."""
    monkeypatch.setattr(generate, "PREVIEW_SECONDS", -1.0)
    monkeypatch.setattr(generate, "FEW", 1)


def pictures(events) -> list[Picture]:
    return [event for event in events if isinstance(event, Picture)]


def one(model: TextToImage, prompt: str = PROMPTS[0], seed: int = 7, **options) -> Picture:
    (picture,) = pictures(model([prompt], seeds=[seed], **({"steps": 3, "size": 64} | options)))
    return picture


def values(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


# --- events -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("chatty")
def test_previews_come_first_and_then_one_picture_a_prompt_in_order(model):
    events = list(model(PROMPTS[:3], seeds=[5, 6, 7], steps=4, size=64))
    previews, final = events[:3], events[3:]
    assert all(isinstance(event, Preview) for event in previews)
    assert [(p.step, p.steps, len(p.images)) for p in previews] == [(k, 4, 3) for k in (1, 2, 3)]
    assert all(isinstance(event, Picture) for event in final)
    assert [p.index for p in final] == [0, 1, 2] and [p.seed for p in final] == [5, 6, 7]
    assert tuple(p.prompt for p in final) == PROMPTS[:3]
    for picture in final:
        assert picture.image.mode == "RGB" and picture.image.size == (64, 64)
        assert picture.sha256 == hashlib.sha256(picture.image.tobytes()).hexdigest()
        assert picture.steps == 4 and 0 <= picture.seconds < 300
    assert all(image.size == (64, 64) for p in previews for image in p.images)


@pytest.mark.usefixtures("chatty")
def test_a_preview_shows_the_estimate_of_its_step(model):
    """With one step to go, x̂_0 is nearly the picture; one step alone has no preview."""
    events = list(model(PROMPTS[:1], seeds=[3], steps=30, size=64, sampler="ddim"))
    final = values(events[-1])
    distances = [np.abs(np.asarray(e.images[0]).astype(int) - final).mean() for e in events[:-1]]
    assert distances[-1] < 0.2 * distances[0]
    assert len(list(model(PROMPTS[:1], steps=1, size=64))) == 1


def test_previews_are_rare_where_steps_are_fast(model, monkeypatch):
    monkeypatch.setattr(generate, "PREVIEW_SECONDS", 1e9)
    events = list(model(PROMPTS[:1], steps=10, size=64))
    assert [type(event) for event in events] == [Preview, Picture]
    assert [type(event) for event in model(PROMPTS[:1], steps=8, size=64)] == [Picture]


@pytest.mark.parametrize(
    ("options", "nfe"),
    [
        ({"steps": 20}, 40),
        ({"steps": 20, "guidance": 1.0}, 20),
        ({"steps": 20, "guidance": 0}, 20),
        ({"steps": 5, "sampler": "heun"}, 2 * (2 * 5 - 1)),
        ({"steps": 5, "sampler": "heun", "guidance": 1}, 2 * 5 - 1),
        ({"steps": 7, "sampler": "ddim"}, 14),
        ({"steps": 7, "sampler": "euler"}, 14),
        ({"steps": 7, "sampler": "ddpm"}, 14),
        ({"steps": 1}, 2),
    ],
)
def test_what_a_picture_costs(model, options, nfe, monkeypatch):
    """nfe is counted in the sampler and, once more, by the U-Net itself."""
    rows = []
    unet = model.model.denoiser.backbone
    handle = unet.register_forward_hook(lambda _, arguments, __: rows.append(len(arguments[0])))
    try:
        assert one(model, **options).nfe == nfe
    finally:
        handle.remove()
    assert sum(rows) == nfe


def test_a_model_knows_its_name_and_its_hash(tmp_path):
    tiny().save_pretrained(tmp_path / "small")
    loaded = TextToImage.from_pretrained(str(tmp_path / "small"), FLOAT32)
    assert loaded.name == str(tmp_path / "small")
    assert loaded.sha256 == loaded.model.sha256 and len(loaded.sha256) == 64
    assert one(loaded).sha256 == one(TextToImage(tiny(), "tiny", FLOAT32)).sha256
    tiny().autoencoder.save_pretrained(tmp_path / "coder")
    with pytest.raises(ValueError, match="coder is a checkpoint of Autoencoder.*book128_latent"):
        TextToImage.from_pretrained(str(tmp_path / "coder"))


# --- determinism --------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_is_a_picture(model, sampler):
    first, other = one(model, sampler=sampler), one(model, sampler=sampler, seed=8)
    torch.manual_seed(99)
    torch.rand(5)
    again = one(model, sampler=sampler)
    assert first.sha256 == again.sha256 != other.sha256
    assert np.array_equal(values(first), values(again))


@pytest.mark.parametrize("sampler", ["dpm++2m", "ddpm", "heun"])
def test_alone_or_in_a_batch_of_eight(model, sampler, monkeypatch):
    """The numbers before rounding agree to 1e-5, with a random sampler, too."""
    decoded = []
    decode = model.model.decode
    monkeypatch.setattr(
        model.model, "decode", lambda z: decoded.append(decode(z).mean) or decode(z)
    )
    monkeypatch.setattr(generate, "PREVIEW_SECONDS", 1e9)
    together = pictures(model(PROMPTS, seeds=range(8), steps=5, size=64, sampler=sampler))
    batch = decoded[-1]
    for i in (0, 3, 4, 7):
        alone = one(model, PROMPTS[i], i, steps=5, sampler=sampler)
        torch.testing.assert_close(decoded[-1][0], batch[i], atol=1e-5, rtol=0)
        assert np.abs(values(alone) - values(together[i])).max() <= 1


def test_alone_or_in_a_batch_of_eight_in_bfloat16():
    half = TextToImage(tiny(), "half", Runtime(FLOAT32.device, torch.bfloat16, 1, "sdpa", ()))
    together = pictures(half(PROMPTS, seeds=range(8), steps=5, size=64))
    for i in (0, 7):
        error = values(one(half, PROMPTS[i], i, steps=5)) - values(together[i])
        assert 10 * np.log10(255**2 / max(1e-9, np.square(error).mean())) >= 40


@pytest.mark.parametrize(
    ("count", "guidance", "threads"), [(1, 1.0, 1), (1, 3.0, 1), (2, 1.0, 1), (2, 3.0, 2)]
)
def test_few_rows_in_bfloat16_wake_one_thread(count, guidance, threads):
    """Guidance makes two rows of every picture."""
    before, asked = torch.get_num_threads(), set()
    half = TextToImage(tiny(), "half", Runtime(FLOAT32.device, torch.bfloat16, 2, "sdpa", ()))
    backbone = half.model.denoiser.backbone
    backbone.register_forward_hook(lambda *_: asked.add(torch.get_num_threads()))
    options = {"seeds": range(count), "steps": 2, "guidance": guidance, "size": 64}
    list(half(PROMPTS[:count], **options))
    assert asked == {threads} and torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.usefixtures("chatty")
def test_interleaved_requests_do_not_disturb_each_other(model):
    options = {"steps": 4, "size": 64, "sampler": "ddpm"}
    alone = [one(model, PROMPTS[i], i, **options).sha256 for i in (0, 1)]
    streams = [model([PROMPTS[i]], seeds=[i], **options) for i in (0, 1)]
    events = ([], [])
    for first, second in zip(*streams, strict=True):
        events[0].append(first)
        events[1].append(second)
    assert [pictures(e)[0].sha256 for e in events] == alone
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


# --- what is asked matters ----------------------------------------------------------------------


def test_prompt_guidance_and_negative_have_an_effect(model):
    plain = one(model)
    for change in (
        {"guidance": 6.0},
        {"guidance": 1.0},
        {"negative": "two pines"},
        {"steps": 4},
        {"prompt": "a whale"},
    ):
        assert one(model, **change).sha256 != plain.sha256, change


def test_guidance_towards_what_is_avoided_is_no_guidance(model):
    """x̂_0(cond) − x̂_0(negative) = 0 where both are one text, whatever the scale."""
    same = one(model, "a whale", negative="a whale", guidance=9.0)
    assert np.abs(values(same) - values(one(model, "a whale", guidance=1.0))).max() <= 1
    unconditional = one(model, "a whale", negative="snow", guidance=0.0)
    assert unconditional.sha256 == one(model, "snow", guidance=1.0).sha256


def test_a_fresh_net_ignores_the_prompt():
    fresh = TextToImage(tiny(randomised=False), "fresh", FLOAT32)
    hashes = {one(fresh, prompt).sha256 for prompt in PROMPTS[:3]}
    assert len(hashes) == 1


@pytest.mark.parametrize("size", [64, 128, 256])
def test_sizes(model, size):
    picture = one(model, size=size, steps=2)
    assert picture.image.size == (size, size) and size in SIZES


# --- stop ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("chatty")
def test_closing_the_generator_stops_within_a_step(model):
    calls = []
    backbone = model.model.denoiser.backbone
    handle = backbone.register_forward_hook(lambda *_: calls.append(1))
    try:
        events = model(PROMPTS[:2], seeds=[1, 2], steps=100, size=64)
        assert calls == []  # nothing is done before it is asked for
        for _ in range(3):
            next(events)
        events.close()
        assert len(calls) == 3 * 2  # in float32 each of the two pictures is answered alone
        assert one(model).nfe == 6  # the next request works
    finally:
        handle.remove()


# --- what cannot be drawn -----------------------------------------------------------------------


def test_weights_that_are_not_finite_are_told():
    broken = tiny()
    with torch.no_grad():
        broken.denoiser.backbone.stem[0].weight[0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite.*another seed"):
        list(TextToImage(broken, "broken", FLOAT32)(PROMPTS[:1], steps=2, size=64))


NAN = float("nan")
REFUSED = [
    ({"prompts": "a red house"}, "a red house"),
    ({"prompts": ()}, "is 0: .* 1 to 64"),
    ({"prompts": ("x",) * 65, "seeds": (0,) * 65}, "is 65: .* 1 to 64"),
    ({"prompts": ("x" * 1001,)}, "is 1001: .* 0 to 1000"),
    ({"prompts": ("x" * 100_000,)}, "is 100000: "),
    ({"prompts": (3,)}, "A prompt is 3"),
    ({"prompts": (None,)}, "A prompt is None"),
    ({"prompts": (b"night",)}, "A prompt is b'night'"),
    ({"negative": "y" * 1001}, "is 1001: "),
    ({"negative": None}, "None"),
    ({"seeds": ()}, "0 seeds for 1 prompts"),
    ({"seeds": (1, 2)}, "2 seeds for 1 prompts"),
    ({"seeds": (-1,)}, "seed -1 "),
    ({"seeds": (2**31,)}, "seed 2147483648 "),
    ({"seeds": (10**400,)}, "seed 1000"),
    ({"seeds": (1.0,)}, "seed 1.0 "),
    ({"seeds": (True,)}, "seed True "),
    ({"seeds": ("7",)}, "seed '7' "),
    ({"seeds": (NAN,)}, "seed nan "),
    ({"steps": 0}, "steps is 0: .* 1 to 100"),
    ({"steps": -4}, "steps is -4"),
    ({"steps": 101}, "steps is 101"),
    ({"steps": 10**30}, "steps is 1000"),
    ({"steps": 20.0}, "steps is 20.0"),
    ({"steps": NAN}, "steps is nan"),
    ({"steps": True}, "steps is True"),
    ({"steps": "20"}, "steps is '20'"),
    ({"guidance": NAN}, "guidance is nan"),
    ({"guidance": float("inf")}, "guidance is inf"),
    ({"guidance": -0.5}, "guidance is -0.5: .* 0 to 20"),
    ({"guidance": 20.5}, "guidance is 20.5"),
    ({"guidance": 1e300}, "guidance is 1e\\+300"),
    ({"guidance": True}, "guidance is True"),
    ({"guidance": "3"}, "guidance is '3'"),
    ({"sampler": "magic"}, "sampler 'magic' .*dpm\\+\\+2m, .*ddim, euler, .*heun, ddpm"),
    ({"sampler": ""}, "sampler '' "),
    ({"size": 0}, "size 0 .*16 from 64 to 256"),
    ({"size": 120}, "size 120 "),
    ({"size": 512}, "size 512 "),
    ({"size": 128.0}, "size 128.0 "),
    ({"size": True}, "size True "),
    ({"size": "128"}, "size '128' "),
    ({"size": NAN}, "size nan "),
]
UNTOLD = [
    ({"prompts": None}, "None"),
    ({"prompts": 3}, "3"),
    ({"seeds": None}, "None"),
    ({"seeds": 7}, "7"),
    ({"sampler": ["ddim"]}, "ddim"),
    ({"sampler": {"ddim": 1}}, "ddim"),
    ({"guidance": 10**400}, "guidance"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=lambda value: str(value)[:40])
@pytest.mark.usefixtures("fast")
def test_bad_arguments_are_refused_with_their_value(model, change, words):
    calls = []
    handle = model.model.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    arguments = {"prompts": ("a red house",), "seeds": (0,)} | change
    try:
        with pytest.raises((ValueError, TypeError), match=words) as refusal:
            list(model(**arguments))
    finally:
        handle.remove()
    sentence = str(refusal.value)
    assert calls == [] and sentence.endswith(".") and "\n" not in sentence
    assert len(sentence) < 200 or change == {"seeds": (10**400,)}
    assert one(model).nfe == 6


@pytest.mark.parametrize(("change", "word"), UNTOLD, ids=lambda value: str(value)[:40])
@pytest.mark.usefixtures("fast")
def test_arguments_of_another_kind_are_refused_in_a_sentence(model, change, word):
    arguments = {"prompts": ("a red house",), "seeds": (0,)} | change
    with pytest.raises((ValueError, TypeError, OverflowError)) as refusal:
        list(model(**arguments))
    sentence = str(refusal.value)
    assert word in sentence and sentence.endswith(".")


def test_the_limits_are_those_that_are_told(model):
    """The extreme values of every range are drawn."""
    assert LIMITS["pictures"] == (1, 64) and MAX_SEED == 2**31 - 1
    assert one(model, steps=100, guidance=20.0).nfe == 200
    assert one(model, seed=MAX_SEED, guidance=0).nfe == 3
    many = pictures(model(("x",) * 64, seeds=range(64), steps=1, size=64))
    assert [p.seed for p in many] == list(range(64))


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        " \n\t ",
        "\0\x07\x1b[31m red",
        "🐉🐉 a red house 🏠",
        "بيت أحمر في الليل",
        "\u202ered\u202c",
        "nha\u0300 đo\u0309",
        "red " * 60,
    ],
    ids=lambda text: ascii(text)[:24],
)
def test_odd_prompts_are_drawn(model, prompt):
    assert one(model, prompt).prompt == prompt


def test_half_a_character_is_refused_with_its_value(model):
    """JSON can carry a lone surrogate, which is no Unicode text."""
    with pytest.raises(ValueError, match="ud800"):
        one(model, "a red \ud800 house")


@pytest.mark.parametrize("where", ["prompt", "negative"])
def test_a_text_with_more_word_pieces_than_are_read_is_refused_in_a_sentence(model, where):
    """1,000 characters are allowed, but unknown words fall into letters: 97 are too many."""
    long = "qzx " * 33
    assert len(long) <= 1000
    with pytest.raises(ValueError, match="'qzx qzx .* has 99 word pieces, at most 96.*shorten it"):
        one(model, **{where: long})
    assert one(model, **{where: "qzx " * 32}).nfe == 6


def test_what_is_not_told_is_as_the_model_draws_best(model):
    quick = TextToImage(model.model, "quick", FLOAT32, Manner(4, 1.0, "euler"))
    same = one(model, steps=4, guidance=1.0, sampler="euler")
    assert (picture := next(e for e in quick(["a red house"]) if isinstance(e, Picture))).nfe == 4
    again = next(e for e in model(["a red house"], steps=4, guidance=1.0, sampler="euler")
                 if isinstance(e, Picture))  # fmt: skip
    assert picture.sha256 == again.sha256 and same.steps == picture.steps == 4
