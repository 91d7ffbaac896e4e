"""Encoders: what the two towers minimise, what a vector may depend on, and that they can learn."""

import math
import random
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genkit.data.picturebook.scene import KINDS, Scene
from genkit.data.picturebook.source import Captioned, Captions, Pictures, label_tensor, to_unit
from genkit.models.encoders import Contrastive, ConvEncoder, ViTEncoder, kinds_of
from genkit.models.text import PAD, UNKNOWN, train_vocabulary
from genkit.objectives import Contrasting, Recognition
from genkit.spaces import rendered

VOCABULARY = train_vocabulary(("a red house at night", "một ngôi nhà đỏ ban đêm"), 400)
WIDTHS = {"widths": (8, 12, 16), "blocks": (1, 1, 1)}


def awake(model: nn.Module) -> nn.Module:
    """What starts at zero is moved, so that every part of the net takes part."""
    for p in model.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.2)
    return model.eval()


@pytest.fixture()
def conv() -> ConvEncoder:
    return awake(ConvEncoder(**WIDTHS))


@pytest.fixture()
def vit() -> ViTEncoder:
    return awake(ViTEncoder(dim=16, layers=2, heads=2))


@pytest.fixture()
def towers() -> Contrastive:
    return awake(Contrastive(VOCABULARY, **WIDTHS, dim=12, words=16, layers=2, heads=2))


ALL = pytest.mark.parametrize("name", ["conv", "vit", "towers"])
CLASSIFIERS = pytest.mark.parametrize("name", ["conv", "vit"])


def some(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


# --- what is learned ----------------------------------------------------------------------------


def test_kinds_are_those_of_the_scene_wherever_they_stand():
    scenes = [Scene.random(seed) for seed in range(200)]
    for scene, row in zip(scenes, kinds_of(label_tensor(scenes))):
        there = {thing.kind for thing in scene.things}
        assert row.tolist() == [float(kind in there) for kind in KINDS]


@CLASSIFIERS
def test_recognition_is_the_likelihood_of_all_kinds(request, name):
    model = request.getfixturevalue(name)
    scenes = [Scene.random(seed) for seed in range(4)]
    batch = {"picture": rendered(scenes), "labels": label_tensor(scenes)}
    loss = next(Recognition(model)(batch))
    answer, there = model(to_unit(batch["picture"])), kinds_of(batch["labels"])
    oracle = F.binary_cross_entropy_with_logits(answer.logits, there, reduction="sum") / 4
    torch.testing.assert_close(loss.total, oracle)
    right = ((answer.mean > 0.5) == (there == 1)).all(dim=1).float().mean()
    assert loss.parts["right"] == right


def test_info_nce_is_two_cross_entropies(towers):
    texts = ["a red house", "một ngôi nhà đỏ", "night", "house at night", ""]
    tokens, picture = towers.encode(texts), rendered([Scene.random(seed) for seed in range(5)])
    loss = next(Contrasting(towers)({"picture": picture, "tokens": tokens}))
    cosines = F.cosine_similarity(
        towers.embed(to_unit(picture))[:, None], towers.embed_text(texts)[None], dim=-1
    )
    own = torch.arange(5)
    logits = cosines / 0.07
    oracle = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(loss.total, oracle, rtol=1e-5, atol=1e-5)
    assert loss.parts["right"] == (logits.argmax(dim=1) == own).float().mean()
    assert loss.parts["heat"].item() == pytest.approx(1 / 0.07)


def test_info_nce_does_not_depend_on_the_order_of_the_pairs(towers):
    tokens = towers.encode(["a red house", "night", "một ngôi nhà", "đêm"])
    picture = rendered([Scene.random(seed) for seed in range(4)])
    objective = Contrasting(towers)
    losses = [
        next(objective({"picture": picture[list(p)], "tokens": tokens[list(p)]})).total
        for p in list(permutations(range(4)))[::5]
    ]
    torch.testing.assert_close(torch.stack(losses), losses[0].expand(len(losses)))


def test_equal_vectors_cost_the_logarithm_of_the_batch(towers):
    """Nothing is told apart: −ln(1/B), whatever the temperature."""
    batch = {
        "picture": rendered([Scene.random(3)]).expand(7, -1, -1, -1),
        "tokens": towers.encode(["a red house"] * 7),
    }
    assert next(Contrasting(towers)(batch)).total.item() == pytest.approx(math.log(7), abs=1e-5)


def test_the_temperature_has_a_limit(towers):
    nn.init.constant_(towers.log_heat, 9.0)
    assert towers.heat == 100
    logits = towers(some(3), towers.encode(["a", "b", "c"])).logits
    assert logits.abs().max() <= 100.001


@ALL
def test_every_parameter_and_every_pixel_matters(request, name):
    model = request.getfixturevalue(name)
    x = some(3).requires_grad_()
    answer = model(x, model.encode(["a house", "đêm", "red"])) if name == "towers" else model(x)
    answer.logits.square().sum().backward()
    assert (x.grad != 0).all()
    for key, p in model.named_parameters():
        assert p.grad is not None and p.grad.any() and p.grad.isfinite().all(), key


@pytest.mark.parametrize("kind", [ConvEncoder, ViTEncoder])
def test_classifiers_learn_where_nothing_but_a_shape_tells_them(kind):
    """Two kinds that differ in their shape only, anywhere in the picture."""
    small = {"dim": 32, "layers": 2, "heads": 2} if kind is ViTEncoder else WIDTHS
    model, rng = kind(**small), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3 if kind is ViTEncoder else 8e-3)
    losses = []
    while len(losses) < 400 and (not losses or losses[-1] > 0.1):
        x, there = -torch.ones(32, 3, 32, 32), torch.zeros(32, len(KINDS))
        tall = torch.randint(2, (32,), generator=rng).tolist()
        places = torch.randint(20, (32, 2), generator=rng).tolist()
        for i, (row, column) in enumerate(places):
            high, wide = (12, 3) if tall[i] else (3, 12)
            x[i, :, row : row + high, column : column + wide] = 1
            there[i, tall[i]] = 1
        loss = -model(x).log_prob(there).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1  # 2 ln 2 without knowing which


# --- what a vector may depend on ----------------------------------------------------------------


@ALL
def test_a_vector_does_not_depend_on_its_batch(request, name):
    model, x = request.getfixturevalue(name), some(6)
    with torch.no_grad():
        together, alone = model.embed(x), torch.cat([model.embed(one[None]) for one in x])
        turned = model.embed(x.flip(0)).flip(0)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, turned, atol=1e-5, rtol=0)
    assert together.std(dim=0).min() > 0


def test_a_caption_does_not_depend_on_the_length_of_others(towers):
    short, long = "night", "a red house at night a red house at night một ngôi nhà đỏ ban đêm"
    with torch.no_grad():
        together = towers.embed_text([short, long])
        torch.testing.assert_close(together[:1], towers.embed_text([short]), atol=1e-5, rtol=0)
        torch.testing.assert_close(together[1:], towers.embed_text([long]), atol=1e-5, rtol=0)


def test_the_order_of_words_matters_and_their_case_does_not(towers):
    with torch.no_grad():
        a, b, c = towers.embed_text(["red house night", "night house red", "Red HOUSE night"])
    torch.testing.assert_close(a, c)
    assert (a - b).norm() > 0.01


def test_patches_matter_by_their_place(vit):
    """Without places the mean of the tokens would not see which patch is where."""
    x = some(1)
    patches = x.unfold(2, 4, 4).unfold(3, 4, 4)  # "1 3 8 8 4 4"
    turned = patches.flip(3).permute(0, 1, 2, 4, 3, 5).reshape(1, 3, 32, 32)
    with torch.no_grad():
        assert (vit.embed(x) - vit.embed(turned)).norm() > 0.01
        vit.patches[1].linear.weight.zero_()
        torch.testing.assert_close(vit.embed(x), vit.embed(turned), atol=1e-5, rtol=0)


def test_the_vector_is_the_mean_of_the_tokens_and_the_head_is_linear_in_it(vit, conv):
    x = some(3)
    torch.testing.assert_close(vit.embed(x), vit.tokens(x).mean(dim=1))
    assert vit.tokens(x).shape == (3, 64, 16)
    for model in (vit, conv):
        torch.testing.assert_close(model(x).logits, model.head(model.embed(x)))


def test_a_token_sees_the_whole_picture(vit):
    x = some(1).requires_grad_()
    vit.tokens(x)[0, 0, 0].backward()  # the sum of a normalised token never changes
    assert (x.grad.abs().sum(dim=1) > 0).all()


def test_both_towers_give_unit_vectors_and_the_score_is_their_product(towers):
    x, texts = some(3), ["a red house", "ban đêm", ""]
    v, w = towers.embed(x), towers.embed_text(texts)
    for vectors in (v, w):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(towers.score(x, texts), F.cosine_similarity(v, w))
    logits = towers(x, towers.encode(texts)).logits
    torch.testing.assert_close(logits.diagonal() * 0.07, towers.score(x, texts))


@ALL
def test_saving_keeps_the_vectors(request, name, tmp_path):
    model, x = request.getfixturevalue(name), some(2)
    model.save_pretrained(tmp_path / name)
    assert torch.equal(model.embed(x), type(model).from_pretrained(tmp_path / name).embed(x))


@ALL
def test_half_precision_weights_take_full_precision_pictures(request, name):
    model, x = request.getfixturevalue(name), some(2)
    exact = model.embed(x)
    rough = model.bfloat16().embed(x)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)


# --- data ---------------------------------------------------------------------------------------


def test_captioned_pictures_are_of_the_same_scenes(tmp_path, monkeypatch):
    monkeypatch.setenv("GENKIT_CACHE", str(tmp_path))
    seen: list[str] = []

    def encode(texts: list[str]) -> torch.Tensor:
        seen.extend(texts)
        return torch.zeros(len(texts), 3, dtype=torch.long)

    source = Captioned(Pictures(range(6, 10), 32), Captions(range(6, 10), encode))
    batch = source.batch([3, 0], torch.Generator().manual_seed(2))
    scenes = [Scene.random(9), Scene.random(6)]
    assert len(source) == 4 and len(seen) == 2
    assert torch.equal(batch["picture"], rendered(scenes))
    assert torch.equal(batch["labels"], label_tensor(scenes))
    again = Captions(range(6, 10), encode).batch([3, 0], torch.Generator().manual_seed(2))
    assert seen[:2] == seen[2:] and torch.equal(again["tokens"], batch["tokens"])
    with pytest.raises(ValueError, match="4 pictures and 4 captions are not of the same scenes"):
        Captioned(Pictures(range(6, 10), 32), Captions(range(7, 11), encode))


# --- mistakes -----------------------------------------------------------------------------------


@ALL
def test_pictures_of_another_size_are_refused(request, name):
    with pytest.raises(ValueError, match="48×40; .* 32×32: resize them"):
        request.getfixturevalue(name).embed(torch.zeros(1, 3, 40, 48))


def test_mistakes_are_told_in_a_sentence(towers):
    with pytest.raises(ValueError, match="2 pictures do not fit 1 captions: give one caption"):
        towers.score(some(2), ["a house"])
    with pytest.raises(ValueError, match="word pieces, at most 96 are read: shorten it"):
        towers.embed_text(["house " * 200])
    with pytest.raises(ValueError, match="make it with train_vocabulary"):
        Contrastive((UNKNOWN, PAD, "a"))
    with pytest.raises(ValueError, match="Patches of 5 pixels do not fill a side of 32: choose"):
        ViTEncoder(patch=5)
    with pytest.raises(ValueError, match="3 heads cannot share 16 features"):
        ViTEncoder(dim=16, heads=3)


def test_parameters_are_comparable():
    """Each between 0.4 and 1.2 million, vectors of one size."""
    words = tuple([PAD, UNKNOWN, *map(str, range(1198))])
    for model in (ConvEncoder(), ViTEncoder(), Contrastive(words)):
        assert 4e5 < sum(p.numel() for p in model.parameters()) < 1.2e6
        assert model.embed(some(1)).shape == (1, 128)


# --- the shipped checkpoints --------------------------------------------------------------------


@pytest.mark.checkpoint
def test_the_shipped_towers_prefer_the_true_caption_in_both_languages(checkpoints):
    if not (checkpoints / "book32_contrastive" / "config.json").is_file():
        pytest.skip("checkpoints/book32_contrastive is not there")
    model = Contrastive.from_pretrained(checkpoints / "book32_contrastive")
    scenes = [Scene.random(seed) for seed in range(210_000, 210_040)]
    x = to_unit(rendered(scenes))
    for language in ("en", "vi"):
        texts = [scene.caption(random.Random(7), language) for scene in scenes]
        own, other = model.score(x, texts), model.score(x, texts[1:] + texts[:1])
        assert (own > other).double().mean() >= 0.9
