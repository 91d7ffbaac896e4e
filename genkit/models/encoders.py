"""Encoders: three ways to turn a picture into a vector, to be compared with the mean of a VAE.

    ConvEncoder    v = mean over cells of  convolutions(x)           what is where, then forgotten
    ViTEncoder     v = mean over tokens of transformer(patches(x))   every patch sees all others
                   P(kind k stands in the picture) = sigmoid(head(v))_k             for these two
    Contrastive    v = unit(linear(convolutions(x))),  w = unit(transformer(caption))
                   P(caption j | picture i) = softmax_j(v_i·w_j / τ)       near = said of the same

The first two learn the same task from the same pictures, so that what differs between their
vectors is due to the network. It is the task of a classifier of photographs, "which kinds of thing
are there": time of day, ground, weather, colours and places are never asked for. What a vector
keeps of them nevertheless is for probes to find out (`genkit.probes`). The third one is never told
a label. Captions in English and in Vietnamese say now this and now that of a scene; its vectors
must keep whatever tells one scene from the others.

Pictures are "B 3 32 32" in [−1, 1]; all three vectors have 128 numbers.

References:
    Very Deep Convolutional Networks for Large-Scale Image Recognition (Simonyan and Zisserman,
        2015)  https://arxiv.org/abs/1409.1556
    An Image is Worth 16x16 Words (Dosovitskiy et al., 2021; a picture as a sequence of patches)
        https://arxiv.org/abs/2010.11929
    Better plain ViT baselines for ImageNet-1k (Beyer et al., 2022; the mean instead of a class
        token)  https://arxiv.org/abs/2205.01580
    Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021;
        the two towers and the learned temperature)  https://arxiv.org/abs/2103.00020
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genkit.data.picturebook.scene import KINDS, LABELS, SLOTS
from genkit.distributions import Bernoulli, Categorical
from genkit.model import Model
from genkit.models.autoencoder import check_picture
from genkit.models.text import WordPieces
from genkit.nn.convnet import ConvBlock, Patchify
from genkit.nn.embedding import Position
from genkit.nn.layers import full
from genkit.nn.transformer import Layer

__all__ = ["Contrastive", "ConvEncoder", "ViTEncoder", "kinds_of"]

HOTTEST = 100.0
"""The largest 1/τ, as in CLIP: more would make a single pair decide a whole step."""


def kinds_of(labels: Int[Tensor, "B L"]) -> Float[Tensor, "B K"]:
    """1 for each of `KINDS` that stands in the scene, else 0; labels in the order of `LABELS`."""
    order = list(LABELS)
    slots = labels[:, [order.index(f"{slot}.kind") for slot in SLOTS]]
    found = F.one_hot(slots, 1 + len(KINDS)).amax(dim=1)  # "B 1+K"; class 0 is an empty slot
    return found[:, 1:].float()


class ConvEncoder(Model):
    """A convolutional classifier; its features before the head are the vector of a picture.

    Args:
        widths: Channels of the maps of 1/2, 1/4 and 1/8 of the side; the last is the size D of
            the vector.
        blocks: Residual blocks of each.
        size: Side of the pictures in pixels, a multiple of 8.
    """

    def __init__(
        self,
        widths: tuple[int, int, int] = (48, 96, 128),
        blocks: tuple[int, int, int] = (1, 2, 1),
        size: int = 32,
    ) -> None:
        super().__init__()
        self.size = size
        self.convolutions = _Convolutions(widths, blocks)
        self.head = nn.Linear(widths[-1], len(KINDS))

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Bernoulli:
        """Returns P(kind k stands in the picture) for each of `KINDS`."""
        return Bernoulli(full(self.head(self.embed(x).to(self.head.weight.dtype))))

    def embed(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """The vector of each picture.

        Raises:
            ValueError: If the pictures have another size.
        """
        check_picture(x, self.size)
        return full(self.convolutions(x))


class ViTEncoder(Model):
    """A vision transformer as a classifier; the mean of its tokens is the vector of a picture.

    Args:
        dim: Size D of a token and of the vector.
        layers: Number of transformer layers.
        heads: Number of attention heads, a divisor of `dim`.
        patch: Side of a patch in pixels, a divisor of `size`.
        size: Side of the pictures in pixels.
    """

    def __init__(
        self, dim: int = 128, layers: int = 3, heads: int = 4, patch: int = 4, size: int = 32
    ) -> None:
        super().__init__()
        if size % patch:
            raise ValueError(
                f"Patches of {patch} pixels do not fill a side of {size}: choose a divisor."
            )
        self.size = size
        self.patches = nn.Sequential(Patchify(3, dim, patch), Position(dim))
        self.layers = nn.ModuleList(Layer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, len(KINDS))

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Bernoulli:
        """Returns P(kind k stands in the picture) for each of `KINDS`."""
        return Bernoulli(full(self.head(self.embed(x).to(self.head.weight.dtype))))

    def embed(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """The vector of each picture: the mean of its tokens.

        Raises:
            ValueError: If the pictures have another size.
        """
        return self.tokens(x).mean(dim=1)

    def tokens(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        """What each patch has become after it saw all others, row by row from the top left.

        Raises:
            ValueError: If the pictures have another size.
        """
        check_picture(x, self.size)
        x = x.to(self.norm.weight.dtype)
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # "B N D"
        for layer in self.layers:
            tokens = layer(tokens)
        return full(self.norm(tokens))


class Contrastive(Model):
    """Two towers: a picture and a caption of it become nearly the same unit vector.

    Args:
        vocabulary: Word pieces of captions (`train_vocabulary`); part of the checkpoint.
        widths: Channels of the convolutional tower's maps.
        blocks: Residual blocks of each.
        dim: Size D of the vectors.
        words: Size of a word's vector in the text tower.
        layers: Number of transformer layers of the text tower.
        heads: Number of attention heads, a divisor of `words`.
        length: Largest number of word pieces in a caption.
        size: Side of the pictures in pixels, a multiple of 8.

    Raises:
        ValueError: If the vocabulary does not begin with padding and unknown.
    """

    def __init__(
        self,
        vocabulary: tuple[str, ...],
        widths: tuple[int, int, int] = (48, 96, 128),
        blocks: tuple[int, int, int] = (1, 2, 1),
        dim: int = 128,
        words: int = 96,
        layers: int = 2,
        heads: int = 4,
        length: int = 96,
        size: int = 32,
    ) -> None:
        super().__init__()
        self.size = size
        self.pieces = WordPieces(vocabulary, length)
        self.convolutions = _Convolutions(widths, blocks)
        self.from_picture = nn.Linear(widths[-1], dim, bias=False)
        self.words = _Words(len(vocabulary), length, words, layers, heads)
        self.from_words = nn.Linear(words, dim, bias=False)
        self.log_heat = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def heat(self) -> Float[Tensor, ""]:
        """1/τ, at most 100."""
        return self.log_heat.exp().clamp(max=HOTTEST)

    def forward(self, x: Float[Tensor, "B 3 H W"], tokens: Int[Tensor, "C L"]) -> Categorical:
        """Returns P(caption j | picture i), "B C"; its logits transposed are the other way round.

        Args:
            x: Pictures.
            tokens: Captions, as `encode` makes them.
        """
        pictures, captions = self.embed(x), self.embed_tokens(tokens)
        # Not in bfloat16: a logit of 50 would be rounded to quarters.
        with torch.autocast(pictures.device.type, enabled=False):
            return Categorical(full(self.heat) * pictures @ captions.T)

    def embed(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """The unit vector of each picture.

        Raises:
            ValueError: If the pictures have another size.
        """
        check_picture(x, self.size)
        return F.normalize(full(self.from_picture(self.convolutions(x))), dim=-1)

    def encode(self, captions: Sequence[str]) -> Int[Tensor, "B L"]:
        """Returns the numbers of the word pieces of each caption, padded with 0.

        Raises:
            ValueError: If a caption has too many word pieces.
        """
        return self.pieces(captions)

    def embed_tokens(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """The unit vector of each encoded caption."""
        return F.normalize(full(self.from_words(self.words(tokens))), dim=-1)

    def embed_text(self, captions: Sequence[str]) -> Float[Tensor, "B D"]:
        """The unit vector of each caption, in English or Vietnamese.

        Raises:
            ValueError: If a caption has too many word pieces.
        """
        return self.embed_tokens(self.encode(captions).to(self.log_heat.device))

    def score(self, x: Float[Tensor, "B 3 H W"], captions: Sequence[str]) -> Float[Tensor, "B"]:
        """How well each picture fits its caption: the cosine of the two vectors, −1 to 1.

        Raises:
            ValueError: If the numbers of pictures and captions differ, the pictures have another
                size, or a caption has too many word pieces.
        """
        if len(x) != len(captions):
            raise ValueError(
                f"{len(x)} pictures do not fit {len(captions)} captions: give one caption for "
                "each picture."
            )
        return (self.embed(x) * self.embed_text(captions)).sum(dim=-1)


class _Convolutions(nn.Module):
    """Residual convolutions at 1/2, 1/4 and 1/8 of the side; the mean of the last map."""

    def __init__(self, widths: tuple[int, int, int], blocks: tuple[int, int, int]) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for channels, out, count in zip((3, *widths), widths, blocks):
            stages += [Patchify(channels, out, 2), *(ConvBlock(out) for _ in range(count))]
        # Left and right are words of captions, and convolutions alone do not know them.
        stages.insert(1, Position(widths[0]))
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        weight = self.stages[0].weight
        return F.silu(self.stages(x.to(weight.dtype))).mean(dim=(2, 3))


class _Words(nn.Module):
    """A transformer over word pieces; a learned token before them collects what they say."""

    def __init__(self, pieces: int, length: int, dim: int, layers: int, heads: int) -> None:
        super().__init__()
        self.summary = nn.Parameter(torch.randn(1, dim))
        self.words = nn.Embedding(pieces, dim)
        self.position = nn.Parameter(torch.randn(length, dim) / 2)
        self.layers = nn.ModuleList(Layer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        # Columns that are padding in the whole batch cost time and change nothing.
        tokens = tokens[:, : max(1, int((tokens != 0).sum(dim=1).max()))]
        words = self.words(tokens) + self.position[: tokens.shape[1]]
        x = torch.cat((self.summary.expand(len(tokens), 1, -1), words), dim=1)
        mask = F.pad(tokens != 0, (1, 0), value=True)
        for layer in self.layers[:-1]:
            x = layer(x, None, mask)
        # Only the summary leaves, so only it asks in the last layer.
        return self.norm(self.layers[-1](x[:, :1], x, mask))[:, 0]
