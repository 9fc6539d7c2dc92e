"""Mask search of HiP (arXiv 2406.09827): a beam search over a binary tree of key blocks, for every block of queries."""

from typing import Literal

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.block_sparse_attention.block_lists import BlockLists
from common.kernels.checks import (
    Implementation,
    check_floating,
    check_heads,
    check_kernel_supports,
    check_like,
    check_positive_int,
    choose_implementation,
)
from common.kernels.hierarchical_search.reference import hierarchical_search_reference, searched_blocks
from common.kernels.hierarchical_search.triton import (
    LARGEST_BEAM,
    MOST_SAMPLED_KEYS,
    MOST_SAMPLED_QUERIES,
    hierarchical_search_triton,
)

__all__ = ["REPRESENTATIVES", "Representative", "hierarchical_search", "hierarchical_search_reference", "searched_blocks"]

Representative = Literal["first", "center", "last"]
REPRESENTATIVES: tuple[Representative, ...] = ("first", "center", "last")


def hierarchical_search(
    q: Tensor,
    k: Tensor,
    *,
    nodes: int,
    block_q: int = 32,
    block_k: int = 2,
    window: int = 256,
    sink: int = 16,
    stride_q: int = 2,
    stride_k: int = 1,
    representative: Representative = "center",
    implementation: Implementation = "auto",
) -> BlockLists:
    """Key blocks of every query block by halving chunks of keys and keeping the best halves (Section 3.2 of the paper).

        M = max(0, first query of the block - window - sink) // block_k  key blocks, the first of which begins at key `sink`
        chunk i of the start: [i M // nodes, (i + 1) M // nodes), i < nodes
        round: halve every chunk, the left half not shorter; keep the `nodes` best halves, until each is one block
        score of a half: max q · k over the sampled queries of the block and the sampled keys of the half's representative

    Sampled are the last of every stride_q queries (a partial block's last for those that it lacks) and the first of every
    stride_k keys of a block. Scores are float32, float64 for float64 inputs; neither scaled nor normalised. Ties: earlier keys
    first.

    Args:
        q: queries [B, H, N, D]: those of the last N of the T positions; float16, bfloat16 or float32, D 64 or 128 (the
            reference: every floating-point dtype and D).
        k: keys [B, Hk, T, D], T >= N; Hk divides H, query head h reads key head h // (H / Hk).
        nodes: n, blocks of a list; the kernel takes up to 1024.
        block_q: b_q, queries that share a list.
        block_k: b_k, keys that are kept or dropped together.
        window: keys before a query block that are not searched.
        sink: first keys that are not searched.
        stride_q: b_sq, at most block_q; the kernel takes up to 128 sampled queries a block.
        stride_k: b_sk, at most block_k; the kernel takes up to 16 sampled keys a block.
        representative: the block of a half that is scored.
        implementation: "triton", "reference", or "auto": Triton on a CUDA device, the reference on the CPU.

    Returns:
        Lists with counts [B, H, ceil(N / block_q)] = min(M, nodes) and L = nodes, key blocks counted from key `sink` on,
        ascending. A block whose M is at most `nodes` lists all. With NaN in q or k the lists are in range and ascend, and what
        they hold is left open.

    Raises:
        InputError: a shape, dtype, device or value does not fit.
        MissingHardwareError: implementation="triton" without a CUDA device or Triton's interpreter.
    """
    check_floating("q", q, "B H N D")
    check_floating("k", k, "B Hk T D")
    check_like("k", k, "q", q)
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or q.shape[2] > k.shape[2]:
        raise InputError(
            f"q has shape {tuple(q.shape)} and k {tuple(k.shape)}; batch and head dim must be equal, k at least as long as q."
        )
    check_heads("q", q.shape[1], "k", k.shape[1])
    for name, value in (("nodes", nodes), ("block_q", block_q), ("block_k", block_k), ("stride_q", stride_q),
                        ("stride_k", stride_k)):  # fmt: skip
        check_positive_int(name, value)
    for name, value in (("window", window), ("sink", sink)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(f"{name} is {value!r}; it must be 0 or a positive integer.")
    for stride, block in (("stride_q", "block_q"), ("stride_k", "block_k")):
        if locals()[stride] > locals()[block]:
            raise InputError(f"{stride} is {locals()[stride]} and {block} {locals()[block]}; it must not exceed it.")
    if representative not in REPRESENTATIVES:
        raise InputError(f"representative is {representative!r}; choose 'first', 'center' or 'last'.")
    search = hierarchical_search_reference
    if choose_implementation(implementation, q.device) == "triton":
        check_kernel_supports("q", q)
        for what, number, most in (
            ("nodes", nodes, LARGEST_BEAM),
            ("block_q // stride_q", block_q // stride_q, MOST_SAMPLED_QUERIES),
            ("block_k / stride_k, rounded up,", -(-block_k // stride_k), MOST_SAMPLED_KEYS),
        ):
            if number > most:
                raise InputError(f"{what} is {number}; the Triton kernel takes up to {most}. Use implementation='reference'.")
        search = hierarchical_search_triton
    with torch.no_grad():
        return search(
            q, k, nodes=nodes, block_q=block_q, block_k=block_k, window=window, sink=sink, stride_q=stride_q, stride_k=stride_k,
            representative=representative,
        )  # fmt: skip
