"""Pooled block selection, Triton kernels: means of blocks in any order, and the shortest prefix without a sort."""

# Triton turns Python numbers into constexpr at the launch, and adds the launch's own options.
# pyright: reportArgumentType=false, reportCallIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from common.kernels.block_selection.top_p import ROUNDING
from common.kernels.block_sparse_attention.block_lists import BlockLists

LARGEST_ROW = 16384  # blocks whose scores one program holds
SHORTEST_ROW = 256  # of the narrowest program


@triton.jit(do_not_specialize=["H", "GROUP", "N"])
def _block_means_kernel(
    x_ptr, order, means,  # [B, Hk, N, D], int32 [B, H, N], float32 [B, H, T, D]
    stride_b, stride_h, stride_n,
    H, GROUP, N, D, block_size,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, HAS_ORDER: tl.constexpr, OWN_LENGTH: tl.constexpr,
):  # fmt: skip
    """One block of one head. The heads that read one key head are neighbours, so that they find its rows in the L2 cache."""
    h = tl.program_id(0) % H
    b = (tl.program_id(0) // H).to(tl.int64)
    t = tl.program_id(1)
    d = tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_D], tl.float32)
    for start in tl.range(0, block_size, BLOCK_N):
        offset = start + tl.arange(0, BLOCK_N)
        n = t * block_size + offset
        inside = (n < N) & (offset < block_size)
        source = tl.load(order + (b * H + h) * N + n, mask=inside, other=0) if HAS_ORDER else n
        rows = x_ptr + b * stride_b + (h // GROUP) * stride_h + source[:, None].to(tl.int64) * stride_n
        x = tl.load(rows + d[None, :], mask=inside[:, None] & (d < D)[None, :], other=0.0)
        total += tl.sum(x.to(tl.float32), 0)
    divisor = tl.minimum(block_size, N - t * block_size) if OWN_LENGTH else block_size
    tl.store(means + ((b * H + h) * tl.num_programs(1) + t) * D + d, total / divisor, mask=d < D)


def block_means_triton(x: Tensor, block_size: int, order: Tensor | None, own_length: bool) -> Tensor:
    """As `block_means`, without its checks."""
    B, Hk, N, D = x.shape
    H = Hk if order is None else order.shape[1]
    x = x if x.stride(-1) == 1 else x.contiguous()
    T = triton.cdiv(N, block_size)
    means = torch.empty(B, H, T, D, dtype=torch.float32, device=x.device)
    _block_means_kernel[(B * H, T)](
        x, means if order is None else order.contiguous(), means, *x.stride()[:3], H, H // Hk, N, D, block_size,
        BLOCK_N=min(128, triton.next_power_of_2(block_size)), BLOCK_D=triton.next_power_of_2(D),
        HAS_ORDER=order is not None, OWN_LENGTH=own_length, num_warps=2,
    )  # fmt: skip
    return means


@triton.jit(do_not_specialize=["H", "GROUP", "T"])
def _logits_kernel(
    q_means, k_means, logits,  # float32 [B, H, T, D], [B, Hk, T, D], [B, H, T, T]
    H, GROUP, T, reach, D, scale,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A tile of q̄_i · k̄_j * scale, unless its columns all lie in later segments: those are never read."""
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    j = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    if tl.program_id(2) * BLOCK >= (tl.program_id(1) + 1) * BLOCK + reach:
        return
    head = tl.program_id(0).to(tl.int64)
    key_head = head // H * (H // GROUP) + head % H // GROUP
    s = tl.zeros([BLOCK, BLOCK], tl.float32)
    for d0 in tl.range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        q = tl.load(q_means + (head * T + i[:, None]) * D + d[None, :], mask=(i < T)[:, None] & (d < D)[None, :], other=0.0)
        k = tl.load(k_means + (key_head * T + j[:, None]) * D + d[None, :], mask=(j < T)[:, None] & (d < D)[None, :], other=0.0)
        s = tl.dot(q, k.T, s, input_precision="tf32x3")  # three products in 19 bits: as exact as float32
    tl.store(logits + (head * T + i[:, None]) * T + j[None, :], s * scale, mask=(i < T)[:, None] & (j < T)[None, :])


def causal_logits(q_means: Tensor, k_means: Tensor, segment_blocks: int) -> Tensor:
    """`pooled_logits` where j is not in a later segment than i; the rest is left as it was in memory."""
    B, H, T, D = q_means.shape
    logits = torch.empty(B, H, T, T, dtype=torch.float32, device=q_means.device)
    block = 64
    tiles = triton.cdiv(T, block)
    _logits_kernel[(B * H, tiles, tiles)](
        q_means.contiguous(), k_means.contiguous(), logits, H, H // k_means.shape[1], T, segment_blocks - 1, D, D**-0.5,
        BLOCK=block, BLOCK_D=32, num_warps=4,
    )  # fmt: skip
    return logits


@triton.jit(do_not_specialize=["T", "SEGMENT_BLOCKS", "FIRST", "ROWS"])
def _top_p_kernel(
    logits, always, counts, indices,  # float32 [B, H, T, T], int32 [B, H], [B, H, T], [B, H, T, T], zeros
    T, SEGMENT_BLOCKS, FIRST, ROWS, limit,
    SCORE_OWN: tl.constexpr, HAS_ALWAYS: tl.constexpr, KEEP_ALL: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """One of the ROWS rows from FIRST on: softmax, shortest prefix, forced blocks, list. No row's blocks reach BLOCK_T.

    An entry is kept if the entries before it sum to less than `limit`. The mass above a value falls as the value grows, so the
    smallest value whose mass above is still less than the limit is found by halving an interval, 31 times: as many as a float
    between 0 and 1 has bits. Positive floats are ordered as their bits are.
    """
    i = FIRST + tl.program_id(0) % ROWS
    row = tl.program_id(0) // ROWS * T + i
    j = tl.arange(0, BLOCK_T)
    first_own = i // SEGMENT_BLOCKS * SEGMENT_BLOCKS
    end = tl.minimum(first_own + SEGMENT_BLOCKS, T)
    allowed = j < (end if SCORE_OWN else first_own)
    selected = (j >= first_own) & (j < end)
    if HAS_ALWAYS:
        selected = selected | ((j == tl.load(always + row // T)) & (j < end))
    if KEEP_ALL:
        selected = selected | allowed
    else:
        s = tl.load(logits + row.to(tl.int64) * T + j, mask=allowed, other=float("-inf"))
        e = tl.exp(s - tl.maximum(tl.max(s, 0), -3.0e38))
        total = tl.sum(e, 0)
        p = e / tl.where(total == 0.0, 1.0, total)
        bits = p.to(tl.int32, bitcast=True)
        below = -1  # the mass above 2^-149 or more is too much
        found = 0x3F800000  # 1.0: nothing lies above
        for _ in tl.static_range(31):
            middle = (below + found) >> 1
            enough = tl.sum(tl.where(bits > middle, p, 0.0), 0) < limit
            found = tl.where(enough, middle, found)
            below = tl.where(enough, below, middle)
        equal = bits == found
        before = tl.sum(tl.where(bits > found, p, 0.0), 0)
        value = found.to(tl.float32, bitcast=True)
        rank = tl.cumsum(equal.to(tl.int32), 0) - 1  # ties: lower column first
        kept = (bits > found) | (equal & (before + rank.to(tl.float32) * value < limit))
        selected = selected | (kept & allowed)
    place = tl.cumsum(selected.to(tl.int32), 0) - 1
    count = tl.sum(selected.to(tl.int32), 0)
    tl.store(counts + row, count)
    numbers = indices + row.to(tl.int64) * T
    tl.store(numbers + place, j, mask=selected)


def select_top_p_triton(
    q_means: Tensor, k_means: Tensor, tau: float, segment_blocks: int, score_own: bool, always: Tensor | None
) -> BlockLists:
    """As `select_top_p`, without its checks."""
    B, H, T, _ = q_means.shape
    logits = causal_logits(q_means, k_means, segment_blocks)
    counts = torch.empty(B, H, T, dtype=torch.int32, device=logits.device)
    indices = torch.zeros(B, H, T, T, dtype=torch.int32, device=logits.device)
    first = 0
    block_t = SHORTEST_ROW
    while first < T:  # short rows in narrow programs, longer ones in programs twice as wide
        end = T if block_t >= T else block_t // segment_blocks * segment_blocks
        if end > first:
            _top_p_kernel[(B * H * (end - first),)](
                logits, counts if always is None else always.contiguous(), counts, indices,
                T, segment_blocks, first, end - first, max(tau - ROUNDING, 1e-30),
                SCORE_OWN=score_own, HAS_ALWAYS=always is not None, KEEP_ALL=tau == 1, BLOCK_T=block_t,
                num_warps=min(8, max(1, block_t // 1024)),
            )  # fmt: skip
            first = end
        block_t *= 2
    return BlockLists(counts, indices)
