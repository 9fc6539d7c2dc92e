"""ProxyAttn: blocks scored by a few averaged heads, as many of them as each head needs.

Wang et al., "ProxyAttn: Guided Sparse Attention via Representative Heads", arXiv 2509.24745 (ICLR 2026).

Heads of a layer agree on *which* tokens matter and differ in *how many* they need. So the scores of key blocks come from a few
proxy heads, averages of the heads of a group, at the resolution of tokens; and each head takes as many of the best blocks as
its own last queries ask for. Training-free, at prefill; decoding stays dense.

    1. Q_g, K_g = means over the heads of group g;  A_g = maxpool(softmax(Q_g K_g^T / sqrt(d)))     (Equations 1 and 2)
    2. a_i = avgpool(softmax(Q_i[last block] K_i^T / sqrt(d))), sorted, normalised;
       b_i = smallest k whose sum reaches gamma, over all T blocks                                  (Algorithm 1)
    3. M_i[m, n] = 1 if block n is among the top b_i T of A_g[m, ·]                                  (Equation 3)

Notation: q [B, H, N, d], k [B, H_kv, N, d] after rotary embedding, b tokens a block, T = ceil(N / b), heads in g groups.

The paper's text was not at hand; this follows public notes that reproduce its equations and its Algorithm 1. Where they leave
room:

| item | paper, through the notes | here |
|---|---|---|
| K_g where query heads share keys | mean over the group's heads | mean over its key heads: the same |
| stride s = 4 | of s consecutive tokens the first, on both sides | the same |
| causal mask of the strided map | not found | strided query i sees strided key j <= i, so a block always sees itself |
| causal mask in the last block (2) | not found | causal |
| Algorithm 1 counts k from 0 | literal: one block fewer than reach gamma | k + 1; `count="literal"` for the other |
| budget of a row | b_i T, whatever the row's length | the same; `budget="row_share"` takes b_i of the row's own blocks |
| first block, own block | not stated | always read; `forced=False` leaves them to their scores |
| block size | not found | 128 |
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.attention_block_max import attention_block_max
from common.kernels.block_selection import check_share
from common.sparse_attention.block_mass import block_attention_mass
from common.sparse_attention.blocks import causal_blocks, check_queries_and_keys, check_sizes, number_of_blocks
from common.sparse_attention.products import query_key_products
from common.sparse_attention.selection import Selection


def proxy_heads(q: Tensor, k: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Average the heads of every group: [B, g, N, d] each. Consecutive heads form a group; key heads stay whole."""
    Q_g, K_g = (x.unflatten(1, (groups, -1)).mean(2, dtype=torch.promote_types(x.dtype, torch.float32)) for x in (q, k))
    return Q_g.to(q.dtype), K_g.to(k.dtype)


def proxy_scores(
    q: Tensor, k: Tensor, *, block_size: int, groups: int, stride: int, pooling: Literal["max", "mean"] = "max"
) -> Tensor:
    """A_g: the proxy heads' attention at every stride-th token, pooled over blocks (Equations 1 and 2).

    Args:
        q: [B, H, N, d].
        k: [B, H_kv, N, d].
        block_size: b, a multiple of the stride.
        groups: g, a divisor of H_kv.
        stride: s.
        pooling: "max" as in the paper; "mean" for comparison.

    Returns:
        float32 [B, g, T, T], zero above the diagonal.
    """
    Q_g, K_g = (x[:, :, ::stride] for x in proxy_heads(q, k, groups))
    if pooling == "max":
        return attention_block_max(Q_g, K_g, block_size=block_size // stride)
    return block_attention_mass(Q_g, K_g, block_size // stride)


def head_budgets(q: Tensor, k: Tensor, *, block_size: int, gamma: float, count: Literal["reached", "literal"]) -> Tensor:
    """b_i: the share of the T blocks that hold gamma of the last queries' attention (Algorithm 1).

    Args:
        q: [B, H, N, d].
        k: [B, H_kv, N, d].
        block_size: b; the last block may be partial.
        gamma: share of the attention, 0 < gamma <= 1.
        count: "reached" counts the block that reaches gamma; "literal" does not.

    Returns:
        float64 [B, H].
    """
    B, H, N, d = q.shape
    T, Hk = number_of_blocks(N, block_size), k.shape[1]
    first = (T - 1) * block_size
    rows = N - first
    hidden = torch.ones(rows, rows, dtype=torch.bool, device=q.device).triu(1)
    attended = torch.empty(B, H, T * block_size, dtype=torch.float64, device=q.device)
    attended[..., N:] = 0.0
    for b in range(B):
        for j in range(Hk):  # key head by key head: logits of its queries, never [H, b, N]
            group = slice(j * H // Hk, (j + 1) * H // Hk)
            logits = query_key_products(q[b, group, first:][None], k[b, j][None, None])[0].mul_(d**-0.5)
            logits[..., first:].masked_fill_(hidden, float("-inf"))
            attended[b, group, :N] = logits.softmax(-1).mean(1, dtype=torch.float64)
    a = attended.unflatten(2, (T, block_size)).sum(3)
    a = a.sort(dim=2, descending=True).values
    cumulated = a.cumsum(2) / a.sum(2, keepdim=True)
    k_from_zero = (cumulated < gamma - 1e-9).sum(2).clamp_max(T - 1)
    return (k_from_zero + (count == "reached")).double() / T


@dataclass(frozen=True)
class ProxyAttention:
    """The method as a selector.

    Attributes:
        block_size: b.
        gamma: share of the attention that sets a head's budget; the paper has 0.95 and, for speed, 0.90.
        groups: g, the number of proxy heads; a divisor of H_kv.
        stride: s, a divisor of b.
        minimum_budget: tokens that every head may read in any case.
        pooling, count, budget, forced: see the table of the module.
        fixed_budget: a share of the T blocks for all heads in place of gamma's (the paper's ablation), or None.
    """

    block_size: int = 128
    gamma: float = 0.95
    groups: int = 1
    stride: int = 4
    minimum_budget: int = 2048
    pooling: Literal["max", "mean"] = "max"
    count: Literal["reached", "literal"] = "reached"
    budget: Literal["all_blocks", "row_share"] = "all_blocks"
    forced: bool = True
    fixed_budget: float | None = None

    def __post_init__(self):
        check_sizes(self.block_size, self.block_size)
        check_sizes(self.stride, self.block_size)
        check_share("gamma", self.gamma)
        if self.fixed_budget is not None:
            check_share("fixed_budget", self.fixed_budget)
        if self.groups < 1:
            raise InputError(f"groups is {self.groups}; at least one proxy head is needed.")
        if self.minimum_budget < 0:
            raise InputError(f"minimum_budget is {self.minimum_budget}; give a number of tokens, 0 for none.")
        for name, choices in (
            ("pooling", ("max", "mean")),
            ("count", ("reached", "literal")),
            ("budget", ("all_blocks", "row_share")),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {getattr(self, name)!r}; choose {' or '.join(map(repr, choices))}.")

    @property
    def name(self) -> str:
        """Short name, used in tables."""
        return "proxy_attn"

    def select(self, q: Tensor, k: Tensor) -> Selection:
        """Select blocks for q [B, H, N, d], k [B, H_kv, N, d]. Raises InputError if groups does not divide H_kv."""
        check_queries_and_keys(q, k)
        B, H, N, _ = q.shape
        if k.shape[1] % self.groups:
            raise InputError(f"groups is {self.groups}, and k has {k.shape[1]} heads; it must divide them.")
        T = number_of_blocks(N, self.block_size)
        A = proxy_scores(q, k, block_size=self.block_size, groups=self.groups, stride=self.stride, pooling=self.pooling)
        if self.fixed_budget is None:
            b = head_budgets(q, k, block_size=self.block_size, gamma=self.gamma, count=self.count)
        else:
            b = torch.full((B, H), self.fixed_budget, dtype=torch.float64, device=q.device)

        causal = causal_blocks(T, q.device)
        # Sorted once for a group; its heads take prefixes of different length. Of equal scores the earlier block comes first.
        order = A.masked_fill(~causal, -1.0).argsort(dim=3, descending=True, stable=True)
        places = torch.arange(T, device=q.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(3, order, places)  # [B, g, T, T]
        blocks = T if self.budget == "all_blocks" else torch.arange(1, T + 1, device=q.device)[:, None]
        K = (b[:, :, None, None] * blocks - 1e-9).ceil().clamp_min(math.ceil(self.minimum_budget / self.block_size))
        mask = ((rank[:, :, None] < K.unflatten(1, (self.groups, -1))) & causal).flatten(1, 2)
        if self.forced:
            mask[..., 0] = True
            mask |= torch.eye(T, dtype=torch.bool, device=q.device)
        return Selection(mask, self.block_size, self.block_size)


def shared_mass(q: Tensor, k: Tensor, tokens: int, *, skip: int = 0) -> Tensor:
    """Score[i, j]: the attention mass of head j that the top tokens of head i hold, for the last query.

    Args:
        q: [1, H, N, d].
        k: [1, H_kv, N, d].
        tokens: how many top tokens.
        skip: first tokens that are left out of both (the attention sink).

    Returns:
        float64 [H, H]; the mass that is left is that of the keys from `skip` on.

    Raises:
        InputError: there are fewer keys than tokens.
    """
    check_queries_and_keys(q, k)
    H, N = q.shape[1:3]
    if not 0 < tokens <= N - skip:
        raise InputError(f"tokens is {tokens} for {N} keys of which {skip} are skipped; give 1 to {N - skip}.")
    keys = k[0].double().repeat_interleave(H // k.shape[1], dim=0)
    A = (keys @ q[0, :, -1].double()[..., None] * q.shape[3] ** -0.5)[..., 0].softmax(-1)[:, skip:]  # [H, N - skip]
    A = A / A.sum(-1, keepdim=True)
    top = torch.zeros_like(A).scatter_(1, A.topk(tokens, dim=1).indices, 1.0)
    return top @ A.mT
