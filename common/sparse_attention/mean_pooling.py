"""Mean pooling: attention between block means, and the selector that uses it on keys in natural order.

The selector is the baseline "MeanPooling" of PBS-Attn (arXiv 2510.21270, Algorithm 2) as its official code has it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from common.errors import InputError
from common.sparse_attention.blocks import causal_blocks, check_queries_and_keys, check_sizes, number_of_blocks
from common.sparse_attention.selection import Selection
from common.sparse_attention.top_p import check_share, shortest_prefix

PartialBlock = Literal["zero_padded", "own_length"]


def check_partial_block(value: str) -> None:
    """Check the name of a rule for the partial last block.

    Raises:
        InputError: it is neither "zero_padded" nor "own_length".
    """
    if value not in ("zero_padded", "own_length"):
        raise InputError(f"partial_block is {value!r}; choose 'zero_padded' or 'own_length'.")


def block_means(x: Tensor, block_size: int, partial_block: PartialBlock = "zero_padded") -> Tensor:
    """Mean over the rows of each block.

    Args:
        x: [B, H, N, D].
        block_size: tokens per block.
        partial_block: what a partial last block is divided by: "zero_padded" by block_size, "own_length" by its number of rows.

    Returns:
        float32 [B, H, T, D].
    """
    N = x.shape[2]
    padding = -N % block_size
    means = pad(x, (0, 0, 0, padding)).unflatten(2, (-1, block_size)).mean(3, dtype=torch.float32)
    if partial_block == "own_length" and padding:
        means[:, :, -1] *= block_size / (block_size - padding)
    return means


def pooled_attention(q_means: Tensor, k_means: Tensor, allowed: Tensor) -> Tensor:
    """Attention between block means: a_i = softmax over the allowed j of (q̄_i · k̄_j / sqrt(D)).

    Args:
        q_means: float32 [B, H, T, D].
        k_means: float32 [B, Hk, T, D]; Hk divides H, query head h reads key head h // (H / Hk).
        allowed: bool [T, T].

    Returns:
        float32 [B, H, T, T]; zero where not allowed, and all zero in a row with nothing allowed.
    """
    B, H, T, D = q_means.shape
    grouped = q_means.reshape(B, k_means.shape[1], -1, D)
    logits = (grouped @ k_means.mT).reshape(B, H, T, T) * D**-0.5
    attention = logits.masked_fill(~allowed, float("-inf")).softmax(-1)
    return attention.masked_fill(~allowed, 0.0)


@dataclass(frozen=True)
class MeanPooling:
    """Blocks by pooled attention on keys in natural order; the diagonal and the first column are always read.

    The softmax runs over all causal blocks (j <= i) and the forced blocks take part in it; they are added after the prefix is
    taken.

    Attributes:
        block_size: tokens per block, B.
        tau: share of the pooled attention to keep, 0 < tau <= 1.
        partial_block: how a partial last block is averaged (`block_means`).
    """

    block_size: int = 128
    tau: float = 0.9
    partial_block: PartialBlock = "zero_padded"

    def __post_init__(self):
        check_sizes(self.block_size, self.block_size)
        check_share("tau", self.tau)
        check_partial_block(self.partial_block)

    @property
    def name(self) -> str:
        """Short name, used in tables."""
        return "mean_pooling"

    def select(self, q: Tensor, k: Tensor) -> Selection:
        """Select blocks for q [B, H, N, D], k [B, Hkv, N, D]."""
        check_queries_and_keys(q, k)
        T = number_of_blocks(q.shape[2], self.block_size)
        causal = causal_blocks(T, q.device)
        q_means, k_means = (block_means(x, self.block_size, self.partial_block) for x in (q, k))
        mask = shortest_prefix(pooled_attention(q_means, k_means, causal), self.tau, causal)
        mask[..., 0] = True
        mask |= torch.eye(T, dtype=torch.bool, device=q.device)
        return Selection(mask, block_size=self.block_size, segment_size=self.block_size)
