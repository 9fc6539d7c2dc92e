"""The densest selector: every causal block."""

from dataclasses import dataclass

from torch import Tensor

from common.sparse_attention.blocks import causal_blocks, check_queries_and_keys, check_sizes, number_of_blocks
from common.sparse_attention.selection import Selection


def causal_selection(q: Tensor, block_size: int) -> Selection:
    """Every block at or below the diagonal, keys in natural order: plain causal attention for q [B, H, N, D]."""
    B, H, N, _ = q.shape
    T = number_of_blocks(N, block_size)
    mask = causal_blocks(T, q.device).expand(B, H, T, T)
    return Selection(mask, block_size=block_size, segment_size=block_size)


@dataclass(frozen=True)
class Dense:
    """Select every causal block: plain causal attention through the block-sparse kernel.

    Attributes:
        block_size: tokens per block.
    """

    block_size: int = 128

    def __post_init__(self):
        check_sizes(self.block_size, self.block_size)

    @property
    def name(self) -> str:
        """Short name, used in tables."""
        return "dense"

    def select(self, q: Tensor, k: Tensor) -> Selection:
        """Select every causal block of q [B, H, N, D], k [B, Hkv, N, D]."""
        check_queries_and_keys(q, k)
        return causal_selection(q, self.block_size)
