"""Mean pooling: blocks by attention between block means, keys in natural order.

The baseline "MeanPooling" of PBS-Attn (arXiv 2510.21270, Algorithm 2) as its official code has it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.block_selection import block_means, check_share, select_top_p
from common.sparse_attention.blocks import check_queries_and_keys, check_sizes
from common.sparse_attention.selection import Selection

PartialBlock = Literal["zero_padded", "own_length"]


def check_partial_block(value: str) -> None:
    """Check the name of a rule for the partial last block.

    Raises:
        InputError: it is neither "zero_padded" nor "own_length".
    """
    if value not in ("zero_padded", "own_length"):
        raise InputError(f"partial_block is {value!r}; choose 'zero_padded' or 'own_length'.")


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
        own_length = self.partial_block == "own_length"
        q_means, k_means = (block_means(x, self.block_size, own_length=own_length) for x in (q, k))
        first_column = torch.zeros(q.shape[:2], dtype=torch.int32, device=q.device)
        blocks = select_top_p(q_means, k_means, tau=self.tau, score_own=True, always=first_column)
        return Selection(blocks, block_size=self.block_size, segment_size=self.block_size)
