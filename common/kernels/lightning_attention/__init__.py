"""Linear attention with per-head decay: the attention of TransNormerLLM, computed as in Lightning Attention-2."""

import itertools

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.checks import (
    Implementation,
    check_floating,
    check_kernel_supports,
    check_like,
    check_scale,
    choose_implementation,
)
from common.kernels.lightning_attention.reference import (
    lightning_attention_quadratic,
    lightning_attention_recurrent,
    lightning_attention_reference,
)
from common.kernels.lightning_attention.triton import configuration, device_class, lightning_attention_triton
from common.kernels.lightning_attention.triton_backward import lightning_attention_backward_triton

__all__ = [
    "lightning_attention",
    "lightning_attention_quadratic",
    "lightning_attention_recurrent",
    "lightning_attention_reference",
]


def lightning_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    *,
    scale: float = 1.0,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    implementation: Implementation = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Causal linear attention with per-head decay: Lightning Attention-2 (arXiv 2401.04658), Section 3.

        S_t = exp(-decay_h) S_{t-1} + k_t v_t^T,    o_t = scale * S_t^T q_t

    No softmax, no denominator; o_t sees key t undecayed. Gradients flow to q, k, v and initial_state, not to `decay`.

    Args:
        q: queries [B, H, N, D]; float16, bfloat16 or float32, D and E 64 or 128 (the reference: every floating-point dtype and
            size). Any strides; [B, N, H, D] tensors are passed as `x.transpose(1, 2)` and are not copied.
        k: keys [B, H, N, D].
        v: values [B, H, N, E].
        decay: slopes s_h >= 0 [H], floating-point: a token loses the factor exp(-s_h) per step; 0 is no decay.
        scale: factor of the output, positive.
        initial_state: S_0, float32 [B, H, D, E]; None is zero. With cu_seqlens, one for every sequence.
        output_final_state: whether S_N is wanted.
        cu_seqlens: integer [sequences + 1], ascending from 0 to N: B = 1 holds these sequences one after the other. On the CPU
            or the device of q.
        implementation: "triton", "reference", or "auto": Triton on a CUDA device, the reference on the CPU.

    Returns:
        o [B, H, N, E] in the dtype of q, contiguous; and S_N, float32 [B or sequences, H, D, E], or None. States are summed in
        float32 (the reference: float64 for float64 input).

    Raises:
        InputError: a shape, dtype, device or value does not fit. The values of `decay` and `cu_seqlens` are checked when these
            are on the CPU; on a CUDA device that would wait for it.
        MissingHardwareError: implementation="triton" without a CUDA device or Triton's interpreter.
    """
    _check(q, k, v, decay, scale, initial_state, cu_seqlens)
    if choose_implementation(implementation, q.device) == "reference":
        o, final = lightning_attention_reference(
            q, k, v, decay.detach(), scale=scale, initial_state=initial_state, cu_seqlens=cu_seqlens
        )
        return o, final if output_final_state else None
    check_kernel_supports("q", q)
    check_kernel_supports("v", v)
    if cu_seqlens is not None:
        cu_seqlens = cu_seqlens.to(q.device, torch.int32)
    slopes = decay.detach().float().contiguous()
    o, final, _ = _forward(q, k, v, slopes, initial_state, cu_seqlens, scale, output_final_state)
    return o, final if output_final_state else None


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    scale: float,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    check_floating("q", q, "B H N D")
    check_floating("k", k, "B H N D")
    check_floating("v", v, "B H N E")
    check_like("k", k, "q", q)
    check_like("v", v, "q", q)
    B, H, N, D = q.shape
    if k.shape != q.shape or v.shape[:3] != q.shape[:3]:
        raise InputError(
            f"q, k and v have shapes {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}; q and k must have one shape, and "
            "v may differ in its last size only."
        )
    check_floating("decay", decay, "H")
    if len(decay) != H or decay.device != q.device:
        raise InputError(f"decay has shape {tuple(decay.shape)} on {decay.device}; expected a slope for each of the {H} heads.")
    check_scale(scale)
    on_cpu = decay.device.type == "cpu" and not torch.compiler.is_compiling()
    if on_cpu and not bool(((decay >= 0) & decay.isfinite()).all()):
        raise InputError(f"decay is {decay.tolist()}; slopes must be finite and >= 0 (the factor per token is exp(-slope)).")
    sequences = B
    if cu_seqlens is not None:
        sequences = _check_sequences(cu_seqlens, B, N, q.device)
    if initial_state is not None:
        expected = torch.float64 if q.dtype == torch.float64 else torch.float32
        if initial_state.dtype != expected or initial_state.device != q.device:
            raise InputError(
                f"initial_state is {initial_state.dtype} on {initial_state.device}; expected {expected} on {q.device}."
            )
        shape = (sequences, H, D, v.shape[-1])
        if tuple(initial_state.shape) != shape:
            raise InputError(f"initial_state has shape {tuple(initial_state.shape)}; expected {shape}.")


def _check_sequences(cu_seqlens: Tensor, B: int, N: int, device: torch.device) -> int:
    """How many sequences are packed; raises InputError."""
    if cu_seqlens.dtype not in (torch.int32, torch.int64) or cu_seqlens.ndim != 1 or len(cu_seqlens) < 2:
        raise InputError(
            f"cu_seqlens is {cu_seqlens.dtype} with shape {tuple(cu_seqlens.shape)}; expected int32 or int64 [sequences + 1]."
        )
    if B != 1:
        raise InputError(f"q has batch size {B}; with cu_seqlens the sequences are packed into a batch of 1.")
    if cu_seqlens.device.type != "cpu" and cu_seqlens.device != device:
        raise InputError(f"cu_seqlens is on {cu_seqlens.device}; expected the CPU or {device}.")
    if cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling():
        places = cu_seqlens.tolist()
        if places[0] != 0 or places[-1] != N or any(a >= b for a, b in itertools.pairwise(places)):
            raise InputError(f"cu_seqlens is {places}; it must ascend from 0 to N = {N}, without empty sequences.")
    return len(cu_seqlens) - 1


@torch.library.custom_op("reattend::lightning_attention", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
    output_final_state: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One opaque operator, so that torch.compile keeps it whole."""
    initial_state = None if initial_state is None else initial_state.contiguous()
    return lightning_attention_triton(
        q, k, v, slopes,
        scale=scale, initial_state=initial_state, output_final_state=output_final_state, cu_seqlens=cu_seqlens,
    )  # fmt: skip


@_forward.register_fake
def _(q, k, v, slopes, initial_state, cu_seqlens, scale, output_final_state):
    B, H, N, D = q.shape
    E = v.shape[-1]
    sequences = B if cu_seqlens is None else len(cu_seqlens) - 1
    size = configuration(device_class(q.device), q.dtype).block
    count = B * (-(-N // size)) if cu_seqlens is None else N // size + sequences
    final = q.new_empty((sequences, H, D, E) if output_final_state else (0,), dtype=torch.float32)
    return q.new_empty(B, H, N, E), final, q.new_empty(count, H, D, E, dtype=torch.float32)


@torch.library.custom_op("reattend::lightning_attention_backward", mutates_args=())
def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    states: Tensor,
    do: Tensor,
    dfinal: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
    need_dinitial: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dfinal = None if dfinal is None else dfinal.contiguous()
    return lightning_attention_backward_triton(
        q, k, v, slopes, states, do, dfinal, scale=scale, need_dinitial=need_dinitial, cu_seqlens=cu_seqlens
    )


@_backward.register_fake
def _(q, k, v, slopes, states, do, dfinal, cu_seqlens, scale, need_dinitial):
    sequences = q.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
    dinitial = states.new_empty((sequences, *states.shape[1:]) if need_dinitial else (0,))
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), dinitial


def _save(ctx, inputs, output):
    q, k, v, slopes, _, cu_seqlens, scale, output_final_state = inputs
    ctx.mark_non_differentiable(output[2], *([] if output_final_state else [output[1]]))
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, slopes, output[2], cu_seqlens)
    ctx.scale = scale


def _differentiate(ctx, do, dfinal, _):
    q, k, v, slopes, states, cu_seqlens = ctx.saved_tensors
    do = torch.zeros_like(v) if do is None else do
    need_dinitial = ctx.needs_input_grad[4]
    dq, dk, dv, dinitial = _backward(q, k, v, slopes, states, do, dfinal, cu_seqlens, ctx.scale, need_dinitial)
    return dq, dk, dv, None, dinitial if need_dinitial else None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)
