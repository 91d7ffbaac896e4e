"""A pre-norm transformer layer over sequences, with self-attention or attention to a context.

    y = x + Attention(N(x), N(context))
    z = y + W₂·GELU(W₁·N(y))

N is LayerNorm. Both branches end in zeros, so a fresh layer is the identity.

References:
    On Layer Normalization in the Transformer Architecture (Xiong et al., 2020)
        https://arxiv.org/abs/2002.04745
    Perceiver: General Perception with Iterative Attention (Jaegle et al., 2021; a few learned
        tokens read a large input)  https://arxiv.org/abs/2103.03206
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from genkit.nn.attention import Attention
from genkit.nn.layers import zeros

__all__ = ["Feedforward", "Layer"]


class Feedforward(nn.Module):
    """Two linear layers, W₂·GELU(W₁·x), the same for every vector; 0 at the start.

    Args:
        dim: Size D of the vectors.
        ratio: Size of the hidden layer in units of D.
    """

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(dim, ratio * dim)
        self.last = zeros(nn.Linear(ratio * dim, dim))

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self.last(F.gelu(self.first(x)))


class Layer(nn.Module):
    """Pre-norm attention and feed-forward layer; the identity in x at the start.

    Args:
        dim: Size D of the vectors of x and of the context.
        heads: Number of attention heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm_feedforward = nn.LayerNorm(dim)
        self.feedforward = Feedforward(dim)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        context: Float[Tensor, "B M D"] | None = None,
        mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N D"]:
        """Transforms x.

        Args:
            x: The vectors that ask.
            context: The vectors that answer, normalised as x is; x itself if None.
            mask: True where a vector of the context may be seen; all if None.
        """
        normed = None if context is None else self.norm(context)
        x = x + self.attention(self.norm(x), normed, mask)
        return x + self.feedforward(self.norm_feedforward(x))
