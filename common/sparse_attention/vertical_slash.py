"""Vertical-slash: key columns and diagonals to which the last queries attend, the pattern of MInference.

Jiang et al., "MInference 1.0: Accelerating Pre-filling for Long-Context LLMs via Dynamic Sparse Attention", arXiv 2407.02490
(NeurIPS 2024). Official code: commit fb56c91.

    A = softmax(Q_last K^T / sqrt(d)), causal, of the last 64 queries                            [64, N]
    vertical[c] = sum over rows r of A[r, c]             -> the n_v largest columns, the first 30 tokens before all others
    slash[o]    = sum over rows r of A[r, pos(r) - o]    -> the n_s largest offsets, the nearest 100 before all others

A selected column is read by every later query; a selected offset o makes the query at position r read key r - o. In blocks of
B tokens: query block i reads block j if j holds a selected column, or if the queries of i read a key of j at a selected offset:
the keys [iB - o, iB - o + B), that is the blocks i - floor(o / B) and i - ceil(o / B).

| item | paper | official code | here |
|---|---|---|---|
| pattern of a head | best of three, searched offline | vertical-slash in all released heads but Phi-3's | vertical-slash |
| n_v, n_s | by the search | by head; elsewhere, and as others' baseline, (1000, 6096) | (1000, 6096) |
| smallest n_v, n_s | - | raised to 30, 50 | 30, 50; less is an error |
| slash | keys on the diagonal | dense 64-wide tiles, not aligned | aligned tiles of B, which contain the code's |
| vertical | single columns | single columns, 64 gathered into a tile | the blocks that hold them: unit="tokens" |
| budget in blocks | - | - | unit="blocks": scores summed over B columns or offsets, ceil(n / B) taken |
| more columns than tokens | - | capped at N: n_s >= N is dense | capped at N |
| a partial last block | - | tiles end with the sequence | its diagonals as those of a whole block |

With unit="tokens" nothing that the official code reads is left out, but a block is read whole for one column: thousands of
single columns and offsets can touch every block. With unit="blocks" the budget counts what is read, as in FlexPrefill.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from common.errors import InputError
from common.kernels.checks import check_positive_int
from common.sparse_attention.blocks import check_queries_and_keys, check_sizes, number_of_blocks
from common.sparse_attention.products import query_key_products
from common.sparse_attention.selection import Selection

# Always the first to be selected, and the least that is selected (official code).
FIRST_COLUMNS, NEAREST_OFFSETS = 30, 100
FEWEST_COLUMNS, FEWEST_OFFSETS = 30, 50

# Logits of the last queries held at once; several copies live for a moment.
CHUNK_BYTES = 256 * 2**20


def diagonal_sums(attention: Tensor) -> Tensor:
    """Sums over the diagonals of the last rows of a causal attention matrix.

    Args:
        attention: [..., M, N], rows of the positions N - M, ..., N - 1; zero above the causal diagonal.

    Returns:
        [..., N]; entry o is the sum over rows r of attention[r, position of r - o].
    """
    M, N = attention.shape[-2:]
    # Backwards in both directions, row u holds offset o at place o + u. Read with rows one place longer, it lies at place o.
    rows = pad(attention.flip(-2, -1), (0, M - 1)).flatten(-2)
    return pad(rows, (0, M)).unflatten(-1, (M, N + M))[..., :N].sum(-2)


def vertical_slash_scores(q: Tensor, k: Tensor, last: int) -> tuple[Tensor, Tensor]:
    """Attention of the last queries, summed over key columns and over diagonals.

    Args:
        q: queries [B, H, N, D].
        k: keys [B, Hkv, N, D]; Hkv divides H.
        last: how many queries, M = min(last, N). A few at a time, so that the logits take 256 MiB.

    Returns:
        vertical and slash, each [B, H, N], float32 (float64 for float64 input), rows summing to M: the attention to key c, and
        the attention at offset o from the query.
    """
    B, H, N, D = q.shape
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    vertical, slash = (q.new_zeros(B, H, N, dtype=dtype) for _ in range(2))
    positions = torch.arange(N, device=q.device)
    rows = max(1, CHUNK_BYTES // (vertical.element_size() * B * H * N))
    for start in range(max(0, N - last), N, rows):
        end = min(start + rows, N)  # later keys are invisible to these rows
        logits = query_key_products(q[:, :, start:end], k[:, :, :end]).mul_(D**-0.5)
        visible = positions[:end] <= positions[start:end, None]
        attention = logits.masked_fill_(~visible, float("-inf")).softmax(-1)
        vertical[..., :end] += attention.sum(-2)
        slash[..., :end] += diagonal_sums(attention)
    return vertical, slash


def sums_by_block(scores: Tensor, block_size: int) -> Tensor:
    """Sums over windows of B: [..., N] -> [..., T]; the last may be short."""
    return _windows(scores, block_size).sum(-1)


def largest(scores: Tensor, count: int | Tensor) -> Tensor:
    """Which entries are the `count` largest of their row: bool, the shape of scores. Ties: lower index first.

    Args:
        scores: [..., T].
        count: a number, or integers [..., 1], one for each row.
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    taken = (torch.arange(scores.shape[-1], device=scores.device) < count).expand_as(order)
    return torch.zeros_like(taken).scatter(-1, order, taken)


def vertical_slash_mask(columns: Tensor, offsets: Tensor) -> Tensor:
    """M[i, j] = columns[j] or offsets[i - j], j <= i: bool [..., T, T] from bool [..., T] each, in blocks."""
    places = torch.arange(columns.shape[-1], device=columns.device)
    distance = places[:, None] - places
    return (columns[..., None, :] | offsets[..., distance.clamp(min=0)]) & (distance >= 0)


def _windows(x: Tensor, block_size: int) -> Tensor:
    """[..., N] -> [..., T, B], zeros (False) in the end."""
    return pad(x, (0, -x.shape[-1] % block_size)).unflatten(-1, (-1, block_size))


@dataclass(frozen=True)
class VerticalSlash:
    """MInference's vertical-slash in every head, with fixed sizes. The first column and the diagonal are always read.

    Attributes:
        block_size: tokens per block, B.
        vertical_size: n_v, key columns to select, at least 30.
        slash_size: n_s, offsets to select, at least 50.
        last_queries: queries whose attention is looked at.
        unit: what is ranked and counted, single "tokens" or "blocks" of B columns and offsets; see the module.

    Raises:
        InputError: an attribute is out of range or unknown.
    """

    block_size: int = 128
    vertical_size: int = 1000
    slash_size: int = 6096
    last_queries: int = 64
    unit: Literal["tokens", "blocks"] = "tokens"

    def __post_init__(self):
        check_sizes(self.block_size, self.block_size)
        for field in ("vertical_size", "slash_size", "last_queries"):
            check_positive_int(field, getattr(self, field))
        for field, fewest in (("vertical_size", FEWEST_COLUMNS), ("slash_size", FEWEST_OFFSETS)):
            if getattr(self, field) < fewest:
                raise InputError(f"{field} is {getattr(self, field)}; it must be at least {fewest}, the method's minimum.")
        if self.unit not in ("tokens", "blocks"):
            raise InputError(f"unit is {self.unit!r}; choose 'tokens' or 'blocks'.")

    @property
    def name(self) -> str:
        """Short name, used in tables."""
        return "vertical_slash"

    def select(self, q: Tensor, k: Tensor) -> Selection:
        """Select blocks for q [B, H, N, D], k [B, Hkv, N, D]."""
        check_queries_and_keys(q, k)
        vertical, slash = vertical_slash_scores(q, k, self.last_queries)
        vertical[..., :FIRST_COLUMNS] = float("inf")
        slash[..., :NEAREST_OFFSETS] = float("inf")
        if self.unit == "blocks":
            columns, offsets = (
                largest(sums_by_block(scores, self.block_size), number_of_blocks(size, self.block_size))
                for scores, size in ((vertical, self.vertical_size), (slash, self.slash_size))
            )
        else:
            columns = _windows(largest(vertical, self.vertical_size), self.block_size).any(-1)
            selected = _windows(largest(slash, self.slash_size), self.block_size)
            offsets = selected.any(-1)  # floor(o / B)
            offsets[..., 1:] |= selected[..., :-1, 1:].any(-1)  # ceil(o / B), another where B does not divide o
        mask = vertical_slash_mask(columns, offsets)
        return Selection(mask, block_size=self.block_size, segment_size=self.block_size)
