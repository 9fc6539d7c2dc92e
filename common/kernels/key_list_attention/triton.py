"""Attention over listed key blocks, first keys and a window, Triton kernel: flash attention that gathers its tiles of keys."""

# Triton turns Python numbers into constexpr at the launch, and adds the launch's own options.
# pyright: reportArgumentType=false, reportCallIssue=false

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST_QUERY_BLOCK = 128
SMALLEST_TILE = 16  # rows of a matrix product


@dataclass(frozen=True)
class Configuration:
    """How a program is laid out: a query block by tiles of block_n keys."""

    block_n: int
    num_warps: int
    num_stages: int


def configuration(dtype: torch.dtype, head_dim: int, block_m: int) -> Configuration:
    """The frozen configuration: nothing is tuned at run time, so that two runs give the same bits.

    Args:
        dtype: of the queries.
        head_dim: D.
        block_m: queries of a tile.
    """
    if dtype == torch.float32:  # exact float32 products run on the ordinary cores, in registers: small tiles
        return Configuration(32 if head_dim == 64 else 16, num_warps=8 if block_m > 32 else 4, num_stages=1)
    return Configuration(64, num_warps=8 if block_m > 64 else 4, num_stages=3)


# Every configuration that `configuration` can return, by what it is for. The tests run each of them.
CONFIGURATIONS: dict[tuple[torch.dtype, int, int], Configuration] = {
    (dtype, head_dim, block_m): configuration(dtype, head_dim, block_m)
    for dtype in (torch.float16, torch.bfloat16, torch.float32)
    for head_dim in (64, 128)
    for block_m in (16, 32, 64, 128)
}


@triton.jit
def _attend(
    q, acc, total, m,  # of a tile of queries: themselves, sum of p v, sum of p, maximum of the logits in base 2
    keys, key_is_read, position, k_head, v_head, stride_kn, stride_vn, d, scale_log2, INPUT_PRECISION: tl.constexpr,
):  # fmt: skip
    """The online softmax over one tile of keys, which lie anywhere."""
    rows = keys.to(tl.int64)
    k = tl.load(k_head + rows[:, None] * stride_kn + d[None, :], mask=key_is_read[:, None], other=0.0)
    s = tl.dot(q, k.T, input_precision=INPUT_PRECISION) * scale_log2
    s = tl.where(key_is_read[None, :] & (keys[None, :] <= position[:, None]), s, float("-inf"))
    m_new = tl.maximum(m, tl.max(s, 1))
    p = tl.exp2(s - m_new[:, None])
    alpha = tl.exp2(m - m_new)
    v = tl.load(v_head + rows[:, None] * stride_vn + d[None, :], mask=key_is_read[:, None], other=0.0)
    acc = tl.dot(p.to(v.dtype), v, acc * alpha[:, None], input_precision=INPUT_PRECISION)
    return acc, total * alpha + tl.sum(p, 1), m_new


@triton.jit(do_not_specialize=["H", "GROUP", "N", "T", "ROWS", "L", "SINK"])  # one compilation for all lengths
def _forward_kernel(
    q_ptr, k_ptr, v_ptr, o_ptr,  # [B, H, N, D], twice [B, Hk, T, D], [B, H, N, D] contiguous
    counts, indices, window_starts,  # int32 [B, H, ROWS], [B, H, ROWS, L], [ROWS]
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    H, GROUP, N, T, ROWS, L, SINK, scale_log2,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr,
    INPUT_PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head: the listed keys, then the first keys, then the window."""
    task = tl.program_id(0)
    # The query heads of a group run side by side and share K and V in the L2 cache.
    h = task // (GROUP * ROWS) % (H // GROUP) * GROUP + task % GROUP
    row = task // GROUP % ROWS
    b = (task // (H * ROWS)).to(tl.int64)
    query = row * BLOCK_Q + tl.arange(0, BLOCK_M)
    real = (tl.arange(0, BLOCK_M) < BLOCK_Q) & (query < N)
    d = tl.arange(0, D)
    n = tl.arange(0, BLOCK_N)
    q_rows = query[:, None].to(tl.int64)
    q = tl.load(q_ptr + b * stride_qb + h * stride_qh + q_rows * stride_qn + d[None, :], mask=real[:, None], other=0.0)
    position = T - N + query
    k_head = k_ptr + b * stride_kb + (h // GROUP) * stride_kh
    v_head = v_ptr + b * stride_vb + (h // GROUP) * stride_vh
    acc = tl.zeros([BLOCK_M, D], tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    m = tl.full([BLOCK_M], -3.0e38, tl.float32)  # finite: a row that has seen nothing yet must not give inf - inf

    place = (b * H + h) * ROWS + row
    listed = tl.load(counts + place) * BLOCK_K
    numbers = indices + place * L
    for start in tl.range(0, listed, BLOCK_N, num_stages=STAGES):
        name = start + n
        block = tl.load(numbers + name // BLOCK_K, mask=name < listed, other=0)
        key = SINK + block * BLOCK_K + name % BLOCK_K
        acc, total, m = _attend(
            q, acc, total, m, key, (name < listed) & (key < T), position, k_head, v_head, stride_kn, stride_vn, d, scale_log2,
            INPUT_PRECISION,
        )  # fmt: skip
    last = tl.minimum(T - N + (row + 1) * BLOCK_Q, T)  # keys from here on are invisible to the whole block
    for start in tl.range(0, tl.minimum(SINK, last), BLOCK_N, num_stages=STAGES):
        key = start + n
        acc, total, m = _attend(
            q, acc, total, m, key, key < tl.minimum(SINK, last), position, k_head, v_head, stride_kn, stride_vn, d, scale_log2,
            INPUT_PRECISION,
        )  # fmt: skip
    for start in tl.range(tl.load(window_starts + row), last, BLOCK_N, num_stages=STAGES):
        key = start + n
        acc, total, m = _attend(
            q, acc, total, m, key, key < last, position, k_head, v_head, stride_kn, stride_vn, d, scale_log2, INPUT_PRECISION
        )  # fmt: skip
    o = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    o_rows = o_ptr + ((b * H + h) * N + q_rows) * D + d[None, :]
    tl.store(o_rows, o.to(o_ptr.dtype.element_ty), mask=real[:, None])


def key_list_attention_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    counts: Tensor,
    indices: Tensor,
    window_starts: Tensor,
    *,
    block_q: int,
    block_k: int,
    sink: int,
    scale: float,
    layout: Configuration | None = None,
) -> Tensor:
    """As `key_list_attention`, without its checks and with the layout to choose: for tests and sweeps."""
    B, H, N, D = q.shape
    T, rows = k.shape[2], counts.shape[2]
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    block_m = max(SMALLEST_TILE, triton.next_power_of_2(block_q))
    c = layout or configuration(q.dtype, D, block_m)
    o = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    _forward_kernel[(B * H * rows,)](
        q, k, v, o, counts.contiguous(), indices.contiguous(), window_starts.contiguous(),
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], H, H // k.shape[1], N, T, rows, indices.shape[3], sink,
        scale * math.log2(math.e),
        BLOCK_Q=block_q, BLOCK_K=block_k, BLOCK_M=block_m, BLOCK_N=c.block_n, D=D,
        INPUT_PRECISION="ieee" if q.dtype == torch.float32 else None, STAGES=c.num_stages, num_warps=c.num_warps,
    )  # fmt: skip
    return o
