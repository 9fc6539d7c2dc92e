"""XAttention: blocks by the sums of attention logits along antidiagonals.

Xu et al., "XAttention: Block Sparse Attention with Antidiagonal Scoring", arXiv 2503.16428 (ICML 2025). Official
code: commit e379887.

    L[m, n] = mean over s = 0, ..., S - 1 of q_{mS + S - 1 - s} · k_{nS + s} / sqrt(d)     the antidiagonal of an S x S tile
    W[m]    = softmax over n <= m of L[m, n]
    s[i, j] = sum of W over the (B / S) x (B / S) tiles of block (i, j), divided by the sum of row i
    select  column 0 and the diagonal, then the others by descending s, up to and including the one that reaches tau

An antidiagonal meets every row and every column of its tile once, so that no column of attention escapes, at 1 / S of the cost
of the full product. Of the diagonals r - c = o, those with an even offset escape where S is even: it meets odd offsets alone.

| item | paper | official code | here |
|---|---|---|---|
| tau | one number, or lowered head by head (not confirmed) | one number, or a table by layer and head | one number |
| default tau, stride | - | 0.8 or 0.9, none; as a baseline of PBS-Attn 0.9, 8 | 0.9, 8 |
| column 0 and the diagonal | - | always selected, and their scores counted first | code's |
| the tile on the diagonal | - | its antidiagonal whole, with pairs of a query and a later key | code's |
| N not a multiple of S or B | - | zero-padded; tiles of nothing but padding count for nothing | code's |
| precision of L and W | - | the input's; W float32 until summed | float32 (float64 for float64 input) throughout |
| tau = 1 | - | rounding decides | keeps all |
| equal scores | - | left to the sort | lower column first |
| keep_sink, keep_recent | - | query row 0, and the diagonal once more: no effect on the mask | absent |
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from common.errors import InputError
from common.kernels.block_selection.top_p import ROUNDING, check_share
from common.kernels.checks import check_positive_int
from common.sparse_attention.blocks import causal_blocks, check_queries_and_keys, check_sizes, number_of_blocks
from common.sparse_attention.products import query_key_products
from common.sparse_attention.selection import Selection

# L held at once; W is as large.
CHUNK_BYTES = 512 * 2**20


def antidiagonal_scores(q: Tensor, k: Tensor, block_size: int, stride: int) -> Tensor:
    """Share of every block in the softmax over antidiagonals, streamed over query blocks.

    Args:
        q: queries [B, H, N, D].
        k: keys [B, Hkv, N, D]; Hkv divides H.
        block_size: tokens per block, a multiple of stride.
        stride: S; 1 gives the exact block mass (`block_attention_mass`).

    Returns:
        [B, H, T, T], float32 (float64 for float64 input); rows sum to 1, zero above the diagonal.
    """
    B, H, N, D = q.shape
    T, tiles = number_of_blocks(N, block_size), block_size // stride
    keys = pad(k, (0, 0, 0, T * block_size - N)).unflatten(2, (-1, stride)).flatten(3)  # [B, Hkv, T * tiles, S * D]
    places = torch.arange(T * tiles, device=q.device)
    scores = q.new_zeros(B, H, T, T, dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)
    step = max(1, CHUNK_BYTES // (scores.element_size() * B * H * tiles * T * tiles))
    for start in range(0, T, step):
        end = min(start + step, T)
        # Keys after the last tile of these rows are invisible to all of them.
        row, column = places[start * tiles : end * tiles, None], places[: end * tiles]
        queries = q[:, :, start * block_size : end * block_size]
        queries = pad(queries, (0, 0, 0, (end - start) * block_size - queries.shape[2]))
        reversed_queries = queries.unflatten(2, (-1, stride)).flip(3).flatten(3)
        logits = query_key_products(reversed_queries, keys[:, :, : end * tiles]).mul_(D**-0.5 / stride)
        weights = logits.masked_fill_(column > row, float("-inf")).softmax(-1).masked_fill_(row * stride >= N, 0.0)
        scores[:, :, start:end, :end] = weights.unflatten(3, (end, tiles)).sum(4).unflatten(2, (-1, tiles)).sum(3)
    return scores / scores.sum(-1, keepdim=True)


def forced_and_shortest_prefix(shares: Tensor, tau: float, forced: Tensor, allowed: Tensor) -> Tensor:
    """Per row the forced entries, then the highest others up to and including the one with which the sum of all reaches tau.

    As `shortest_prefix`, but for the forced entries, which are counted first.

    Args:
        shares: [..., T], non-negative, zero where not allowed; rows sum to 1.
        tau: share to reach, in (0, 1]; 1 keeps all allowed entries.
        forced: bool, broadcastable to shares; a subset of allowed.
        allowed: bool, broadcastable to shares.

    Returns:
        bool, the shape of shares.
    """
    if tau == 1:
        return allowed.expand_as(shares)
    ranked = shares.masked_fill(~allowed, -1.0).masked_fill(forced, float("inf"))
    order = ranked.argsort(dim=-1, descending=True, stable=True)
    ordered = shares.gather(-1, order)
    kept = ~(ordered.cumsum(-1) - ordered >= tau - ROUNDING)  # the sum before each; a NaN keeps its row
    return torch.zeros_like(kept).scatter(-1, order, kept) & allowed | forced


@dataclass(frozen=True)
class XAttention:
    """Blocks by antidiagonal scores; the first column and the diagonal are always read.

    Attributes:
        block_size: tokens per block, B.
        stride: S, a divisor of block_size; one antidiagonal in each S x S tile.
        tau: share of the scores to keep, in (0, 1].

    Raises:
        InputError: an attribute is out of range.
    """

    block_size: int = 128
    stride: int = 8
    tau: float = 0.9

    def __post_init__(self):
        check_sizes(self.block_size, self.block_size)
        check_positive_int("stride", self.stride)
        if self.block_size % self.stride:
            raise InputError(f"stride {self.stride} does not divide block_size {self.block_size}; choose a divisor.")
        check_share("tau", self.tau)

    @property
    def name(self) -> str:
        """Short name, used in tables."""
        return "xattention"

    def select(self, q: Tensor, k: Tensor) -> Selection:
        """Select blocks for q [B, H, N, D], k [B, Hkv, N, D]. Takes O(N^2 D / stride) time."""
        check_queries_and_keys(q, k)
        shares = antidiagonal_scores(q, k, self.block_size, self.stride)
        T = shares.shape[-1]
        causal = causal_blocks(T, q.device)
        forced = torch.eye(T, dtype=torch.bool, device=q.device)
        forced[:, 0] = True
        mask = forced_and_shortest_prefix(shares, self.tau, forced, causal)
        return Selection(mask, block_size=self.block_size, segment_size=self.block_size)
