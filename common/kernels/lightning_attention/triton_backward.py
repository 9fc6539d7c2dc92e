"""Linear attention with per-head decay, backward: gradients have the form of the forward operation.

With S_t the state and R_t = sum over s >= t of decay^(s-t) q_s do_s^T the gradient's state (both [D, E]), up to `scale`:

    dq_t = S_t do_t      causal attention of queries do, keys v, values k
    dk_t = R_t v_t       the same backwards in time with queries v, keys do, values q
    dv_t = R_t^T k_t     the same backwards in time with queries k, keys q, values do
"""

# Triton turns Python numbers into constexpr at the launch, and adds the launch's own options.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from common.kernels.lightning_attention.triton import (
    Blocks,
    Configuration,
    add_product,
    configuration,
    descriptor,
    device_class,
    entering_states,
    locate,
    narrow,
    outputs,
)


@triton.jit(do_not_specialize=["N", "S", "H"])  # one compilation for all lengths
def _key_value_kernel(
    q_desc, k_desc, v_desc, do_desc,  # [B, H, N, D] twice, [B, H, N, E] twice; reads outside give zeros
    dk, dv,  # [B, H, N, D], [B, H, N, E], contiguous
    states,  # float32 [blocks, H, D, E]: the gradient's state after each block
    slopes,  # float32 [H]
    boundaries, first, owner, N, S, H,
    scale,
    D: tl.constexpr, E: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Dk and dv of one block, which share every load and the state; 16-bit dtypes."""
    h = tl.program_id(0) % H
    p = tl.program_id(0) // H
    b, start, stop, _, _ = locate(p, boundaries, first, owner, N, S, BLOCK, PACKED)
    if stop <= start:
        return
    dtype: tl.constexpr = q_desc.dtype
    slope = tl.load(slopes + h) * 1.4426950408889634
    r = tl.arange(0, CHUNK)
    d = tl.arange(0, D)
    e = tl.arange(0, E)

    # Steps of decay: between a query (row) and a key, from a key to the state after the chunk, from a query to that before it.
    between = r[:, None] - r[None, :]
    mask = tl.where(between >= 0, tl.exp2(-slope * tl.maximum(between, 0)), 0.0) * scale
    to_key = (tl.exp2(-slope * (CHUNK - 1 - r)) * scale)[None, :]
    from_query = tl.exp2(-slope * (r + 1))[:, None]
    across = tl.exp2(-slope * CHUNK)

    state = tl.load(states + (p.to(tl.int64) * H + h) * (D * E) + d[:, None] * E + e[None, :])
    row = h.to(tl.int64) * N if PACKED else (b.to(tl.int64) * H + h) * N

    # Chunks are aligned to the block's end, so that only the last one is incomplete and nothing follows it. As in the kernel of
    # the outputs everything is transposed, dk^T = R v^T + q^T dP and dv^T = R^T k^T + do^T P.
    for c in tl.range(0, tl.cdiv(stop - start, CHUNK)):
        t0 = stop - (c + 1) * CHUNK
        q = q_desc.load([b, h, t0, 0]).reshape([CHUNK, D])
        k = k_desc.load([b, h, t0, 0]).reshape([CHUNK, D])
        v = v_desc.load([b, h, t0, 0]).reshape([CHUNK, E])
        do = do_desc.load([b, h, t0, 0]).reshape([CHUNK, E])
        weighted = (do * from_query).to(dtype)
        t = t0 + r
        inside = ((t >= start) & (t < stop))[None, :]
        at = (row + t)[None, :]

        high, factor = narrow(state, dtype, 1)
        out = tl.dot(high, v.T) * (factor[:, None] * to_key)
        out = add_product(out, q.T, tl.dot(do, v.T) * mask, 1, dtype, False, None)
        tl.store(dk + at * D + d[:, None], out.to(dtype), mask=inside)

        high, factor = narrow(state, dtype, 0)
        out = tl.dot(high.T, k.T) * (factor[:, None] * to_key)
        out = add_product(out, do.T, tl.dot(q, k.T) * mask, 1, dtype, False, None)
        tl.store(dv + at * E + e[:, None], out.to(dtype), mask=inside)

        state = tl.dot(q.T, weighted, state * across)


def _key_value_gradients(
    q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, states: Tensor, do: Tensor, scale: float, blocks: Blocks, c: Configuration
) -> tuple[Tensor, Tensor]:
    """Dk [B, H, N, D] and dv [B, H, N, E], contiguous; `states` are the gradient's, float32 [blocks, H, D, E]."""
    if c.gradients is None:
        dk = outputs(v, do, q, slopes, states, scale, blocks, c, transposed=True, reverse=True)
        return dk, outputs(k, q, do, slopes, states, scale, blocks, c, reverse=True)
    B, H, N, D = q.shape
    E = v.shape[-1]
    dk = torch.empty(B, H, N, D, dtype=q.dtype, device=q.device)
    dv = torch.empty(B, H, N, E, dtype=q.dtype, device=q.device)
    chunk = c.gradients.chunk
    _key_value_kernel[(blocks.count * H,)](
        descriptor(q, chunk, D), descriptor(k, chunk, D), descriptor(v, chunk, E), descriptor(do, chunk, E),
        dk, dv, states, slopes, blocks.boundaries, blocks.first, blocks.owner, N, blocks.sequences, H, scale,
        D=D, E=E, BLOCK=blocks.size, CHUNK=chunk, PACKED=blocks.boundaries is not None,
        num_warps=c.gradients.warps, num_stages=c.gradients.stages,
    )  # fmt: skip
    return dk, dv


def lightning_attention_backward_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    states: Tensor,
    do: Tensor,
    dfinal: Tensor | None,
    *,
    scale: float,
    need_dinitial: bool,
    cu_seqlens: Tensor | None,
    layout: Configuration | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `lightning_attention_triton`.

    Args:
        q: [B, H, N, D].
        k: [B, H, N, D].
        v: [B, H, N, E].
        slopes: float32 [H].
        states: float32 [blocks, H, D, E], the states that entered the blocks, as the forward pass returned them.
        do: gradient of the output, [B, H, N, E] in the dtype of q.
        dfinal: gradient of the final state, float32 [sequences, H, D, E], or None.
        scale: as in the forward pass.
        need_dinitial: whether the gradient of the initial state is wanted.
        cu_seqlens: as in the forward pass.
        layout: the configuration of the forward pass.

    Returns:
        dq, dk, dv in the dtype of q, and the gradient of the initial state (float32, empty if not wanted).
    """
    c = layout or configuration(device_class(q.device), q.dtype)
    blocks = Blocks.of(c.block, q.shape[0], q.shape[2], cu_seqlens)
    dq = outputs(do, v, k, slopes, states, scale, blocks, c, transposed=True)
    # What leaves the gradient's states is multiplied by scale, so that what enters a sequence is divided by it.
    entering = None if dfinal is None else dfinal / scale
    R, dinitial = entering_states(q, do, slopes, blocks, c, initial=entering, need_final=need_dinitial, reverse=True)
    dk, dv = _key_value_gradients(q, k, v, slopes, R, do, scale, blocks, c)
    return dq, dk, dv, dinitial.mul_(scale)
