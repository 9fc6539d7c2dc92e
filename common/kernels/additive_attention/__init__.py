"""Additive attention scores, v^T tanh(q_i + k_j), without the tensor of all pairs and hidden units."""

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.additive_attention.reference import additive_attention_reference
from common.kernels.additive_attention.triton import additive_attention_backward_triton, additive_attention_triton
from common.kernels.checks import (
    KERNEL_DTYPES,
    Implementation,
    check_floating,
    check_like,
    choose_implementation,
)

__all__ = ["additive_attention", "additive_attention_reference"]


def additive_attention(q: Tensor, k: Tensor, weight: Tensor, *, implementation: Implementation = "auto") -> Tensor:
    """Scores of additive attention (Bahdanau et al., arXiv 1409.0473), before the softmax.

        u_bij = sum over d of weight_d tanh(q_bid + k_bjd)

    Memory is that of inputs and output; the backward pass computes tanh again. Gradients flow to q, k and weight.

    Args:
        q: queries [B, M, D], after their projection; float16, bfloat16 or float32 (the reference: every floating-point dtype).
        k: keys [B, N, D], after their projection.
        weight: the vector v, floating-point [D]; its dtype may differ from that of q.
        implementation: "triton", "reference", or "auto": Triton on a CUDA device, the reference on the CPU.

    Returns:
        u, float32 [B, M, N] (the reference: float64 for float64 input). tanh and sums are float32; a tanh is off by at most
        about 2e-7.

    Raises:
        InputError: a shape, dtype or device does not fit.
        MissingHardwareError: implementation="triton" without a CUDA device or Triton's interpreter.
    """
    check_floating("q", q, "B M D")
    check_floating("k", k, "B N D")
    check_like("k", k, "q", q)
    if q.shape[0] != k.shape[0] or q.shape[2] != k.shape[2]:
        raise InputError(f"q has shape {tuple(q.shape)} and k {tuple(k.shape)}; batch and hidden size must agree.")
    check_floating("weight", weight, "D")
    if len(weight) != q.shape[2] or weight.device != q.device:
        raise InputError(
            f"weight has shape {tuple(weight.shape)} on {weight.device}; expected ({q.shape[2]},) on {q.device}, as q has."
        )
    if choose_implementation(implementation, q.device) == "reference":
        return additive_attention_reference(q, k, weight)
    if q.dtype not in KERNEL_DTYPES:
        raise InputError(
            f"q has dtype {q.dtype}; the Triton kernel takes float16, bfloat16 and float32. Convert, or use "
            "implementation='reference'."
        )
    return _forward(q, k, weight)


@torch.library.custom_op("reattend::additive_attention", mutates_args=())
def _forward(q: Tensor, k: Tensor, weight: Tensor) -> Tensor:
    """One opaque operator, so that torch.compile keeps it whole."""
    return additive_attention_triton(q, k, weight)


@_forward.register_fake
def _(q, k, weight):
    return q.new_empty(q.shape[0], q.shape[1], k.shape[1], dtype=torch.float32)


@torch.library.custom_op("reattend::additive_attention_backward", mutates_args=())
def _backward(q: Tensor, k: Tensor, weight: Tensor, du: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return additive_attention_backward_triton(q, k, weight, du)


@_backward.register_fake
def _(q, k, weight, du):
    return q.new_empty(q.shape), k.new_empty(k.shape), weight.new_empty(weight.shape)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, du):
    return _backward(*ctx.saved_tensors, du)


_forward.register_autograd(_differentiate, setup_context=_save)
