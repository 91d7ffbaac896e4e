"""The text encoder: pieces lose nothing, padding changes nothing, three places share one map."""

import unicodedata

import pytest
import torch
from torch import nn

from genkit.data.picturebook.scene import LABELS, SLOTS
from genkit.models.text import SceneHeads, TextEncoder, train_vocabulary

CAPTIONS = (
    "A red house at night, and a blue boat on the right.",
    "two pines in the snow",
    "Một ngôi nhà đỏ dưới bầu trời đêm",
    "một chiếc thuyền xanh bên phải, tuyết rơi",
)
VOCABULARY = train_vocabulary(CAPTIONS, 400)


@pytest.fixture()
def tiny() -> TextEncoder:
    model = TextEncoder(VOCABULARY, dim=16, layers=2, heads=2, tokens=5, length=40)
    for p in model.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.2)
    return model.eval()


def test_the_vocabulary_is_a_function_of_the_captions():
    assert train_vocabulary(iter(CAPTIONS), 400) == VOCABULARY
    assert train_vocabulary(CAPTIONS[::-1], 400) == VOCABULARY
    assert len(set(VOCABULARY)) == len(VOCABULARY) <= 400
    assert VOCABULARY[:2] == ("[PAD]", "[UNK]")


def test_frequent_words_come_first_when_there_is_no_room():
    letters = len(train_vocabulary((), 400))
    assert train_vocabulary(["b b c", "a b c"], letters + 1)[:letters] == train_vocabulary((), 400)
    assert train_vocabulary(["zz yy zz"], letters + 1)[-1] == "zz"
    with pytest.raises(ValueError, match="10 pieces cannot hold"):
        train_vocabulary(CAPTIONS, 10)


def pieces(model: TextEncoder, text: str) -> list[str]:
    return [VOCABULARY[i] for i in model.encode([text])[0] if i]


def test_known_words_are_one_piece_in_any_case_and_any_unicode_form(tiny):
    assert pieces(tiny, "A RED house.") == ["a", "red", "house", "."]
    assert pieces(tiny, "nhà đỏ") == ["nhà", "đỏ"]
    assert pieces(tiny, unicodedata.normalize("NFD", "Nhà ĐỎ")) == ["nhà", "đỏ"]


def test_diacritics_are_kept(tiny):
    assert not torch.equal(tiny.encode(["mot ngoi nha"]), tiny.encode(["một ngôi nhà"]))


def test_unknown_words_fall_into_pieces_that_spell_them(tiny):
    for word in ("dragon", "rồng", "houses"):
        found = pieces(tiny, word)
        assert "[UNK]" not in found
        assert "".join(piece.removeprefix("##") for piece in found) == word
    assert pieces(tiny, "龍") == ["[UNK]"]


def test_the_empty_text_has_no_words_and_still_has_tokens(tiny):
    assert not tiny.encode([""]).any()
    assert tiny(tiny.encode([""])).isfinite().all()
    assert tiny.encode([]).shape == (0, 40)


def test_a_text_that_is_too_long_is_refused(tiny):
    tiny.encode(["red " * 40])
    with pytest.raises(ValueError, match="41 word pieces, at most 40"):
        tiny.encode(["red " * 41])


def test_padding_never_changes_the_tokens(tiny):
    tokens = tiny.encode(CAPTIONS[:1])
    longest = int((tokens != 0).sum())
    assert longest < tokens.shape[1]
    whole = tiny(tokens)
    torch.testing.assert_close(tiny(tokens[:, :longest]), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(tiny.train()(tokens), whole, atol=1e-5, rtol=0)
    with torch.no_grad():
        tiny.words.weight[0] = 100.0
    torch.testing.assert_close(tiny.eval()(tokens), whole, atol=1e-5, rtol=0)


def test_a_caption_does_not_depend_on_its_batch(tiny):
    texts = [*CAPTIONS, ""]
    with torch.no_grad():
        together = tiny(tiny.encode(texts))
        alone = torch.cat([tiny(tiny.encode([text])) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_order_of_words_matters(tiny):
    a, b = tiny(tiny.encode(["red house blue boat", "blue house red boat"]))
    assert (a - b).abs().max() > 1e-3


def test_heads_answer_every_label_in_order_and_places_share_their_map():
    heads, tokens = SceneHeads(16), torch.randn(3, 8, 16)
    answers = heads(tokens)
    assert list(answers) == list(LABELS)
    for name, answer in answers.items():
        assert answer.logits.shape == (3, len(LABELS[name]))
    turned = heads(tokens[:, [0, 2, 3, 1, 4, 5, 6, 7]])  # what was in the middle is on the left
    for name, answer in answers.items():
        slot, _, part = name.partition(".")
        i = SLOTS.index(slot) if part else 0
        name = f"{SLOTS[i - 1]}.{part}" if part else name
        assert torch.equal(turned[name].logits, answer.logits)


def test_every_parameter_learns(tiny):
    answers = tiny.read(tiny.encode(CAPTIONS))
    sum(a.logits.square().sum() for a in answers.values()).backward()
    for name, p in tiny.named_parameters():
        assert p.grad is not None and p.grad.any() and p.grad.isfinite().all(), name


def test_saving_keeps_words_and_tokens(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "text")
    again = TextEncoder.from_pretrained(tmp_path / "text")
    texts = [*CAPTIONS, "", "a dragon, một con rồng"]
    assert torch.equal(again.encode(texts), tiny.encode(texts))
    assert torch.equal(again(again.encode(texts)), tiny(tiny.encode(texts)))


def test_a_foreign_vocabulary_is_refused():
    with pytest.raises(ValueError, match="train_vocabulary"):
        TextEncoder(("a", "b"))


def test_half_precision_weights_give_full_precision_answers(tiny):
    exact = tiny.read(tiny.encode(CAPTIONS))["left.kind"].mean
    rough = tiny.bfloat16().read(tiny.encode(CAPTIONS))["left.kind"].mean
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0)
