"""Choosing key blocks by attention between block means: Algorithm 2 of PBS-Attn (arXiv 2510.21270), and mean pooling."""

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.block_selection.reference import (
    block_means_reference,
    pooled_attention,
    select_top_p_reference,
)
from common.kernels.block_selection.top_p import check_share, shortest_prefix
from common.kernels.block_selection.triton import LARGEST_ROW, block_means_triton, select_top_p_triton
from common.kernels.block_sparse_attention.block_lists import BlockLists
from common.kernels.checks import (
    Implementation,
    check_floating,
    check_heads,
    check_int32,
    check_positive_int,
    choose_implementation,
)

__all__ = ["block_means", "check_share", "pooled_attention", "select_top_p", "shortest_prefix"]


def block_means(
    x: Tensor,
    block_size: int,
    *,
    order: Tensor | None = None,
    own_length: bool = False,
    implementation: Implementation = "auto",
) -> Tensor:
    """Mean over the rows of each block, the rows taken in a given order; rows in another order are never stored.

    Args:
        x: [B, Hk, N, D], every floating-point dtype and D.
        block_size: tokens per block.
        order: int32 [B, H, N], the position of the row that goes to each place; Hk divides H, head h of the order reads head
            h // (H / Hk) of x. None is the natural order.
        own_length: divide a partial last block by its number of rows, not by block_size.
        implementation: "triton", "reference", or "auto": Triton on a CUDA device, the reference on the CPU.

    Returns:
        float32 [B, H, T, D], T = ceil(N / block_size).

    Raises:
        InputError: a shape, dtype, device or value does not fit. The range of `order` is not checked.
        MissingHardwareError: implementation="triton" without a CUDA device or Triton's interpreter.
    """
    check_floating("x", x, "B Hk N D")
    check_positive_int("block_size", block_size)
    if order is not None:
        if order.ndim != 3:
            raise InputError(f"order has shape {tuple(order.shape)}; expected [B, H, N].")
        check_int32("order", order, (x.shape[0], order.shape[1], x.shape[2]), x.device)
        check_heads("order", order.shape[1], "x", x.shape[1])
    if choose_implementation(implementation, x.device) == "triton":
        return block_means_triton(x, block_size, order, own_length)
    return block_means_reference(x, block_size, order, own_length)


def select_top_p(
    q_means: Tensor,
    k_means: Tensor,
    *,
    tau: float,
    segment_blocks: int = 1,
    score_own: bool = False,
    always: Tensor | None = None,
    implementation: Implementation = "auto",
) -> BlockLists:
    """For every query block the shortest prefix of key blocks, by attention between means, that holds a share of it.

        a_i = softmax over the scored j of (q̄_i · k̄_j / sqrt(D)); the highest a_ij up to and including the one that reaches tau

    Args:
        q_means: float32 [B, H, T, D].
        k_means: float32 [B, Hk, T, D]; Hk divides H, query head h reads key head h // (H / Hk).
        tau: share to reach, in (0, 1]; 1 keeps every scored block. See `shortest_prefix` for ties and rounding.
        segment_blocks: blocks per segment. Scored are the blocks of earlier segments; those of the own segment are always kept.
        score_own: the own segment's blocks take part in the softmax, too.
        always: int32 [B, H], a block of each head that is always kept where it is not in a later segment; None for none.
        implementation: "triton", "reference", or "auto": Triton on a CUDA device for up to 16,384 blocks, else the reference.

    Returns:
        The lists, with L = T. The kernel and the reference agree but for entries whose predecessors sum to within rounding
        (about 1e-6) of tau.

    Raises:
        InputError: a shape, dtype, device or value does not fit, or implementation="triton" with more than 16,384 blocks.
        MissingHardwareError: implementation="triton" without a CUDA device or Triton's interpreter.
    """
    for name, x in (("q_means", q_means), ("k_means", k_means)):
        check_floating(name, x, "B H T D")
        if x.dtype != torch.float32:
            raise InputError(f"{name} has dtype {x.dtype}; expected float32, as `block_means` gives it.")
    B, H, T, D = q_means.shape
    if (k_means.shape[0], *k_means.shape[2:]) != (B, T, D) or k_means.device != q_means.device:
        raise InputError(
            f"q_means is {tuple(q_means.shape)} on {q_means.device} and k_means {tuple(k_means.shape)} on {k_means.device}; "
            "they must agree but for the heads."
        )
    check_heads("q_means", H, "k_means", k_means.shape[1])
    check_share("tau", tau)
    check_positive_int("segment_blocks", segment_blocks)
    if always is not None:
        check_int32("always", always, (B, H), q_means.device)
    if implementation == "triton" and T > LARGEST_ROW:
        raise InputError(f"q_means has {T} blocks; the Triton kernel takes up to {LARGEST_ROW}. Use 'reference' or 'auto'.")
    if choose_implementation(implementation, q_means.device) == "triton" and T <= LARGEST_ROW:
        return select_top_p_triton(q_means, k_means, tau, segment_blocks, score_own, always)
    return select_top_p_reference(q_means, k_means, tau, segment_blocks, score_own, always)
