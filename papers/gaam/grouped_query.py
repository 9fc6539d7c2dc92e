"""Grouped-query attention over layers (Ainslie et al., 2023), as the GQ variant of GAAM has it: GQGAAM (GQDAAM in version 4).

GAAM, then Linear(d → 512), 8 query heads of width 64 on 2 key/value heads, LayerNorm on their 128 features, Linear(128 → 512).

The official code sums the scores of the four query heads of a group before the softmax, so that they share one map and a group
has one output, and it divides by sqrt(64) twice. `per_query=True` is the attention of the citation: a map for each query head,
divided once; its 512 features go to the output layer.
"""

import torch
from torch import Tensor, nn

from common.errors import InputError


class GroupedQueryAttention(nn.Module):
    """Reads X [..., N, d] and writes [..., N, width].

    Args:
        d: features that come in.
        width: of the result (paper: 512).
        query_heads: a multiple of key_heads.
        key_heads: also of values.
        head: width of a head.
        per_query: see the module's text.

    Raises:
        InputError: key_heads does not divide query_heads.
    """

    def __init__(self, d: int, width: int, query_heads: int, key_heads: int, head: int, *, per_query: bool = False):
        super().__init__()
        if query_heads % key_heads:
            raise InputError(f"{key_heads} key heads do not divide {query_heads} query heads.")
        self.query_heads, self.key_heads, self.head, self.per_query = query_heads, key_heads, head, per_query
        self.reduce = nn.Linear(d, width)
        self.query = nn.Linear(width, query_heads * head)
        self.key = nn.Linear(width, key_heads * head)
        self.value = nn.Linear(width, key_heads * head)
        joined = (query_heads if per_query else key_heads) * head
        self.normalisation = nn.LayerNorm(joined)
        self.out = nn.Linear(joined, width)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, X: Tensor) -> Tensor:
        """X [..., N, d] to [..., N, width]."""
        x = self.reduce(X)
        groups = self.query_heads // self.key_heads
        # Query head number k * groups + i belongs to key head k.
        Q = self.query(x).unflatten(-1, (self.key_heads, groups, self.head)).movedim(-4, -2)  # [..., keys, groups, N, head]
        K = self.key(x).unflatten(-1, (self.key_heads, self.head)).movedim(-3, -2)  # [..., keys, N, head]
        V = self.value(x).unflatten(-1, (self.key_heads, self.head)).movedim(-3, -2)
        if self.per_query:
            scores = Q @ K.transpose(-1, -2)[..., None, :, :] / self.head**0.5
            mixed = torch.softmax(scores, dim=-1) @ V[..., None, :, :]  # [..., keys, groups, N, head]
            mixed = mixed.movedim(-2, -4).flatten(-3)
        else:
            # The sum of a group's scores is the score of the sum of its queries; sqrt(head) twice is head.
            scores = Q.sum(-3) @ K.transpose(-1, -2) / self.head
            mixed = (torch.softmax(scores, dim=-1) @ V).movedim(-2, -3).flatten(-2)
        return self.out(self.normalisation(mixed))
