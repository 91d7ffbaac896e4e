"""Softmax attention: every query takes a weighted mean of the values.

    Attend(Q, K, V) = softmax(Q·Kᵀ/√d)·V

Conventions: heads are an axis of their own, "B h N d". A mask is True where a key may be seen;
hidden keys get the weight 0 exactly, so padding never changes a result.

References:
    Attention Is All You Need (Vaswani et al., 2017)
        https://arxiv.org/abs/1706.03762
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from genkit.nn.layers import zeros

__all__ = ["Attention", "attend", "attend_explicitly"]

Queries = Float[Tensor, "B h N d"]
Keys = Float[Tensor, "B h M d"]
Mask = Bool[Tensor, "B M"]


def attend(q: Queries, k: Keys, v: Keys, mask: Mask | None = None) -> Queries:
    """Returns softmax(q·kᵀ/√d)·v by the kernel that suits the device.

    On a CPU the backward pass of the fused kernel is slow in bfloat16 (a whole training step of a
    small U-Net took 1.6 times as long), so training there spells the formula out.
    """
    if q.device.type == "cpu" and torch.is_grad_enabled():
        return attend_explicitly(q, k, v, mask)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=None if mask is None else mask[:, None, None]
    )


def attend_explicitly(q: Queries, k: Keys, v: Keys, mask: Mask | None = None) -> Queries:
    """Returns softmax(q·kᵀ/√d)·v by two matrix products and a softmax."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # "B h N M"
    if mask is not None:
        logits = logits.masked_fill(~mask[:, None, None], -torch.inf)
    return logits.softmax(dim=-1).to(v.dtype) @ v


class Attention(nn.Module):
    """Multi-head attention from x to a context (x itself for self-attention); 0 at the start.

    Args:
        dim: Size D of the vectors of x; a multiple of `heads`.
        heads: Number of heads.
        context: Size E of the vectors of the context; `dim` if None.

    Raises:
        ValueError: If `heads` does not divide `dim`.
    """

    def __init__(self, dim: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(
                f"{heads} heads cannot share {dim} features evenly: choose a divisor of {dim}."
            )
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim if context is None else context, 2 * dim, bias=False)
        self.out = zeros(nn.Linear(dim, dim))

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        context: Float[Tensor, "B M E"] | None = None,
        mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N D"]:
        # As one matrix: of a single picture's view torch would make a slow batch of one product.
        batch, heads = len(x), self.heads
        q = rearrange(self.q(x.flatten(0, 1)), "(b n) (h d) -> b h n d", b=batch, h=heads)
        kv = self.kv((x if context is None else context).flatten(0, 1))
        k, v = rearrange(kv, "(b m) (two h d) -> two b h m d", b=batch, two=2, h=heads)
        return self.out(rearrange(attend(q, k, v, mask), "b h n d -> b n (h d)"))
