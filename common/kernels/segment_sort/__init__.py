"""Sorting keys inside segments by importance: the steps before PBS-Attn's block selection (arXiv 2510.21270, Section 4.2)."""

import math

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.checks import (
    KERNEL_DTYPES,
    Implementation,
    check_floating,
    check_heads,
    check_kernel_supports,
    check_like,
    check_positive_int,
    check_scale,
    choose_implementation,
)
from common.kernels.segment_sort.reference import (
    gather_keys_values_reference,
    key_importance_reference,
    segment_argsort_reference,
)
from common.kernels.segment_sort.triton import (
    SEGMENT_SIZES,
    gather_keys_values_triton,
    key_importance_triton,
    segment_argsort_triton,
)

__all__ = [
    "gather_keys_values",
    "gather_keys_values_reference",
    "key_importance",
    "key_importance_reference",
    "segment_argsort",
]


def key_importance(q_last: Tensor, k: Tensor, scale: float | None = None, *, implementation: Implementation = "auto") -> Tensor:
    """How much the given queries attend to every key: s = mean over the M rows of softmax(scale * q_last k^T).

    The softmax runs over all Nk keys; there is no causal mask. The kernel reads the keys twice and never stores [M, Nk].

    Args:
        q_last: queries [B, H, M, D]; float16, bfloat16 or float32, D 64 or 128 (the reference: every floating dtype and D).
        k: keys [B, Hk, Nk, D]; Hk divides H, query head h reads key head h // (H / Hk).
        scale: factor of the logits; 1 / sqrt(D) by default.
        implementation: "triton", "reference", or "auto": Triton on a CUDA device, the reference on the CPU.

    Returns:
        [B, H, Nk], float32 (float64 for float64 input); every row sums to 1.

    Raises:
        InputError: a shape, dtype, device or value does not fit.
        MissingHardwareError: implementation="triton" without a CUDA device or Triton's interpreter.
    """
    check_floating("q_last", q_last, "B H M D")
    check_floating("k", k, "B Hk Nk D")
    check_like("k", k, "q_last", q_last)
    if (q_last.shape[0], q_last.shape[3]) != (k.shape[0], k.shape[3]):
        raise InputError(f"q_last has shape {tuple(q_last.shape)} and k {tuple(k.shape)}; batch and head dimension must agree.")
    check_heads("q_last", q_last.shape[1], "k", k.shape[1])
    scale = 1 / math.sqrt(q_last.shape[3]) if scale is None else scale
    check_scale(scale)
    if choose_implementation(implementation, k.device) == "triton":
        check_kernel_supports("q_last", q_last)
        return key_importance_triton(q_last, k, scale)
    return key_importance_reference(q_last, k, scale)


def segment_argsort(importance: Tensor, segment_size: int, *, implementation: Implementation = "auto") -> Tensor:
    """Sort the keys of every segment, most important first.

    Args:
        importance: floating [B, H, Ns]; Ns is a whole number of segments.
        segment_size: tokens per segment.
        implementation: "triton" for float16, bfloat16 and float32 and segments of 16 to 1,024 tokens that are a power of two;
            "reference"; or "auto": Triton for such on a CUDA device, else the reference.

    Returns:
        int32 [B, H, Ns], the position (in the whole sequence) of the key that goes to each place. Of two equal keys the earlier
        comes first.

    Raises:
        InputError: importance is not floating-point with three dimensions, Ns is not a multiple of segment_size, or the kernel
            was asked for and does not take the dtype or segment_size.
        MissingHardwareError: implementation="triton" without a CUDA device or Triton's interpreter.
    """
    check_positive_int("segment_size", segment_size)
    check_floating("importance", importance, "B H Ns")
    Ns = importance.shape[2]
    if Ns % segment_size:
        raise InputError(
            f"importance covers {Ns} keys, which is not a multiple of segment_size {segment_size}; leave the tail of "
            f"{Ns % segment_size} keys out, it stays where it is."
        )
    fits = importance.dtype in KERNEL_DTYPES and segment_size in SEGMENT_SIZES
    if implementation == "triton" and not fits:
        raise InputError(
            f"importance is {importance.dtype} and segment_size {segment_size}; the Triton kernel takes float16, bfloat16 and "
            f"float32, and {', '.join(map(str, SEGMENT_SIZES))}. Use 'reference' or 'auto'."
        )
    if choose_implementation(implementation, importance.device) == "triton" and fits:
        return segment_argsort_triton(importance, segment_size)
    return segment_argsort_reference(importance, segment_size)


def gather_keys_values(
    k: Tensor, v: Tensor, order: Tensor, *, implementation: Implementation = "auto"
) -> tuple[Tensor, Tensor]:
    """Lay keys and values out in a new order, replicating grouped heads on the way.

    Args:
        k: keys [B, Hk, N, D], every floating-point dtype and D.
        v: values [B, Hk, N, D].
        order: int32 [B, Ho, N] with values in [0, N), the position of the key that goes to each place. Hk divides Ho; head h of
            the order reads key head h // (Ho / Hk).
        implementation: "triton", "reference", or "auto": Triton on a CUDA device, the reference on the CPU.

    Returns:
        K' = K[order] and V' = V[order], each [B, Ho, N, D], contiguous, in the dtype of k.

    Raises:
        InputError: a shape, dtype or device does not fit. The range of `order` is checked on the CPU only.
        MissingHardwareError: implementation="triton" without a CUDA device or Triton's interpreter.
    """
    check_floating("k", k, "B Hk N D")
    check_floating("v", v, "B Hk N D")
    check_like("v", v, "k", k)
    if k.shape != v.shape:
        raise InputError(f"k has shape {tuple(k.shape)} and v {tuple(v.shape)}; they must agree.")
    B, Hk, N, _ = k.shape
    if order.dtype != torch.int32 or order.ndim != 3 or (order.shape[0], order.shape[2]) != (B, N) or order.shape[1] == 0:
        raise InputError(f"order is {order.dtype} {tuple(order.shape)}; expected int32 [{B}, heads, {N}] (use .int()).")
    if order.device != k.device:
        raise InputError(f"order is on {order.device} and k on {k.device}; they must agree.")
    check_heads("order", order.shape[1], "k", Hk)
    if order.device.type == "cpu" and not bool(((order >= 0) & (order < N)).all()):
        raise InputError(f"order holds values from {int(order.min())} to {int(order.max())}; they must lie in [0, {N}).")
    if choose_implementation(implementation, k.device) == "triton":
        return gather_keys_values_triton(k, v, order)
    return gather_keys_values_reference(k, v, order)
