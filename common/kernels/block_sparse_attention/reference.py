"""Block-sparse attention in plain PyTorch: what the kernel must compute."""

import math

import torch
from torch import Tensor

from common.kernels.block_sparse_attention.block_lists import BlockLists


def block_sparse_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: BlockLists,
    *,
    block_size: int = 128,
    segment_size: int | None = None,
    key_positions: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """o_i = sum_j p_ij v_j, p_i = softmax of scale * q_i·k_j over {j: block(j) is listed for block(i) and position(j) <= i}.

    Arguments and result as in `block_sparse_attention`, but for every floating-point dtype and head dimension; float64 is
    computed in float64, everything else in float32. Nothing is checked here. One block of queries at a time: the logits are
    [B, H, block_size, N].
    """
    B, H, N, D = q.shape
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    group = H // k.shape[1]
    scale = 1 / math.sqrt(D) if scale is None else scale
    segment_size = block_size if segment_size is None else segment_size
    T = blocks.counts.shape[2]

    places = torch.arange(N, device=q.device)
    positions = places.expand(B, k.shape[1], N) if key_positions is None else key_positions
    K = k.to(dtype).repeat_interleave(group, dim=1)
    V = v.to(dtype).repeat_interleave(group, dim=1)
    positions = positions.repeat_interleave(group, dim=1)  # [B, H, N]
    mask = blocks.to_mask(T)  # [B, H, T, T]

    o = torch.empty_like(q, memory_format=torch.contiguous_format)
    for i in range(T):
        rows = places[i * block_size : (i + 1) * block_size]
        end = min((i * block_size // segment_size + 1) * segment_size, N)  # later segments are in the future
        listed = mask[:, :, i].repeat_interleave(block_size, dim=-1)[..., None, :end]  # [B, H, 1, end]
        visible = listed & (positions[:, :, None, :end] <= rows[:, None])  # [B, H, rows, end]
        logits = scale * q[:, :, rows].to(dtype) @ K[:, :, :end].mT
        p = logits.masked_fill(~visible, float("-inf")).softmax(-1)
        p = torch.where(visible.any(-1, keepdim=True), p, 0.0)  # a row that sees nothing
        o[:, :, rows] = (p @ V[:, :, :end]).to(q.dtype)
    return o
