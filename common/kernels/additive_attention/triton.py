"""Additive attention scores and their gradients, Triton kernels. All of them are bound by the rate of tanh, not by memory.

With t_ijd = tanh(q_id + k_jd) and s = 1 - t^2, the gradients are

    dq_id = weight_d sum_j du_ij s_ijd,    dk_jd = weight_d sum_i du_ij s_ijd,    dweight_d = sum_bij du_ij t_ijd
"""

# Triton turns Python numbers into constexpr at the launch, and adds the launch's own options.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 256  # pairs of a program of the forward kernel
UNITS = 16  # hidden units that a program of the forward kernel takes at a time
ROWS = 32  # rows of a program of the backward kernel
COLUMNS = 32  # hidden units of a program of the backward kernel


@triton.jit
def _tanh(x):
    """1 - 2 / (e^2x + 1): an exponential and a division; exact at both infinities."""
    return 1.0 - 2.0 / (tl.exp2(x * 2.8853900817779268) + 1.0)


@triton.jit(do_not_specialize=["M", "N"])
def _scores_kernel(
    q_ptr, k_ptr, weight_ptr, u_ptr,  # [B, M, D], [B, N, D], [D], float32 [B, M, N]
    stride_qb, stride_qm, stride_kb, stride_kn, stride_weight,
    M, N, D,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Scores of BLOCK_M x BLOCK_N pairs. Hidden units add up element by element, and are reduced once at the end."""
    b = tl.program_id(0).to(tl.int64)
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros([BLOCK_M, BLOCK_N, BLOCK_D], tl.float32)
    for d0 in tl.range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        inside = (d < D)[None, :]
        q_at = q_ptr + b * stride_qb + m[:, None] * stride_qm + d[None, :]
        k_at = k_ptr + b * stride_kb + n[:, None] * stride_kn + d[None, :]
        q = tl.load(q_at, mask=(m < M)[:, None] & inside, other=0.0).to(tl.float32)
        k = tl.load(k_at, mask=(n < N)[:, None] & inside, other=0.0).to(tl.float32)
        weight = tl.load(weight_ptr + d * stride_weight, mask=d < D, other=0.0).to(tl.float32)
        total += _tanh(q[:, None, :] + k[None, :, :]) * weight[None, None, :]
    u = tl.sum(total, 2)
    tl.store(u_ptr + (b * M + m[:, None]) * N + n[None, :], u, mask=(m < M)[:, None] & (n < N)[None, :])


@triton.jit(do_not_specialize=["R", "C"])
def _gradient_kernel(
    row_ptr, column_ptr, weight_ptr, du_ptr,  # [B, R, D], [B, C, D], [D], float32 [B, R, C]
    drow_ptr, dweight_ptr,  # [B, R, D], float32 [B, blocks of R, D]
    stride_rb, stride_rr, stride_cb, stride_cc, stride_weight, stride_ub, stride_ur, stride_uc,
    R, C, D,
    BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, WEIGHT: tl.constexpr,
):  # fmt: skip
    """Gradient of BLOCK_R rows (queries or keys) and BLOCK_D hidden units, one column (key or query) after another.

    With WEIGHT, also this block's part of dweight.
    """
    b, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    r = block * BLOCK_R + tl.arange(0, BLOCK_R)
    d = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = (r < R)[:, None] & (d < D)[None, :]
    rows = tl.load(row_ptr + b * stride_rb + r[:, None] * stride_rr + d[None, :], mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + d * stride_weight, mask=d < D, other=0.0).to(tl.float32)

    total = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    total_weight = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    for c in tl.range(0, C):
        column = tl.load(column_ptr + b * stride_cb + c * stride_cc + d, mask=d < D, other=0.0).to(tl.float32)
        du = tl.load(du_ptr + b * stride_ub + r * stride_ur + c * stride_uc, mask=r < R, other=0.0)[:, None]
        t = _tanh(rows + column[None, :])
        total += du * (1.0 - t * t)
        if WEIGHT:
            total_weight += du * t

    out = (total * weight[None, :]).to(drow_ptr.dtype.element_ty)
    tl.store(drow_ptr + (b * R + r[:, None]) * D + d[None, :], out, mask=inside)
    if WEIGHT:
        at = dweight_ptr + (b * tl.num_programs(1) + block) * D + d
        tl.store(at, tl.sum(total_weight, 0), mask=d < D)


def _rows_contiguous(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def additive_attention_triton(q: Tensor, k: Tensor, weight: Tensor) -> Tensor:
    """As `additive_attention`, without its checks."""
    B, M, D = q.shape
    N = k.shape[1]
    q, k = _rows_contiguous(q), _rows_contiguous(k)
    u = torch.empty(B, M, N, dtype=torch.float32, device=q.device)
    block_m = min(16, triton.next_power_of_2(M))  # one query in decoding, more in training
    block_n = TILE // block_m
    _scores_kernel[(B, triton.cdiv(M, block_m), triton.cdiv(N, block_n))](
        q, k, weight, u,
        *q.stride()[:2], *k.stride()[:2], weight.stride(0), M, N, D,
        BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_D=UNITS, num_warps=4,
    )  # fmt: skip
    return u


def additive_attention_backward_triton(q: Tensor, k: Tensor, weight: Tensor, du: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `additive_attention_triton`.

    Args:
        q: [B, M, D].
        k: [B, N, D].
        weight: [D].
        du: gradient of the scores, float32 [B, M, N].

    Returns:
        dq and dk in the dtype of q, contiguous; dweight in that of weight, summed in float32.
    """
    B, M, D = q.shape
    N = k.shape[1]
    q, k = _rows_contiguous(q), _rows_contiguous(k)
    dq = torch.empty(B, M, D, dtype=q.dtype, device=q.device)
    dk = torch.empty(B, N, D, dtype=k.dtype, device=k.device)
    blocks_m, blocks_n, blocks_d = triton.cdiv(M, ROWS), triton.cdiv(N, ROWS), triton.cdiv(D, COLUMNS)
    dweight = torch.empty(B, blocks_m, D, dtype=torch.float32, device=q.device)
    options = {"BLOCK_R": ROWS, "BLOCK_D": COLUMNS, "num_warps": 4}
    _gradient_kernel[(B, blocks_m, blocks_d)](
        q, k, weight, du, dq, dweight,
        *q.stride()[:2], *k.stride()[:2], weight.stride(0), *du.stride(), M, N, D,
        WEIGHT=True, **options,
    )  # fmt: skip
    _gradient_kernel[(B, blocks_n, blocks_d)](
        k, q, weight, du, dk, dweight,
        *k.stride()[:2], *q.stride()[:2], weight.stride(0), du.stride(0), du.stride(2), du.stride(1), N, M, D,
        WEIGHT=False, **options,
    )  # fmt: skip
    return dq, dk, dweight.sum((0, 1)).to(weight.dtype)
