"""The largest attention probability in every block of the attention map: the ground truth of SeerAttention's gate."""

import math
from typing import Literal, overload

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.attention_block_max.reference import attention_block_max_reference
from common.kernels.attention_block_max.triton import BLOCK_SIZES, attention_block_max_triton
from common.kernels.checks import (
    Implementation,
    check_floating,
    check_heads,
    check_kernel_supports,
    check_like,
    check_positive_int,
    check_scale,
    choose_implementation,
)

__all__ = ["attention_block_max", "attention_block_max_reference"]


@overload
def attention_block_max(
    q: Tensor,
    k: Tensor,
    v: None = None,
    *,
    block_size: int = 64,
    causal: bool = True,
    scale: float | None = None,
    implementation: Implementation = "auto",
) -> Tensor: ...


@overload
def attention_block_max(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block_size: int = 64,
    causal: bool = True,
    scale: float | None = None,
    implementation: Implementation = "auto",
) -> tuple[Tensor, Tensor]: ...


def attention_block_max(
    q: Tensor,
    k: Tensor,
    v: Tensor | None = None,
    *,
    block_size: int = 64,
    causal: bool = True,
    scale: float | None = None,
    implementation: Implementation = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Max-pooled attention map of SeerAttention (arXiv 2410.13276, training of the gate), and on request the attention output.

        A_ij = max over queries r in block i and keys c in block j of softmax(scale * q_r K^T)_c

    The map itself is never stored. SeerAttention's target is A with every row divided by its sum.

    Args:
        q: queries [B, H, N, D]; float16, bfloat16 or float32, D 64 or 128 (the reference: every floating-point dtype and D).
        k: keys [B, Hk, N, D]; Hk divides H, query head h reads key head h // (H / Hk).
        v: values [B, Hk, N, D]: the attention output comes from the same pass.
        block_size: tokens per block; the kernel takes 16, 32, 64 and 128. N need not be a multiple of it.
        causal: whether query r sees the keys c <= r only.
        scale: factor of the logits; 1 / sqrt(D) by default.
        implementation: "triton", "reference", or "auto": Triton on a CUDA device, the reference on the CPU.

    Returns:
        A [B, H, T, T], T = ceil(N / block_size), float32 (the reference: float64 for float64 input); with causal, zeros above
        the diagonal. With v, the pair (A, o): o = softmax(scale * q K^T) v, [B, H, N, D] in the dtype of q, contiguous. Forward
        only: a backward pass through either raises. NaN in q or k gives NaN in the blocks and rows that see it.

    Raises:
        InputError: a shape, dtype, device or value does not fit.
        MissingHardwareError: implementation="triton" without a CUDA device or Triton's interpreter.
    """
    check_floating("q", q, "B H N D")
    for name, x in (("k", k), ("v", v)):
        if x is None:
            continue
        check_floating(name, x, "B Hk N D")
        check_like(name, x, "q", q)
        if (x.shape[0], *x.shape[2:]) != (q.shape[0], *q.shape[2:]):
            raise InputError(f"q has shape {tuple(q.shape)} and {name} {tuple(x.shape)}; they must agree but for the heads.")
    if v is not None and v.shape != k.shape:
        raise InputError(f"k has shape {tuple(k.shape)} and v {tuple(v.shape)}; they must agree.")
    check_heads("q", q.shape[1], "k", k.shape[1])
    check_positive_int("block_size", block_size)
    if not isinstance(causal, bool):
        raise InputError(f"causal is {causal!r}; it must be True or False.")
    scale = 1 / math.sqrt(q.shape[3]) if scale is None else scale
    check_scale(scale)
    chosen = _choose(implementation, q, block_size)
    maxima, o = _operator(q, k, v, block_size, causal, scale, chosen)
    return maxima if v is None else (maxima, o)


def _choose(implementation: Implementation, q: Tensor, block_size: int) -> Literal["reference", "triton"]:
    """Resolve "auto", and check that the chosen kernel takes the tensors."""
    if choose_implementation(implementation, q.device) == "reference":
        return "reference"
    check_kernel_supports("q", q)
    if block_size not in BLOCK_SIZES:
        raise InputError(
            f"block_size is {block_size}; the Triton kernel takes {', '.join(map(str, BLOCK_SIZES))}. "
            "Use implementation='reference' for others."
        )
    return "triton"


IMPLEMENTATIONS = {"reference": attention_block_max_reference, "triton": attention_block_max_triton}


@torch.library.custom_op("reattend::attention_block_max", mutates_args=())
def _operator(
    q: Tensor, k: Tensor, v: Tensor | None, block_size: int, causal: bool, scale: float, implementation: str
) -> tuple[Tensor, Tensor]:
    """One opaque operator, so that torch.compile keeps it whole; the output is empty without v."""
    maxima, o = IMPLEMENTATIONS[implementation](q, k, v, block_size=block_size, causal=causal, scale=scale)
    return maxima, q.new_empty(0) if o is None else o


@_operator.register_fake
def _(q, k, v, block_size, causal, scale, implementation):
    B, H, N, _ = q.shape
    T = -(-N // block_size)
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(B, H, T, T, dtype=dtype), q.new_empty(0 if v is None else q.shape)
