"""Attention over listed key blocks, the first keys and a window: the sparse attention of HiP (arXiv 2406.09827, Section 3)."""

import math

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.block_sparse_attention.block_lists import BlockLists
from common.kernels.checks import (
    Implementation,
    check_floating,
    check_heads,
    check_int32,
    check_kernel_supports,
    check_like,
    check_positive_int,
    check_scale,
    choose_implementation,
)
from common.kernels.key_list_attention.reference import key_list_attention_reference
from common.kernels.key_list_attention.triton import LARGEST_QUERY_BLOCK, key_list_attention_triton

__all__ = ["key_list_attention", "key_list_attention_reference"]


def key_list_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lists: BlockLists,
    window_starts: Tensor,
    *,
    block_q: int,
    block_k: int,
    sink: int,
    scale: float | None = None,
    implementation: Implementation = "auto",
) -> Tensor:
    """Causal softmax attention of every query block over the keys of its list, the first keys and the last.

        keys of a query at position t, in block i:  { c < sink } ∪ { c >= window_starts_i } ∪ listed blocks,  each c <= t
        key block j: the keys sink + j block_k .. sink + (j + 1) block_k - 1

    Prefill has N = T; decoding N = 1, a query against a cache of T keys.

    Args:
        q: queries [B, H, N, D]: those of the last N of the T positions; float16, bfloat16 or float32, D 64 or 128 (the
            reference: every floating-point dtype and D).
        k: keys [B, Hk, T, D], T >= N; Hk divides H, query head h reads key head h // (H / Hk).
        v: values [B, Hk, T, D].
        lists: of key blocks, for B, H and ceil(N / block_q) query blocks. A key that is listed twice, in the sink or in the
            window counts as often as it is named; what the lists hold is not checked.
        window_starts: int32 [ceil(N / block_q)], the first key of each query block's window, at least sink.
        block_q: queries that share a list; the kernel takes up to 128.
        block_k: keys of a block.
        sink: first keys that every query reads; 0 for none.
        scale: factor of the logits; 1 / sqrt(D) by default.
        implementation: "triton", "reference", or "auto": Triton on a CUDA device, the reference on the CPU.

    Returns:
        [B, H, N, D] in the dtype of q, contiguous; zeros for a query without keys. Forward only: a backward pass raises.

    Raises:
        InputError: a shape, dtype, device or value does not fit.
        MissingHardwareError: implementation="triton" without a CUDA device or Triton's interpreter.
    """
    check_floating("q", q, "B H N D")
    for name, x in (("k", k), ("v", v)):
        check_floating(name, x, "B Hk T D")
        check_like(name, x, "q", q)
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or q.shape[2] > k.shape[2]:
        raise InputError(
            f"q has shape {tuple(q.shape)} and k {tuple(k.shape)}; batch and head dim must be equal, k at least as long as q."
        )
    if v.shape != k.shape:
        raise InputError(f"k has shape {tuple(k.shape)} and v {tuple(v.shape)}; they must agree.")
    check_heads("q", q.shape[1], "k", k.shape[1])
    check_positive_int("block_q", block_q)
    check_positive_int("block_k", block_k)
    if not isinstance(sink, int) or isinstance(sink, bool) or sink < 0:
        raise InputError(f"sink is {sink!r}; it must be 0 or a positive integer.")
    rows = -(-q.shape[2] // block_q)
    expected = (*q.shape[:2], rows)
    if tuple(lists.counts.shape) != expected or lists.counts.device != q.device:
        raise InputError(
            f"lists are for batch, heads and query blocks {tuple(lists.counts.shape)} on {lists.counts.device}; for q of shape "
            f"{tuple(q.shape)} on {q.device} and blocks of {block_q} they must be {expected}."
        )
    check_int32("window_starts", window_starts, (rows,), q.device)
    scale = 1 / math.sqrt(q.shape[3]) if scale is None else scale
    check_scale(scale)
    chosen = choose_implementation(implementation, q.device)
    if chosen == "triton":
        check_kernel_supports("q", q)
        if block_q > LARGEST_QUERY_BLOCK:
            raise InputError(
                f"block_q is {block_q}; the Triton kernel takes up to {LARGEST_QUERY_BLOCK}. Use implementation='reference'."
            )
    return _operator(q, k, v, lists.counts, lists.indices, window_starts, block_q, block_k, sink, scale, chosen)


IMPLEMENTATIONS = {"reference": key_list_attention_reference, "triton": key_list_attention_triton}


@torch.library.custom_op("reattend::key_list_attention", mutates_args=())
def _operator(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    counts: Tensor,
    indices: Tensor,
    window_starts: Tensor,
    block_q: int,
    block_k: int,
    sink: int,
    scale: float,
    implementation: str,
) -> Tensor:
    """One opaque operator, so that torch.compile keeps it whole."""
    return IMPLEMENTATIONS[implementation](
        q, k, v, counts, indices, window_starts, block_q=block_q, block_k=block_k, sink=sink, scale=scale
    )


@_operator.register_fake
def _(q, k, v, counts, indices, window_starts, block_q, block_k, sink, scale, implementation):
    return q.new_empty(q.shape)
