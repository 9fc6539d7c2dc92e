"""FlexPrefill: a pattern and a budget for every head, from the attention of the last queries.

Lai et al., "FlexPrefill: A Context-Aware Sparse Attention Mechanism for Efficient Long-Sequence Inference", arXiv 2502.20766
(ICLR 2025). Official code: commit a24b27b.

With Q_last the last B queries and A = softmax(Q_last K^T / sqrt(d)), causal:

    1. vertical[c] = mean over rows of A[r, c], slash[o] = sum over rows of A[r, pos(r) - o] / B, both also summed by block
    2. ā = softmax over blocks j of mean(Q_last) · k̄_j / sqrt(d);   D = sqrt(JS(ā, vertical by block))
    3. D < tau: query-aware, ā is a good estimate of A. Else vertical-slash.
    4. vertical-slash: the n_v largest column blocks and the n_s largest block offsets; n from how many columns (offsets) hold
       the share gamma of the attention
    5. query-aware: P_i = softmax over j <= i of q̄_i · k̄_j / sqrt(d); of all T^2 entries the largest that sum to gamma T

JS(p, q) = KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2 and the natural logarithm, so that D <= sqrt(ln 2) = 0.83.

| item | paper | official code | here |
|---|---|---|---|
| gamma, tau, smallest budget | - | by script; as others' baseline 0.95, 0.1, one block | 0.95, 0.1, one block |
| n_v, n_s | lines until the sum reaches gamma | floor((lines with sum <= gamma, + 1) / 128) + 1 blocks | B for 128 |
| block 0, block offset 0 | - | always selected, as the first of n_v and n_s | code's |
| step 5 | - | all T^2 entries in one order; the one that crosses gamma T is left out | code's |
| other blocks of query-aware heads | - | vertical-slash of the smallest budget | code's |
| windows of block offsets | - | from the far end: the nearest is short where B does not divide N | from offset 0 |
| mean of a partial block | - | over its own rows | code's |
| p = 0 in JS | - | NaN, hence vertical-slash | 0 log 0 = 0 |
| gamma = 1 | - | rounding decides | keeps all |
| equal scores | - | left to the sort | lower index first |
| N <= max(2 B, smallest budget) | - | plain causal | plain causal |
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.block_selection import block_means, check_share, pooled_attention
from common.sparse_attention.blocks import causal_blocks, check_queries_and_keys, check_sizes, number_of_blocks
from common.sparse_attention.dense import causal_selection
from common.sparse_attention.selection import Selection
from common.sparse_attention.vertical_slash import largest, sums_by_block, vertical_slash_mask, vertical_slash_scores

# Entries of P sorted at once.
CHUNK_ENTRIES = 16 * 2**20


def jensen_shannon_distance(p: Tensor, q: Tensor) -> Tensor:
    """D = sqrt(JS(p, q)) of distributions [..., T], with the natural logarithm: float64 [...], from 0 to sqrt(ln 2)."""
    p, q = p.double(), q.double()
    m = (p + q) / 2
    divergence = sum((x.xlogy(x) - x.xlogy(m)).sum(-1) for x in (p, q)) / 2
    return torch.as_tensor(divergence).clamp(min=0).sqrt()


def estimated_last_attention(q_last: Tensor, k_means: Tensor) -> Tensor:
    """Attention of the mean of the last queries to the block means: ā.

    Args:
        q_last: [B, H, M, D].
        k_means: float32 [B, Hkv, T, D]; Hkv divides H.

    Returns:
        float32 [B, H, T]; rows sum to 1.
    """
    B, H, _, D = q_last.shape
    mean = q_last.mean(2, dtype=torch.float32).reshape(B, k_means.shape[1], -1, D)
    return ((mean @ k_means.mT).reshape(B, H, -1) * D**-0.5).softmax(-1)


def blocks_to_reach(scores: Tensor, gamma: float, block_size: int) -> Tensor:
    """The budget n_v or n_s: floor((lines whose cumulated sum stays within gamma, + 1) / B) + 1.

    Args:
        scores: [..., N], by column or by offset; rows sum to 1.
        gamma: share to reach, in (0, 1].
        block_size: B.

    Returns:
        int64 [...].
    """
    if gamma == 1:
        within = torch.full(scores.shape[:-1], scores.shape[-1], device=scores.device)
    else:
        within = (scores.sort(dim=-1, descending=True).values.cumsum(-1) <= gamma).sum(-1)
    return (within + 1) // block_size + 1


def largest_within(attention: Tensor, gamma: float) -> Tensor:
    """Of each head's T^2 entries the largest whose sum stays within gamma T.

    Args:
        attention: [heads, T, T], causal; rows sum to 1.
        gamma: in (0, 1]; 1 keeps all.

    Returns:
        bool [heads, T, T]. The entry that would cross gamma T is left out.
    """
    heads, T, _ = attention.shape
    kept = torch.ones(heads, T * T, dtype=torch.bool, device=attention.device)
    if gamma < 1:
        step = max(1, CHUNK_ENTRIES // T**2)
        for start in range(0, heads, step):
            ordered, entries = attention[start : start + step].flatten(1).sort(dim=-1, descending=True, stable=True)
            within = ordered.cumsum(-1, dtype=torch.float64) <= gamma * T  # float32 would lose the sum of a million entries
            kept[start : start + step] = torch.zeros_like(within).scatter(-1, entries, within)
    return kept.view(heads, T, T) & causal_blocks(T, attention.device)


@dataclass(frozen=True)
class FlexPrefill:
    """Vertical-slash or query-aware blocks, by head. The first column and the diagonal are always read.

    Attributes:
        block_size: tokens per block, B.
        gamma: share of the attention to keep, in (0, 1].
        tau: a head is query-aware if its distance D is below; 0 makes all heads vertical-slash.
        min_budget: tokens; smallest n_v and n_s, rounded up to whole blocks, at least one.
        max_budget: tokens; largest n_v and n_s, rounded up to whole blocks. None for no limit.

    Raises:
        InputError: an attribute is out of range.
    """

    block_size: int = 128
    gamma: float = 0.95
    tau: float = 0.1
    min_budget: int = 0
    max_budget: int | None = None

    def __post_init__(self):
        check_sizes(self.block_size, self.block_size)
        check_share("gamma", self.gamma)
        if not 0 <= self.tau < math.inf:
            raise InputError(f"tau is {self.tau}; it must be a finite number, at least 0 (0 turns query-aware heads off).")
        for field, value in (("min_budget", self.min_budget), ("max_budget", self.max_budget)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise InputError(f"{field} is {value!r}; it must be 0 or a positive integer number of tokens.")
        if self.max_budget is not None and self.max_budget < max(1, self.min_budget):
            raise InputError(
                f"max_budget is {self.max_budget} and min_budget {self.min_budget}; max_budget must be at least 1 and not "
                "below min_budget."
            )

    @property
    def name(self) -> str:
        """Short name, used in tables."""
        return "flexprefill"

    def select(self, q: Tensor, k: Tensor) -> Selection:
        """Select blocks for q [B, H, N, D], k [B, Hkv, N, D]. Waits for the device, to see which heads are query-aware."""
        check_queries_and_keys(q, k)
        B, T = self.block_size, number_of_blocks(q.shape[2], self.block_size)
        fewest = max(1, number_of_blocks(self.min_budget, B))
        most = T if self.max_budget is None else number_of_blocks(self.max_budget, B)
        if q.shape[2] <= B * max(2, fewest):
            return causal_selection(q, B)

        vertical, slash = (scores / B for scores in vertical_slash_scores(q, k, B))
        columns, offsets = sums_by_block(vertical, B), sums_by_block(slash, B)
        k_means = block_means(k, B, own_length=True)
        estimate = estimated_last_attention(q[:, :, -B:], k_means)
        query_aware = jensen_shannon_distance(estimate, columns) < self.tau  # [batch, H]

        columns[..., 0] = offsets[..., 0] = float("inf")
        chosen = []
        for by_line, by_block in ((vertical, columns), (slash, offsets)):
            budget = blocks_to_reach(by_line, self.gamma, B).clamp(min=fewest).clamp(max=most)
            chosen.append(largest(by_block, budget.masked_fill(query_aware, fewest)[..., None]))
        mask = vertical_slash_mask(*chosen)
        if bool(query_aware.any()):
            attention = pooled_attention(block_means(q, B, own_length=True), k_means, causal_blocks(T, q.device))
            mask[query_aware] |= largest_within(attention[query_aware], self.gamma)
        return Selection(mask, block_size=B, segment_size=B)
