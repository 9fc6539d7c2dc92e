"""Multi-head attention with its keys and values apart, so that decoding can keep them; masks are written out."""

import math

import torch
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """softmax(Q K^T / sqrt(D/h)) V in h heads, then a linear layer.

    Args:
        D: width.
        heads: h, which divides D.
        dropout: of the weights.
    """

    def __init__(self, D: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(D, D) for _ in range(4))
        self.drop = nn.Dropout(dropout)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """K and V [..., h, tokens, D/h] of x [..., tokens, D]."""
        return self._split(self.key(x)), self._split(self.value(x))

    def forward(self, x: Tensor, K: Tensor, V: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Attend from x to keys and values.

        Args:
            x: [..., T, D].
            K: [..., h, S, D/h].
            V: the same.
            hidden: bool, broadcasts to [..., h, T, S], True where a key is not seen.
        """
        Q = self._split(self.query(x))
        scores = Q @ K.transpose(-1, -2) / math.sqrt(Q.shape[-1])
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        mixed = self.drop(scores.float().softmax(-1).to(V.dtype)) @ V
        return self.out(mixed.transpose(-2, -3).flatten(-2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)
