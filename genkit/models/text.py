"""The text side of the picture book: a caption becomes eight scene tokens, and labels.

    words   = pieces(caption)                            at most L, padded
    tokens  = transformer(scene tokens ⊕ words)[:S]      `TextEncoder.forward`: "B L" → "B S D"
    p(labels | caption) = heads(tokens)                  `TextEncoder.read`

S learned scene tokens are put before the words and come out as the code of the caption (as the
learned queries of a Perceiver). Token 0 stands for the whole scene, tokens 1, 2, 3 for what is on
the left, in the middle and on the right, and the rest is free. `SceneHeads` makes this so: it
reads the labels of the scene from these tokens, and the three places share one linear map. The
same heads sit on the `Reader`, which looks at pictures.

The empty text "" has no words: its tokens are the unconditional code.

References:
    Google's Neural Machine Translation System (Wu et al., 2016; word pieces)
        https://arxiv.org/abs/1609.08144
    Perceiver IO: A General Architecture for Structured Inputs & Outputs (Jaegle et al., 2021)
        https://arxiv.org/abs/2107.14795
"""

import string
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genkit.data.picturebook.scene import LABELS, SLOTS
from genkit.distributions import Categorical
from genkit.model import Model
from genkit.nn.layers import full
from genkit.nn.transformer import Layer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["SceneHeads", "TextEncoder", "WordPieces", "train_vocabulary"]

PAD, UNKNOWN = "[PAD]", "[UNK]"
# Known even if no caption uses them, so that any English or Vietnamese word falls into letters.
LETTERS = (
    string.ascii_lowercase
    + string.digits
    + ("àáâãèéêìíòóôõùúýăđĩũơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ")
)


class SceneHeads(nn.Module):
    """Scene tokens → a Categorical for every label of the picture book.

    Token 0 answers for the whole scene; token 1 + i for slot i, all slots by the same linear map.

    Args:
        dim: Size D of a scene token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scene = {name: len(v) for name, v in LABELS.items() if "." not in name}
        self.thing = {
            name.split(".")[1]: len(v)
            for name, v in LABELS.items()
            if name.startswith(f"{SLOTS[0]}.")
        }
        self.scene_logits = nn.Linear(dim, sum(self.scene.values()))
        self.thing_logits = nn.Linear(dim, sum(self.thing.values()))

    def forward(self, tokens: Float[Tensor, "B S D"]) -> dict[str, Categorical]:
        tokens = tokens.to(self.scene_logits.weight.dtype)
        logits = full(self.scene_logits(tokens[:, 0]))
        parts = dict(zip(self.scene, logits.split(list(self.scene.values()), -1), strict=True))
        for i, slot in enumerate(SLOTS):
            logits = full(self.thing_logits(tokens[:, 1 + i]))
            names = [f"{slot}.{name}" for name in self.thing]
            parts |= zip(names, logits.split(list(self.thing.values()), -1), strict=True)
        return {name: Categorical(parts[name]) for name in LABELS}


class WordPieces:
    """Texts as numbers of word pieces.

    Args:
        vocabulary: Word pieces in the order of their numbers (`train_vocabulary`); the first two
            are padding and unknown.
        length: Largest number L of word pieces in a text.

    Raises:
        ValueError: If the vocabulary does not begin with padding and unknown.
    """

    def __init__(self, vocabulary: tuple[str, ...], length: int) -> None:
        if tuple(vocabulary[:2]) != (PAD, UNKNOWN):
            raise ValueError(
                f"The vocabulary begins with {vocabulary[:2]} instead of {(PAD, UNKNOWN)}: "
                "make it with train_vocabulary."
            )
        self.length, self.tokenizer = length, _tokenizer(vocabulary)

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "B L"]:
        """Returns the numbers of the word pieces of each text, padded with 0 to L.

        Raises:
            ValueError: If a text has more than L word pieces.
        """
        pieces = [self.tokenizer.encode(text).ids for text in texts]
        for text, ids in zip(texts, pieces, strict=True):
            if len(ids) > self.length:
                raise ValueError(
                    f"The text {text[:40]!r}… has {len(ids)} word pieces, at most {self.length} "
                    "are read: shorten it."
                )
        padded = [ids + [0] * (self.length - len(ids)) for ids in pieces]
        return torch.tensor(padded, dtype=torch.long).view(len(texts), self.length)


class TextEncoder(Model):
    """Caption → S scene tokens, by a small transformer over word pieces.

    Args:
        vocabulary: Word pieces in the order of their numbers (`train_vocabulary`); the first two
            are padding and unknown. It is part of the checkpoint.
        dim: Size D of a token.
        layers: Number of transformer layers.
        heads: Number of attention heads.
        tokens: Number S of scene tokens, at least 4.
        length: Largest number L of word pieces in a text.

    Raises:
        ValueError: If the vocabulary does not begin with padding and unknown.
    """

    def __init__(
        self,
        vocabulary: tuple[str, ...],
        dim: int = 192,
        layers: int = 3,
        heads: int = 6,
        tokens: int = 8,
        length: int = 96,
    ) -> None:
        super().__init__()
        self.pieces = WordPieces(vocabulary, length)
        self.length, self.tokenizer = length, self.pieces.tokenizer
        self.scene = nn.Parameter(torch.randn(tokens, dim))
        self.words = nn.Embedding(len(vocabulary), dim)
        self.position = nn.Parameter(torch.randn(length, dim) / 2)
        self.layers = nn.ModuleList(Layer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.heads = SceneHeads(dim)

    def encode(self, texts: Sequence[str]) -> Int[Tensor, "B L"]:
        """Returns the numbers of the word pieces of each text, padded with 0 to L.

        Raises:
            ValueError: If a text has more than L word pieces.
        """
        return self.pieces(texts)

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B S D"]:
        # Columns that are padding in the whole batch cost time and change nothing.
        tokens = tokens[:, : max(1, int((tokens != 0).sum(dim=1).max()))]
        batch, length = tokens.shape
        words = self.words(tokens) + self.position[:length]
        x = torch.cat((self.scene.expand(batch, -1, -1), words), dim=1)
        seen = torch.ones(batch, len(self.scene), dtype=torch.bool, device=tokens.device)
        mask = torch.cat((seen, tokens != 0), dim=1)
        for layer in self.layers[:-1]:
            x = layer(x, None, mask)
        # Only the scene tokens leave, so only they ask in the last layer.
        x = self.layers[-1](x[:, : len(self.scene)], x, mask)
        return full(self.norm(x))

    def read(self, tokens: Int[Tensor, "B L"]) -> dict[str, Categorical]:
        """Returns p(label | caption) for every label of the picture book."""
        return self.heads(self(tokens))


def train_vocabulary(captions: Iterable[str], size: int) -> tuple[str, ...]:
    """Returns the vocabulary of the captions: letters, then the most frequent words.

    Letters (first in a word, and as "##x" inside a word) take unknown words apart; words with
    equal counts are taken in alphabetical order, so the result depends on the captions alone.

    Args:
        captions: Texts to learn from.
        size: Largest number of pieces, special ones and letters included.

    Raises:
        ValueError: If the letters alone are more than `size`.
    """
    from tokenizers import Tokenizer, models, trainers

    counter = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    counter.normalizer, counter.pre_tokenizer = _normalizer(), _splitter()
    trainer = trainers.WordLevelTrainer(vocab_size=1_000_000, min_frequency=1, show_progress=False)
    counter.train_from_iterator(captions, trainer)
    words = sorted(counter.get_vocab().items(), key=lambda item: item[1])
    letters = sorted({letter for word, _ in words for letter in word} | set(LETTERS))
    pieces = [PAD, UNKNOWN, *letters, *(f"##{letter}" for letter in letters)]
    if len(pieces) > size:
        raise ValueError(f"{size} pieces cannot hold {len(pieces)} letters: ask for more pieces.")
    known = set(pieces)
    return tuple((pieces + [word for word, _ in words if word not in known])[:size])


def _tokenizer(vocabulary: Sequence[str]) -> "Tokenizer":
    from tokenizers import Tokenizer, models

    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = _normalizer(), _splitter()
    return tokenizer


def _normalizer() -> "object":
    from tokenizers import normalizers

    return normalizers.Sequence([normalizers.Lowercase(), normalizers.NFC()])


def _splitter() -> "object":
    from tokenizers import pre_tokenizers

    return pre_tokenizers.BertPreTokenizer()
