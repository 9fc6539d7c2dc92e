"""Pooled block selection in plain PyTorch: what the kernels must compute."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from common.kernels.block_selection.top_p import shortest_prefix
from common.kernels.block_sparse_attention.block_lists import BlockLists


def block_means_reference(x: Tensor, block_size: int, order: Tensor | None, own_length: bool) -> Tensor:
    """Mean of the rows of each block of x[order]. As in `block_means`; nothing is checked."""
    if order is not None:
        group = order.shape[1] // x.shape[1]
        x = x.repeat_interleave(group, dim=1).take_along_dim(order.long()[..., None], dim=2)
    N = x.shape[2]
    padding = -N % block_size
    means = pad(x, (0, 0, 0, padding)).unflatten(2, (-1, block_size)).mean(3, dtype=torch.float32)
    if own_length and padding:
        means[:, :, -1] *= block_size / (block_size - padding)
    return means


def pooled_logits(q_means: Tensor, k_means: Tensor) -> Tensor:
    """q̄_i · k̄_j / sqrt(D): float32 [B, H, T, T] from [B, H, T, D] and [B, Hk, T, D]; query head h reads h // (H / Hk)."""
    B, H, T, D = q_means.shape
    grouped = q_means.reshape(B, k_means.shape[1], -1, D)
    return (grouped @ k_means.mT).reshape(B, H, T, T) * D**-0.5


def pooled_attention(q_means: Tensor, k_means: Tensor, allowed: Tensor) -> Tensor:
    """Attention between block means: a_i = softmax over the allowed j of (q̄_i · k̄_j / sqrt(D)).

    Args:
        q_means: float32 [B, H, T, D].
        k_means: float32 [B, Hk, T, D]; Hk divides H, query head h reads key head h // (H / Hk).
        allowed: bool [T, T].

    Returns:
        float32 [B, H, T, T]; zero where not allowed, and all zero in a row with nothing allowed.
    """
    attention = pooled_logits(q_means, k_means).masked_fill(~allowed, float("-inf")).softmax(-1)
    return attention.masked_fill(~allowed, 0.0)


def select_top_p_reference(
    q_means: Tensor, k_means: Tensor, tau: float, segment_blocks: int, score_own: bool, always: Tensor | None
) -> BlockLists:
    """As `select_top_p`; nothing is checked."""
    T = q_means.shape[2]
    segment = torch.arange(T, device=q_means.device) // segment_blocks
    earlier, own = segment[None, :] < segment[:, None], segment[None, :] == segment[:, None]
    scored = earlier | own if score_own else earlier
    mask = shortest_prefix(pooled_attention(q_means, k_means, scored), tau, scored) | own
    if always is not None:
        named = torch.arange(T, device=q_means.device) == always[..., None, None]  # [B, H, 1, T]
        mask = mask | (named & (earlier | own))
    return BlockLists.from_mask(mask)
