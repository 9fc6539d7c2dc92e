"""Multi-head attention, masks and the positional encoding of TSCAN (Nie et al., 2023, arXiv 2306.01970).

There is no input embedding: a token is as wide as the data, w; heads have 64 dimensions each, 512 in all.
"""

import math

import torch
from torch import Tensor, nn

from common.errors import InputError

MASKED = -1e9


def positional_encoding(tokens: int, width: int) -> Tensor:
    """Sines, then cosines: PE[pos, i] of frequency 10000^(-2 floor(i / 2) / w), even i to the sines, odd to the cosines.

    Args:
        tokens: positions.
        width: w; an odd width has one sine more than cosines.

    Returns:
        float32 [tokens, width].
    """
    i = torch.arange(width, dtype=torch.float64)
    angles = torch.arange(tokens, dtype=torch.float64)[:, None] * 10000 ** (-2 * (i // 2) / width)
    return torch.cat([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=1).float()


def causal_mask(tokens: int, device: torch.device | None = None) -> Tensor:
    """True where a query (row) may not see a key (column): the later ones. Bool [tokens, tokens]."""
    return torch.ones(tokens, tokens, dtype=torch.bool, device=device).triu(1)


def received_attention(weights: Tensor) -> Tensor:
    """The paper's weight of a token: the mean attention that it receives as a key, over heads and queries.

    Args:
        weights: [B, heads, queries, keys].

    Returns:
        [B, keys]; the sum over keys is 1.
    """
    return weights.mean(dim=(1, 2))


class MultiHeadAttention(nn.Module):
    """softmax(q k^T / sqrt(64) + mask * -1e9) v, heads side by side, then a dense layer of the output width.

    Args:
        width: w of queries, of keys and of the output.
        value_width: of values.
        E: width of all heads together.
        heads: how many.

    Raises:
        InputError: heads do not divide E.
    """

    def __init__(self, width: int, value_width: int, E: int, heads: int):
        super().__init__()
        if E % heads:
            raise InputError(f"E is {E} and heads {heads}; heads must divide E.")
        self.heads = heads
        self.W_q, self.W_k, self.W_v = nn.Linear(width, E), nn.Linear(width, E), nn.Linear(value_width, E)
        self.W_o = nn.Linear(E, width)

    def forward(self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            Q: [B, n, w].
            K: [B, m, w].
            V: [B, m, value width].
            mask: bool, to be broadcast to [B, n, m]; True where a query may not see a key. A query that may see none sees all.

        Returns:
            [B, n, w] and the weights [B, heads, n, m].
        """
        q, k, v = (self._split(x) for x in (self.W_q(Q), self.W_k(K), self.W_v(V)))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = torch.where(mask.unsqueeze(-3), MASKED, scores)
        weights = scores.softmax(-1)
        return self.W_o((weights @ v).transpose(1, 2).flatten(2)), weights

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
