"""Block geometry: which key blocks a query block may read, and where segments lie.

A sequence of N tokens has T = ceil(N / B) blocks of B tokens. Keys may be permuted inside segments of S tokens, a whole number
of blocks, so the smallest order that survives a permutation is that of segments.
"""

import math

import torch
from torch import Tensor

from common.errors import InputError


def number_of_blocks(length: int, block_size: int) -> int:
    """T = ceil(N / B)."""
    return math.ceil(length / block_size)


def check_sizes(block_size: int, segment_size: int) -> None:
    """Check that a segment is a whole number of blocks.

    Raises:
        InputError: block_size is not a positive integer, or segment_size not a positive multiple of it.
    """
    for name, value in (("block_size", block_size), ("segment_size", segment_size)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} is {value!r}; it must be a positive integer number of tokens.")
    if segment_size % block_size:
        raise InputError(f"segment_size {segment_size} is not a multiple of block_size {block_size}; choose a multiple.")


def check_queries_and_keys(q: Tensor, k: Tensor) -> None:
    """Check the shapes, dtypes and devices of queries [B, H, N, D] and keys [B, Hkv, N, D] of one prefill.

    Raises:
        InputError: they are not four-dimensional floating-point tensors of equal batch, length, head dim, dtype and device, one
            of the sizes is zero, or Hkv does not divide H.
    """
    for name, x in (("q", q), ("k", k)):
        if x.ndim != 4:
            raise InputError(f"{name} has shape {tuple(x.shape)}; expected four dimensions [batch, heads, length, head dim].")
        if not x.is_floating_point():
            raise InputError(f"{name} has dtype {x.dtype}; expected a floating-point dtype.")
        if 0 in x.shape:
            raise InputError(f"{name} has shape {tuple(x.shape)}; no size may be zero.")
    if (q.shape[0], *q.shape[2:]) != (k.shape[0], *k.shape[2:]):
        raise InputError(f"q has shape {tuple(q.shape)} and k {tuple(k.shape)}; batch, length and head dim must be equal.")
    if q.shape[1] % k.shape[1]:
        raise InputError(
            f"q has {q.shape[1]} heads and k {k.shape[1]}; the number of key heads must divide that of query heads."
        )
    if q.dtype != k.dtype or q.device != k.device:
        raise InputError(f"q is {q.dtype} on {q.device} and k {k.dtype} on {k.device}; they must agree.")


def causal_blocks(blocks: int, device: torch.device | str | None = None) -> Tensor:
    """Key blocks at or below the diagonal: bool [T, T]."""
    return torch.ones(blocks, blocks, dtype=torch.bool, device=device).tril()


def segment_of_block(blocks: int, block_size: int, segment_size: int, device: torch.device | str | None = None) -> Tensor:
    """Segment number floor(j * B / S) of every block j: int64 [T]."""
    return torch.arange(blocks, device=device) // (segment_size // block_size)


def earlier_segment_blocks(blocks: int, block_size: int, segment_size: int, device: torch.device | str | None = None) -> Tensor:
    """Key blocks j in a segment strictly before that of query block i: bool [T, T]."""
    segment = segment_of_block(blocks, block_size, segment_size, device)
    return segment[None, :] < segment[:, None]


def own_segment_blocks(blocks: int, block_size: int, segment_size: int, device: torch.device | str | None = None) -> Tensor:
    """Key blocks j in the segment of query block i, also those above the diagonal: bool [T, T]."""
    segment = segment_of_block(blocks, block_size, segment_size, device)
    return segment[None, :] == segment[:, None]


def readable_blocks(blocks: int, block_size: int, segment_size: int, device: torch.device | str | None = None) -> Tensor:
    """Key blocks that may hold a key visible to query block i (earlier and own segments): bool [T, T]."""
    segment = segment_of_block(blocks, block_size, segment_size, device)
    return segment[None, :] <= segment[:, None]
