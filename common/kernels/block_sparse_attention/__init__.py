"""Causal attention over selected blocks of keys, for keys in natural order or permuted inside segments."""

import math
from typing import Literal

import torch
from torch import Tensor

from common.errors import InputError, MissingHardwareError
from common.kernels.block_sparse_attention import hopper
from common.kernels.block_sparse_attention.block_lists import BlockLists
from common.kernels.block_sparse_attention.reference import block_sparse_attention_reference
from common.kernels.block_sparse_attention.triton import BLOCK_SIZES, block_sparse_attention_triton
from common.kernels.checks import (
    check_floating,
    check_heads,
    check_int32,
    check_kernel_supports,
    check_like,
    check_positive_int,
    check_scale,
    choose_implementation,
    is_hopper,
)

Implementation = Literal["auto", "reference", "triton", "hopper"]

__all__ = ["BlockLists", "block_sparse_attention", "block_sparse_attention_reference"]


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: BlockLists,
    *,
    block_size: int = 128,
    segment_size: int | None = None,
    key_positions: Tensor | None = None,
    scale: float | None = None,
    implementation: Implementation = "auto",
) -> Tensor:
    """Softmax attention over the listed key blocks: Section 3 of PBS-Attn (arXiv 2510.21270), and any causal block mask.

    Key blocks of segments before the query block's are wholly visible. In blocks of its own segment, a query at position p sees
    the keys whose original position is <= p. Blocks of later segments must not be listed.

    Args:
        q: queries [B, H, N, D]; float16, bfloat16 or float32, D 64 or 128 (the reference: every floating-point dtype and D).
        k: keys [B, Hk, N, D], possibly permuted inside segments; Hk divides H, query head h reads key head h // (H / Hk).
        v: values [B, Hk, N, D], in the order of the keys.
        blocks: lists [B, H, T, ...] of the key blocks to read, T = ceil(N / block_size).
        block_size: tokens per block; the kernel takes 16, 32, 64 and 128. N need not be a multiple of it.
        segment_size: tokens per segment, a multiple of block_size (which is the default).
        key_positions: int32 [B, Hk, N], the original position of the key stored at each place; None is the natural order.
        scale: factor of the logits; 1 / sqrt(D) by default.
        implementation: "reference"; "triton", for every CUDA device; "hopper", for compute capability 9.0 with 16-bit dtypes
            and block_size 128; or "auto": the last of these that takes the tensors.

    Returns:
        [B, H, N, D] in the dtype of q, contiguous; accumulated in float32. Queries that see nothing get zeros. Forward only: a
        backward pass through it raises.

    Raises:
        InputError: a shape, dtype, device or value does not fit. What `blocks` holds is checked for tensors on the CPU; on a
            CUDA device call `blocks.check_contents`, which waits for the device.
        MissingHardwareError: implementation="triton" without a CUDA device or Triton's interpreter, or "hopper" on another
            device.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_floating(name, x, "B H N D" if name == "q" else "B Hk N D")
    check_like("k", k, "q", q)
    check_like("v", v, "q", q)
    B, H, N, D = q.shape
    if k.shape != v.shape or (k.shape[0], *k.shape[2:]) != (B, N, D):
        raise InputError(
            f"q, k and v have shapes {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}; they must agree but for the "
            "heads of q."
        )
    check_heads("q", H, "k", k.shape[1])
    check_positive_int("block_size", block_size)
    segment_size = block_size if segment_size is None else segment_size
    check_positive_int("segment_size", segment_size)
    if segment_size % block_size:
        raise InputError(f"segment_size {segment_size} is not a multiple of block_size {block_size}; choose a multiple.")
    T = -(-N // block_size)
    check_int32("blocks.counts", blocks.counts, (B, H, T), q.device)
    if key_positions is not None:
        check_int32("key_positions", key_positions, (B, k.shape[1], N), q.device)
    scale = 1 / math.sqrt(D) if scale is None else scale
    check_scale(scale)
    chosen = _choose(implementation, q, block_size)
    if q.device.type == "cpu":
        blocks.check_contents(T, segment_size // block_size)
    return _operator(q, k, v, blocks.counts, blocks.indices, key_positions, block_size, segment_size, scale, chosen)


def _choose(implementation: Implementation, q: Tensor, block_size: int) -> Literal["reference", "triton", "hopper"]:
    """Resolve "auto", and check that the chosen kernel takes the tensors."""
    fits = hopper.supports(q.device, q.dtype, q.shape[3], block_size)
    if implementation == "hopper" and not is_hopper(q.device):
        raise MissingHardwareError(
            f"implementation='hopper' needs tensors on a GPU of compute capability 9.0, not on {q.device}; use 'auto'."
        )
    if implementation == "hopper" and not fits:
        raise InputError(
            f"q is {q.dtype} with head dimension {q.shape[3]}, and block_size is {block_size}; implementation='hopper' takes "
            "float16 and bfloat16, 64 and 128, and 128. Use 'triton' or 'auto'."
        )
    if implementation == "hopper" or (fits and implementation == "auto"):
        return "hopper"
    if choose_implementation(implementation, q.device) == "reference":
        return "reference"
    check_kernel_supports("q", q)
    if block_size not in BLOCK_SIZES:
        raise InputError(
            f"block_size is {block_size}; the Triton kernel takes {', '.join(map(str, BLOCK_SIZES))}. "
            "Use implementation='reference' for others."
        )
    return "triton"


IMPLEMENTATIONS = {
    "reference": block_sparse_attention_reference,
    "triton": block_sparse_attention_triton,
    "hopper": hopper.block_sparse_attention_hopper,
}


@torch.library.custom_op("reattend::block_sparse_attention", mutates_args=())
def _operator(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    counts: Tensor,
    indices: Tensor,
    key_positions: Tensor | None,
    block_size: int,
    segment_size: int,
    scale: float,
    implementation: str,
) -> Tensor:
    """One opaque operator, so that torch.compile keeps it whole."""
    blocks = BlockLists(counts, indices)
    return IMPLEMENTATIONS[implementation](
        q, k, v, blocks, block_size=block_size, segment_size=segment_size, key_positions=key_positions, scale=scale
    )


@_operator.register_fake
def _(q, k, v, counts, indices, key_positions, block_size, segment_size, scale, implementation):
    return torch.empty_like(q, memory_format=torch.contiguous_format)
