"""Key importance, sorting and gathering, Triton kernels."""

# Triton turns Python numbers into constexpr at the launch, and adds the launch's own options.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from common.kernels.descriptors import for_descriptor

# Keys per program: enough programs to fill a GPU at 8k keys, few partial results at 128k.
CHUNK = 1024
# (keys of a tile, warps, stages) of the two passes over the keys in half precision.
NORMALIZER_LAUNCH = (64, 8, 3)
COLUMN_MEAN_LAUNCH = (64, 4, 3)
EXACT_LAUNCH = (32, 4, 1)  # exact float32 products run in registers: small tiles
SEGMENT_SIZES = (16, 32, 64, 128, 256, 512, 1024)


@triton.jit
def _load_queries(q_ptr, m, M, stride_qm, D: tl.constexpr):
    return tl.load(q_ptr + m[:, None].to(tl.int64) * stride_qm + tl.arange(0, D)[None, :], mask=m[:, None] < M, other=0.0)


@triton.jit(do_not_specialize=["H", "GROUP", "M", "Nk"])
def _partial_normalizer_kernel(
    q_ptr, k_desc, maxima, sums,  # [B, H, M, D], [B, Hk, Nk, D], float32 [B, H, chunks, M] twice
    stride_qb, stride_qh, stride_qm,
    H, GROUP, M, Nk, scale_log2,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Row maxima of the logits and sums of 2^(logit - maximum), chunk by chunk of the keys."""
    h, chunk = tl.program_id(0) % H, tl.program_id(1)
    b = tl.program_id(0) // H
    m = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    q = _load_queries(q_ptr + b.to(tl.int64) * stride_qb + h * stride_qh, m, M, stride_qm, D)

    maximum = tl.full([BLOCK_M], -3.0e38, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    for n0 in tl.range(chunk * CHUNK, tl.minimum((chunk + 1) * CHUNK, Nk), BLOCK_N):
        k = k_desc.load([b, h // GROUP, n0, 0]).reshape([BLOCK_N, D])
        s = tl.dot(q, k.T, input_precision=PRECISION) * scale_log2  # [BLOCK_M, BLOCK_N]
        s = tl.where((n0 + tl.arange(0, BLOCK_N) < Nk)[None, :], s, float("-inf"))
        new_maximum = tl.maximum(maximum, tl.max(s, 1))
        total = total * tl.exp2(maximum - new_maximum) + tl.sum(tl.exp2(s - new_maximum[:, None]), 1)
        maximum = new_maximum
    out = (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + chunk) * M + m
    tl.store(maxima + out, maximum, mask=m < M)
    tl.store(sums + out, total, mask=m < M)


@triton.jit(do_not_specialize=["H", "GROUP", "M", "Nk"])
def _column_mean_kernel(
    q_ptr, k_desc, normalizer, importance,  # [B, H, M, D], [B, Hk, Nk, D], float32 [B, H, M], float32 [B, H, Nk]
    stride_qb, stride_qh, stride_qm,
    H, GROUP, M, Nk, scale_log2,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """importance_n = mean over m of 2^(logit_mn - normalizer_m), for a chunk of keys; several tiles of queries add up in it.

    Keys are the rows of a tile, so that a sum over queries stays within a warp.
    """
    h, chunk = tl.program_id(0) % H, tl.program_id(1)
    b = tl.program_id(0) // H
    row = tl.program_id(0).to(tl.int64)
    for m0 in tl.range(0, M, BLOCK_M):
        m = m0 + tl.arange(0, BLOCK_M)
        q = _load_queries(q_ptr + b.to(tl.int64) * stride_qb + h * stride_qh, m, M, stride_qm, D)
        shift = tl.load(normalizer + row * M + m, mask=m < M, other=float("inf"))  # no row: 2^-inf = 0
        for n0 in tl.range(chunk * CHUNK, tl.minimum((chunk + 1) * CHUNK, Nk), BLOCK_N):
            k = k_desc.load([b, h // GROUP, n0, 0]).reshape([BLOCK_N, D])
            s = tl.dot(k, q.T, input_precision=PRECISION)  # [BLOCK_N, BLOCK_M]
            total = tl.sum(tl.exp2(s * scale_log2 - shift[None, :]), 1) / M
            n = n0 + tl.arange(0, BLOCK_N)
            at = importance + row * Nk + n
            if m0 > 0:
                total += tl.load(at, mask=n < Nk, other=0.0)
            tl.store(at, total, mask=n < Nk)


def key_importance_triton(q_last: Tensor, k: Tensor, scale: float) -> Tensor:
    """As `key_importance`, without its checks."""
    B, H, M, D = q_last.shape
    Hk, Nk = k.shape[1:3]
    q_last = q_last if q_last.stride(-1) == 1 else q_last.contiguous()
    exact = q_last.dtype == torch.float32
    block_m = 16 if exact else min(128, max(16, triton.next_power_of_2(M)))
    chunks = triton.cdiv(Nk, CHUNK)
    keys = for_descriptor(k)

    def launch(kernel, grid: tuple[int, ...], results: tuple[Tensor, ...], shape: tuple[int, int, int]) -> None:
        block_n, num_warps, num_stages = EXACT_LAUNCH if exact else shape
        kernel[grid](
            q_last, TensorDescriptor.from_tensor(keys, [1, 1, block_n, D]), *results,
            *q_last.stride()[:3], H, H // Hk, M, Nk, scale * math.log2(math.e),
            D=D, BLOCK_M=block_m, BLOCK_N=block_n, CHUNK=CHUNK, PRECISION="ieee" if exact else None,
            num_warps=num_warps, num_stages=num_stages,
        )  # fmt: skip

    maxima = torch.empty(B, H, chunks, M, dtype=torch.float32, device=k.device)
    sums = torch.empty_like(maxima)
    launch(_partial_normalizer_kernel, (B * H, chunks, triton.cdiv(M, block_m)), (maxima, sums), NORMALIZER_LAUNCH)
    maximum = maxima.amax(2, keepdim=True)
    normalizer = (maximum + (sums * torch.exp2(maxima - maximum)).sum(2, keepdim=True).log2()).squeeze(2)  # [B, H, M]

    importance = torch.empty(B, H, Nk, dtype=torch.float32, device=k.device)
    launch(_column_mean_kernel, (B * H, chunks), (normalizer, importance), COLUMN_MEAN_LAUNCH)
    return importance


@triton.jit
def _argsort_kernel(
    importance, order,  # float32 [segments, SIZE], int32 [segments, SIZE]
    segments, per_row,  # per_row: segments of one head
    SIZE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Sort ROWS segments. Value and place share a 64-bit number; places fall: the earlier of two equal values is larger."""
    segment = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    place = tl.arange(0, SIZE)[None, :]
    at = segment.to(tl.int64) * SIZE + place
    inside = segment < segments
    value = tl.load(importance + at, mask=inside, other=0.0) + 0.0  # -0 becomes 0
    bits = value.to(tl.int32, bitcast=True)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative floats are ordered against their bits
    bits = tl.where(value != value, 0x7FFFFFFF, bits)  # NaN first, as in torch.sort
    packed = (bits.to(tl.int64) << 32) | (SIZE - 1 - place)
    packed = tl.sort(packed, dim=1, descending=True)
    source = SIZE - 1 - (packed & 0xFFFFFFFF).to(tl.int32)
    tl.store(order + at, segment % per_row * SIZE + source, mask=inside)


def segment_argsort_triton(importance: Tensor, segment_size: int) -> Tensor:
    """As `segment_argsort`, without its checks."""
    importance = importance.float().contiguous()
    order = torch.empty(importance.shape, dtype=torch.int32, device=importance.device)
    segments = importance.numel() // segment_size
    rows = max(1, 1024 // segment_size)
    _argsort_kernel[(triton.cdiv(segments, rows),)](
        importance, order, segments, importance.shape[2] // segment_size, SIZE=segment_size, ROWS=rows, num_warps=4
    )
    return order


@triton.jit
def _gather_kernel(
    k_ptr, v_ptr, order, k_out, v_out,  # [B, Hk, N, D] twice, int32 [B, Ho, N], [B, Ho, N, D] twice
    stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    Ho, GROUP, N, D,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The heads that read one key head are neighbours, so that they find its rows in the L2 cache."""
    h = tl.program_id(0) % Ho
    b = (tl.program_id(0) // Ho).to(tl.int64)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)[None, :]
    out_row = (b * Ho + h) * N + n
    source = tl.load(order + out_row, mask=n < N, other=0)[:, None].to(tl.int64)
    mask = (n[:, None] < N) & (d < D)
    k = tl.load(k_ptr + b * stride_kb + (h // GROUP) * stride_kh + source * stride_kn + d, mask=mask)
    v = tl.load(v_ptr + b * stride_vb + (h // GROUP) * stride_vh + source * stride_vn + d, mask=mask)
    tl.store(k_out + out_row[:, None] * D + d, k, mask=mask)
    tl.store(v_out + out_row[:, None] * D + d, v, mask=mask)


def gather_keys_values_triton(k: Tensor, v: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """As `gather_keys_values`, without its checks."""
    B, Hk, N, D = k.shape
    Ho = order.shape[1]
    k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (k, v))
    k_out = torch.empty(B, Ho, N, D, dtype=k.dtype, device=k.device)
    v_out = torch.empty_like(k_out)
    block_n = 32
    _gather_kernel[(B * Ho, triton.cdiv(N, block_n))](
        k, v, order.contiguous(), k_out, v_out,
        *k.stride()[:3], *v.stride()[:3], Ho, Ho // Hk, N, D,
        BLOCK_N=block_n, BLOCK_D=triton.next_power_of_2(D), num_warps=4,
    )  # fmt: skip
    return k_out, v_out
