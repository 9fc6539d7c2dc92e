"""HiP Attention: the top keys of every block of queries by a beam search over a tree of key positions.

Lee et al., "A Training-Free Sub-quadratic Cost Transformer Model Serving Framework with Hierarchically Pruned Attention",
arXiv 2406.09827 (ICLR 2025), Section 3.

Neighbouring keys have similar scores. So the k best keys of a query are looked for from coarse to fine: the keys are cut into
chunks, each chunk is halved, a half is judged by its centre key, the better half of the halves stays, and so on until every
chunk is one block of b_k keys. Exact softmax attention then reads these keys, the first ones (sink) and the last ones (window).

    start:    n = k / b_k chunks of equal length over the M = ceil(T_c / b_k) key blocks of the search     (Section 3.1, step 1)
    round:    (f, l) -> (f, m), (m, l), m in the middle; score of a half = max q · k over the queries of the block, every
              b_sq-th of them, and the tokens of the half's centre block, every b_sk-th; the n best halves stay  (step 2; 3.2)
    result:   the n key blocks that are left, ascending                                                    (step 3)

Cost: O(T k log(T / k)) products, O(T n / b_q) indices. Scores are neither scaled nor normalised: only their order counts.

Notation: q [B, H, N, d], k [B, H_kv, N, d] after rotary embedding; ceil(N / b_q) query blocks.

Where the paper leaves room, or differs from its official code (v1.1):

| item | paper | official code | here |
|---|---|---|---|
| representative of a half | centre (3.1, theorem); last (3.2, formula) | centre by default | centre, or as set |
| first chunks | k / b_k (a figure: 2 k / b_k) | k / b_k | k / b_k |
| integers | - | floor(i M / n), empty halves lose | the same |
| searched keys | all | without window and sink | the same |
| window | - | of every query | from `window` tokens before the block's first query on, for all its queries |
| sampled queries | every b_sq-th | odd rows for b_sq = 2 | the last of every b_sq, and a partial block's last |
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.errors import InputError
from common.sparse_attention.blocks import check_queries_and_keys

Representative = Literal["first", "center", "last"]

SEARCH_BYTES = 2**28
"""Of representative keys that are gathered at a time."""


@dataclass(frozen=True)
class HierarchicalPruning:
    """Settings of the search.

    Attributes:
        block_q: b_q, queries that share a list.
        block_k: b_k, keys that are kept or dropped together.
        top_k: k, keys of a list, a multiple of b_k.
        window: keys before a query block that are read in any case.
        sink: first keys that are read in any case.
        stride_q: b_sq.
        stride_k: b_sk.
        representative: which block of a half stands for it.

    Raises:
        InputError: a number is out of range or a name unknown.
    """

    block_q: int = 32
    block_k: int = 2
    top_k: int = 512
    window: int = 256
    sink: int = 16
    stride_q: int = 2
    stride_k: int = 1
    representative: Representative = "center"

    def __post_init__(self):
        for name, least in (
            ("block_q", 1), ("block_k", 1), ("top_k", 1), ("window", 0), ("sink", 0), ("stride_q", 1), ("stride_k", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} is {value!r}; give an integer of at least {least}.")
        if self.top_k % self.block_k:
            raise InputError(f"top_k is {self.top_k} and block_k {self.block_k}; top_k must be a multiple of it.")
        if self.stride_q > self.block_q or self.stride_k > self.block_k:
            raise InputError(
                f"stride_q {self.stride_q} and stride_k {self.stride_k} must not exceed block_q {self.block_q} and block_k "
                f"{self.block_k}."
            )
        if self.representative not in ("first", "center", "last"):
            raise InputError(f"representative is {self.representative!r}; choose 'first', 'center' or 'last'.")

    def searched(self, length: int) -> Tensor:
        """M: how many key blocks each query block searches, of those from the sink on: int64 [ceil(N / b_q)]."""
        first_query = torch.arange(0, length, self.block_q)
        tokens = (first_query - self.window - self.sink).clamp_min(0)
        return tokens // self.block_k  # what is left belongs to the window


@dataclass(frozen=True)
class KeyLists:
    """The keys that every query block reads besides sink and window.

    Attributes:
        settings: of the search.
        blocks: int64 [B, H, ceil(N / b_q), n], numbers of key blocks counted from the sink on, ascending; -1 behind them.
        length: N.
    """

    settings: HierarchicalPruning
    blocks: Tensor
    length: int

    def mask(self) -> Tensor:
        """Which keys each query reads, sink and window among them: bool [B, H, N, N]. For short sequences."""
        s, N = self.settings, self.length
        B, H, Tq = self.blocks.shape[:3]
        device = self.blocks.device
        tokens = s.sink + self.blocks[..., None] * s.block_k + torch.arange(s.block_k, device=device)
        listed = torch.zeros(B, H, Tq, N + 1, dtype=torch.bool, device=device)
        tokens = tokens.masked_fill(self.blocks[..., None] < 0, N).flatten(3)
        listed.scatter_(3, tokens, True)
        keys = torch.arange(N, device=device)
        first_query = torch.arange(Tq, device=device) * s.block_q
        searched = self.settings.searched(N).to(device)
        in_window = keys >= (s.sink + searched * s.block_k)[:, None]
        in_window = torch.where((first_query <= s.window + s.sink)[:, None], True, in_window)
        visible = listed[..., :N] | in_window | (keys < s.sink)
        causal = keys <= keys[:, None]
        return visible.repeat_interleave(s.block_q, dim=2)[:, :, :N] & causal


def search(q: Tensor, k: Tensor, settings: HierarchicalPruning) -> KeyLists:
    """Find the key blocks of every query block.

    Args:
        q: floating [B, H, N, d].
        k: floating [B, H_kv, N, d].
        settings: of the search.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
    """
    check_queries_and_keys(q, k)
    B, H, N, _ = q.shape
    s = settings
    n = s.top_k // s.block_k
    searched = s.searched(N)
    blocks = torch.full((B, H, len(searched), n), -1, dtype=torch.int64, device=q.device)
    everything = torch.arange(n, device=q.device)
    chunk = max(1, SEARCH_BYTES // (B * H * 2 * n * s.block_k * q.shape[3] * 4))
    for rows in torch.arange(len(searched)).split(chunk):
        M = searched[rows].to(q.device)
        few = n >= M
        all_of_them = torch.where(everything < M[:, None], everything, -1)
        blocks[:, :, rows] = torch.where(few[:, None], all_of_them, -1)
        if not bool(few.all()):
            long = rows[~few.cpu()]
            blocks[:, :, long] = _beam(q, k, s, long, searched[long].to(q.device), n)
    return KeyLists(s, blocks, N)


def _beam(q: Tensor, k: Tensor, s: HierarchicalPruning, rows: Tensor, M: Tensor, n: int) -> Tensor:
    """The rounds of the search for the query blocks `rows`, whose M [R] exceed n: int64 [B, H, R, n], ascending."""
    B, H = q.shape[:2]
    Q = _sampled_queries(q, s, rows)  # [B, H, R, b_q / b_sq, d]
    i = torch.arange(n, device=q.device)
    f, e = i * M[:, None] // n, (i + 1) * M[:, None] // n  # halves [f, e): e is the paper's l + 1
    f, e = (x.expand(B, H, -1, -1) for x in (f, e))
    while bool((e - f > 1).any()):
        m = (f + e + 1) // 2
        f, e = torch.cat([f, m], dim=3), torch.cat([m, e], dim=3)
        scores = _scores(Q, k, s, _representatives(f, e, s.representative)).masked_fill(e <= f, float("-inf"))
        kept = scores.topk(n, dim=3).indices
        f, e = f.gather(3, kept), e.gather(3, kept)
    return f.sort(dim=3).values


def _representatives(f: Tensor, e: Tensor, which: Representative) -> Tensor:
    """The block that stands for each half [f, e); of an empty one some block."""
    if which == "first":
        return f
    return (e - 1).clamp_min(0) if which == "last" else (f + (e - 1).clamp_min(f)) // 2


def _sampled_queries(q: Tensor, s: HierarchicalPruning, rows: Tensor) -> Tensor:
    """The last of every b_sq queries of each block, a partial block's last for those it lacks: [B, H, R, b_q / b_sq, d]."""
    offsets = torch.arange(s.stride_q - 1, s.block_q, s.stride_q)
    places = (rows[:, None] * s.block_q + offsets).clamp_max(q.shape[2] - 1)
    return q[:, :, places.to(q.device)]


def _scores(Q: Tensor, k: Tensor, s: HierarchicalPruning, blocks: Tensor) -> Tensor:
    """Greatest q · k over a block's sampled queries and the sampled keys of `blocks` [B, H, R, m]: at least float32."""
    B, H, R, m = blocks.shape
    offsets = torch.arange(0, s.block_k, s.stride_k, device=k.device)
    places = (s.sink + blocks[..., None] * s.block_k + offsets).clamp_max(k.shape[2] - 1)  # [B, H, R, m, b_k / b_sk]
    dtype = torch.promote_types(k.dtype, torch.float32)
    keys = k.repeat_interleave(H // k.shape[1], dim=1)
    gathered = keys.gather(2, places.flatten(2)[..., None].expand(-1, -1, -1, k.shape[3]))
    gathered = gathered.view(B, H, R, m * len(offsets), -1).to(dtype)
    products = Q.to(dtype) @ gathered.mT  # [B, H, R, b_q / b_sq, m * b_k / b_sk]
    return products.amax(3).unflatten(3, (m, -1)).amax(4)
