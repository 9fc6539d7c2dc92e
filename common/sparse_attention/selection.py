"""What a selector returns, and attention over it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.block_sparse_attention import BlockLists, block_sparse_attention
from common.kernels.segment_sort import gather_keys_values
from common.sparse_attention.blocks import check_queries_and_keys, check_sizes, number_of_blocks, readable_blocks


@dataclass(frozen=True)
class Selection:
    """The key blocks that every query block reads, and the order in which the keys are laid out.

    Attributes:
        selected: what the selector made: lists of blocks, or a mask, bool [B, H, T, T]; mask[b, h, i, j]: query block i reads
            block j **of the laid-out (permuted) keys**. `mask` and `blocks` give the one and the other.
        block_size: tokens per block.
        segment_size: tokens per segment, a multiple of block_size: keys are permuted inside segments only. Equal to block_size
            when nothing is permuted.
        key_order: int32 [B, H or Hkv, N], the original position of the key at each place; None is the natural order.

    Raises:
        InputError: a shape, dtype, device or size does not fit. What the tensors hold is checked by `check_contents`.
    """

    selected: Tensor | BlockLists
    block_size: int
    segment_size: int
    key_order: Tensor | None = None

    def __post_init__(self):
        check_sizes(self.block_size, self.segment_size)
        mask = self.selected
        if isinstance(mask, Tensor) and (mask.dtype != torch.bool or mask.ndim != 4 or mask.shape[2] != mask.shape[3]):
            raise InputError(f"mask is {mask.dtype} {tuple(mask.shape)}; expected bool [batch, heads, T, T].")
        if self.key_order is None:
            return
        order, (B, H, T) = self.key_order, self.rows
        if order.dtype != torch.int32 or order.ndim != 3:
            raise InputError(f"key_order is {order.dtype} {tuple(order.shape)}; expected int32 [batch, heads, N].")
        if order.shape[0] != B or H % order.shape[1]:
            raise InputError(
                f"key_order has shape {tuple(order.shape)}, and the selection batch {B} and {H} heads; the batch must be equal "
                "and the heads of key_order must divide those of the selection."
            )
        if number_of_blocks(order.shape[2], self.block_size) != T:
            raise InputError(
                f"key_order covers {order.shape[2]} keys, that is {number_of_blocks(order.shape[2], self.block_size)} blocks "
                f"of {self.block_size}, but the selection has {T}."
            )
        if order.device != self.device:
            raise InputError(f"key_order is on {order.device} and the selection on {self.device}; they must agree.")

    @property
    def rows(self) -> tuple[int, int, int]:
        """Batch size, query heads and query blocks."""
        B, H, T = (self.selected if isinstance(self.selected, Tensor) else self.selected.counts).shape[:3]
        return B, H, T

    @property
    def device(self) -> torch.device:
        """Where the selection is."""
        return (self.selected if isinstance(self.selected, Tensor) else self.selected.counts).device

    @cached_property
    def mask(self) -> Tensor:
        """The selection as a mask: bool [B, H, T, T]."""
        return self.selected if isinstance(self.selected, Tensor) else self.selected.to_mask(self.rows[2])

    @cached_property
    def blocks(self) -> BlockLists:
        """The selection as lists."""
        return BlockLists.from_mask(self.selected) if isinstance(self.selected, Tensor) else self.selected

    def check_contents(self) -> None:
        """Check the values, which a wrong selector would turn into attention to the future. Waits for the device.

        Raises:
            InputError: a block of a later segment is selected, or key_order is not a permutation inside every segment.
        """
        if isinstance(self.selected, BlockLists):
            self.selected.check_contents(self.rows[2], self.segment_size // self.block_size)
        else:
            self._check_mask(self.selected)
        if self.key_order is None:
            return
        N = self.key_order.shape[2]
        places = torch.arange(N, device=self.key_order.device)
        inside = self.key_order // self.segment_size == places // self.segment_size
        # -1 never appears as a place, so a repeated position leaves a hole somewhere.
        inverse = torch.full_like(self.key_order, -1)
        inverse.scatter_(2, self.key_order.long().clamp(0, N - 1), places.int().expand_as(inverse).contiguous())
        if not bool((inside & (inverse >= 0)).all()):
            raise InputError(
                f"key_order is not a permutation inside every segment of {self.segment_size} tokens; each must hold its own "
                "positions, each once."
            )

    def _check_mask(self, mask: Tensor) -> None:
        later = mask & ~readable_blocks(mask.shape[2], self.block_size, self.segment_size, mask.device)
        if bool(later.any()):
            b, h, i, j = (int(n) for n in later.nonzero()[0])
            raise InputError(
                f"mask selects key block {j} for query block {i} (batch {b}, head {h}), which lies in a later segment "
                f"(segment_size {self.segment_size}, block_size {self.block_size}); select earlier or own segments only."
            )


class KeySelection(Protocol):
    """A selection that is no mask of blocks, such as key lists of their own for every few queries: it says how it is read.

    A `Selector` may return one in place of a `Selection`.
    """

    def density(self) -> Tensor:
        """Pairs of a query and a key that are read, divided by N(N+1)/2: float64 [B, H]."""
        ...

    def coverage(self, q: Tensor, k: Tensor) -> Tensor:
        """Share of dense causal attention that the keys read hold, mean over queries.

        Args:
            q: queries [B, H, N, D], as selected from.
            k: keys [B, Hkv, N, D], as selected from.

        Returns:
            float32 or float64 [B, H], in [0, 1] but for rounding. Computed in chunks: [B, H, N, N] never exists.
        """
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
        """Causal softmax attention over the keys read: the method's kernel on a GPU, its reference elsewhere.

        Args:
            q: queries [B, H, N, D].
            k: keys [B, Hkv, N, D].
            v: values [B, Hkv, N, D].
            scale: factor of the logits, 1 / sqrt(D) by default.

        Returns:
            [B, H, N, D] in the dtype of q.
        """
        ...

    def check_contents(self) -> None:
        """Check the values, as `Selection.check_contents`. Waits for the device. Raises InputError."""
        ...


class Selector(Protocol):
    """Chooses keys from queries and keys. Knows nothing of values, models or kernels."""

    @property
    def name(self) -> str:
        """Short name, used in tables."""
        ...

    def select(self, q: Tensor, k: Tensor) -> Selection | KeySelection:
        """Select the keys of one prefill, in blocks or otherwise.

        Args:
            q: queries [B, H, N, D] after rotary embedding.
            k: keys [B, Hkv, N, D] after rotary embedding; Hkv divides H, query head h reads key head h // (H / Hkv).
        """
        ...


def sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, selection: Selection | KeySelection, *, scale: float | None = None, check: bool = True
) -> Tensor:
    """Causal softmax attention over the selected keys.

    Args:
        q: queries [B, H, N, D], float16, bfloat16 or float32; D is 64 or 128.
        k: keys [B, Hkv, N, D], in natural order; Hkv divides H.
        v: values [B, Hkv, N, D], in natural order.
        selection: the blocks to read. Keys and values are gathered by its key_order, once per head of the order. A
            `KeySelection` attends itself.
        scale: factor of the logits, 1 / sqrt(D) by default.
        check: also check what the selection holds (`Selection.check_contents`). It waits for the device; turn it off only to
            time.

    Returns:
        [B, H, N, D] in the dtype of q. A query whose selected blocks hold no visible key gets zeros.

    Raises:
        InputError: shapes, dtypes or devices do not fit, or the selection is not causal.
    """
    check_queries_and_keys(q, k)
    if v.shape != k.shape or v.dtype != k.dtype or v.device != k.device:
        raise InputError(
            f"v is {v.dtype} {tuple(v.shape)} on {v.device}; it must be like k: {k.dtype} {tuple(k.shape)} on {k.device}."
        )
    if not isinstance(selection, Selection):
        if check:
            selection.check_contents()
        return selection.attend(q, k, v, scale=scale)
    B, H, N, _ = q.shape
    T = number_of_blocks(N, selection.block_size)
    if selection.rows != (B, H, T) or selection.device != q.device:
        raise InputError(
            f"selection has batch, heads and blocks {selection.rows} on {selection.device}; for q of shape {tuple(q.shape)} on "
            f"{q.device} and blocks of {selection.block_size} they must be {(B, H, T)}."
        )
    order = selection.key_order
    if order is not None and (order.shape[1] not in (H, k.shape[1]) or order.shape[2] != N):
        raise InputError(
            f"selection.key_order has shape {tuple(order.shape)}; with {H} query heads, {k.shape[1]} key heads and N = {N} it "
            f"must be [{B}, {H} or {k.shape[1]}, {N}]."
        )
    if check:
        selection.check_contents()
    if order is not None:
        k, v = gather_keys_values(k, v, order)
    return block_sparse_attention(
        q,
        k,
        v,
        selection.blocks,
        block_size=selection.block_size,
        segment_size=selection.segment_size,
        key_positions=order,
        scale=scale,
    )
