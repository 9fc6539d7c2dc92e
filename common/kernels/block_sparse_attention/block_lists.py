"""Which key blocks every query block reads, as lists."""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import InputError


@dataclass(frozen=True)
class BlockLists:
    """A block mask as lists of key blocks, so that a kernel walks the selected blocks and tests nothing.

    Attributes:
        counts: int32 [batch, heads, query_blocks], how many key blocks each query block reads.
        indices: int32 [batch, heads, query_blocks, L], their numbers, ascending in the first `counts` places; the rest is 0.

    Raises:
        InputError: a shape, dtype or device does not fit. What the tensors hold is checked by `check_contents`.
    """

    counts: Tensor
    indices: Tensor

    def __post_init__(self):
        for name, x, ndim in (("counts", self.counts, 3), ("indices", self.indices, 4)):
            if x.dtype != torch.int32 or x.ndim != ndim:
                raise InputError(f"{name} is {x.dtype} {tuple(x.shape)}; expected int32 with {ndim} dimensions.")
        if self.counts.shape != self.indices.shape[:3] or self.indices.shape[3] == 0:
            raise InputError(
                f"counts has shape {tuple(self.counts.shape)} and indices {tuple(self.indices.shape)}; expected [batch, heads, "
                "query_blocks] and [batch, heads, query_blocks, L] with L >= 1."
            )
        if self.counts.device != self.indices.device:
            raise InputError(f"counts is on {self.counts.device} and indices on {self.indices.device}; they must agree.")

    @classmethod
    def from_mask(cls, mask: Tensor) -> "BlockLists":
        """List the True entries of every row of a block mask.

        Args:
            mask: bool [batch, heads, query_blocks, key_blocks].

        Returns:
            Lists with L = key_blocks, so that nothing waits for the device.

        Raises:
            InputError: mask is not bool with four dimensions, or has no key blocks.
        """
        if mask.dtype != torch.bool or mask.ndim != 4:
            raise InputError(
                f"mask is {mask.dtype} {tuple(mask.shape)}; expected bool [batch, heads, query_blocks, key_blocks]."
            )
        key_blocks = mask.shape[3]
        if key_blocks == 0:
            raise InputError(f"mask has shape {tuple(mask.shape)}; key_blocks must be at least 1.")
        rank = mask.cumsum(-1, dtype=torch.int32)
        # Every unselected block is written to place L, which is then cut off.
        place = torch.where(mask, rank - 1, key_blocks).long()
        numbers = torch.arange(key_blocks, dtype=torch.int32, device=mask.device).expand(mask.shape)
        indices = torch.zeros(*mask.shape[:3], key_blocks + 1, dtype=torch.int32, device=mask.device)
        return cls(rank[..., -1].contiguous(), indices.scatter_(-1, place, numbers)[..., :key_blocks].contiguous())

    def to_mask(self, key_blocks: int) -> Tensor:
        """The block mask: bool [batch, heads, query_blocks, key_blocks]."""
        L = self.indices.shape[3]
        listed = torch.arange(L, device=self.counts.device) < self.counts[..., None]
        mask = torch.zeros(*self.counts.shape, key_blocks + 1, dtype=torch.bool, device=self.counts.device)
        return mask.scatter_(-1, torch.where(listed, self.indices, key_blocks).long(), True)[..., :key_blocks]

    def check_contents(self, key_blocks: int, segment_blocks: int = 1) -> None:
        """Check what the lists hold. Waits for the device.

        Args:
            key_blocks: number of key blocks.
            segment_blocks: blocks per segment.

        Raises:
            InputError: a count or a number is out of range, the numbers of a row do not ascend, or a block of a later segment
                than the query block's is listed.
        """
        L = self.indices.shape[3]
        self._require((self.counts >= 0) & (self.counts <= L), f"counts must lie between 0 and L = {L}")
        place = torch.arange(L, device=self.counts.device)
        listed = place < self.counts[..., None]
        in_range = (self.indices >= 0) & (self.indices < key_blocks) | ~listed
        self._require(in_range.all(-1), f"indices must lie between 0 and {key_blocks - 1}")
        ascending = (self.indices.diff(dim=-1) > 0) | ~listed[..., 1:]
        self._require(ascending.all(-1), "the listed indices must ascend, each once")
        segment = torch.arange(self.counts.shape[2], device=self.counts.device) // segment_blocks
        causal = (self.indices // segment_blocks <= segment[:, None]) | ~listed
        self._require(causal.all(-1), f"a key block of a later segment ({segment_blocks} blocks each) is listed")

    def _require(self, holds: Tensor, rule: str) -> None:
        if not bool(holds.all()):
            b, h, i = (int(n) for n in (~holds).nonzero()[0])
            raise InputError(
                f"{rule}; batch {b}, head {h}, query block {i} has counts = {int(self.counts[b, h, i])} and indices = "
                f"{self.indices[b, h, i].tolist()[:16]}."
            )
