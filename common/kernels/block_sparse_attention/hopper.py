"""Block-sparse attention for Hopper (compute capability 9.0), written in Gluon: the warps of a program have separate tasks.

One warp loads: it takes the next tile of 128 queries, walks its list of key blocks and keeps the tensor memory accelerator
busy. Two groups of four warps compute, 64 queries each: while the tensor cores work for one group, the other takes its softmax.
Inside a group the product of queries and the next keys runs while the softmax of the last one is being finished. Programs are
persistent, one on each multiprocessor, and take tiles from a counter, longest rows first, so that uneven lists balance.
"""

# Gluon's types exist while a kernel is being compiled.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# pyright: reportAssignmentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

import math
from functools import lru_cache

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from common.kernels.block_sparse_attention.block_lists import BlockLists
from common.kernels.checks import KERNEL_HEAD_DIMS, is_hopper
from common.kernels.descriptors import for_descriptor

BLOCK_SIZE = 128  # queries of a tile, keys of a block
STAGES = 2  # key blocks, and value blocks, on their way or in use
DTYPES = (torch.float16, torch.bfloat16)


@gluon.jit
def _decode(tile, rows, GROUP, Hk):
    """Tile -> (batch entry, key head, query head, query block). A group's query heads are neighbours; long rows come first."""
    row = rows - 1 - (tile // GROUP) % rows
    key_head = tile // (GROUP * rows) % Hk
    b = tile // (GROUP * rows) // Hk
    return b, key_head, key_head * GROUP + tile % GROUP, row


@gluon.jit
def _publish(tile, count, own, n, infos, full, empty):
    """Tell the computing warps which tile comes n-th: (tile, length of its list, how many of it are in the own segment)."""
    slot = n % 2
    mbarrier.wait(empty.index(slot), (n // 2 & 1) ^ 1)
    place = gl.arange(0, 4, layout=gl.BlockedLayout([4], [32], [1], [0]))
    infos.index(slot).store(gl.where(place == 0, tile, gl.where(place == 1, count, own)))
    mbarrier.arrive(full.index(slot), count=1)


@gluon.jit
def _next_tile(n, infos, full, empty):
    """The n-th tile of this program, as published."""
    slot = n % 2
    layout: gl.constexpr = gl.BlockedLayout([4], [32], [4], [0])
    mbarrier.wait(full.index(slot), n // 2 & 1)
    info = infos.index(slot).load(layout)
    place = gl.arange(0, 4, layout=layout)
    tile = gl.sum(gl.where(place == 0, info, 0), 0)
    count = gl.sum(gl.where(place == 1, info, 0), 0)
    own = gl.sum(gl.where(place == 2, info, 0), 0)
    mbarrier.arrive(empty.index(slot), count=1)
    return tile, count, own


@gluon.jit
def _load(descriptors, buffers, barriers, pointers, sizes, SEGMENT_BLOCKS: gl.constexpr, STAGES: gl.constexpr):
    """The loading warp: tiles, queries, and the listed keys and values, last block first."""
    q_desc, k_desc, v_desc, _ = descriptors
    q_buf, k_bufs, v_bufs, _, infos = buffers
    q_full, q_empty, k_full, k_empty, v_full, v_empty, info_full, info_empty = barriers
    counts, indices, _, counter = pointers
    Hk, GROUP, _, T, L, SEGMENT, tiles = sizes
    B: gl.constexpr = q_buf.shape[2]

    n = 0
    c = 0
    tile = gl.atomic_add(counter, 1)
    while tile < tiles:
        following = gl.atomic_add(counter, 1)
        b, key_head, h, row = _decode(tile, T, GROUP, Hk)
        list_row = (b * Hk * GROUP + h).to(gl.int64) * T + row
        count = gl.load(counts + list_row)
        block_list = indices + list_row * L
        # The last entries of the ascending list are the own segment's.
        first_own = row * B // SEGMENT * (SEGMENT // B)
        last = count - 1 - gl.arange(0, SEGMENT_BLOCKS, layout=gl.BlockedLayout([1], [32], [1], [0]))
        own = gl.sum((gl.load(block_list + last, mask=last >= 0, other=-1) >= first_own).to(gl.int32), 0)
        _publish(tile, count, own, n, infos, info_full, info_empty)

        mbarrier.wait(q_empty, (n & 1) ^ 1)
        mbarrier.expect(q_full, q_desc.block_type.nbytes)
        tma.async_copy_global_to_shared(q_desc, [b, h, row * B, 0], q_full, q_buf)
        block = gl.load(block_list + gl.maximum(count - 1, 0))
        for j in range(count):
            n0 = block * B
            block = gl.load(block_list + gl.maximum(count - 2 - j, 0))  # one step ahead of its use
            stage = c % STAGES
            phase = (c // STAGES & 1) ^ 1
            mbarrier.wait(k_empty.index(stage), phase)
            mbarrier.expect(k_full.index(stage), k_desc.block_type.nbytes)
            tma.async_copy_global_to_shared(k_desc, [b, key_head, n0, 0], k_full.index(stage), k_bufs.index(stage))
            mbarrier.wait(v_empty.index(stage), phase)
            mbarrier.expect(v_full.index(stage), v_desc.block_type.nbytes)
            tma.async_copy_global_to_shared(v_desc, [b, key_head, n0, 0], v_full.index(stage), v_bufs.index(stage))
            c += 1
        tile = following
        n += 1
    _publish(-1, 0, 0, n, infos, info_full, info_empty)  # no more tiles


@gluon.jit
def _masked(s, j, own, block_list, count, position_row, query_positions, N, B: gl.constexpr, HAS_POSITIONS: gl.constexpr):
    """Logits of the list's j-th block from its end: in the own segment a key is visible up to the query's position."""
    n0 = gl.load(block_list + count - 1 - j) * B
    places = n0 + gl.arange(0, B, layout=gl.SliceLayout(0, s.type.layout))
    positions = gl.load(position_row + places, mask=places < N, other=2147483647) if HAS_POSITIONS else places
    visible = (positions[None, :] <= query_positions[:, None]) | (j >= own)
    return gl.where(visible, s, float("-inf"))


@gluon.jit
def _softmax(s, m, total, scale_log2):
    """One online softmax step: weights 2^(s - m_new), the new maximum and sum, and the factor of what came before."""
    m_new = gl.maximum(m, gl.max(s, 1) * scale_log2)
    p = gl.exp2(s * scale_log2 - m_new[:, None])
    alpha = gl.exp2(m - m_new)
    return p, m_new, total * alpha + gl.sum(p, 1), alpha


@gluon.jit
def _step(
    q, weights, acc, m, total, c, j, own, count, block_list, position_row, query_positions, N, scale_log2,
    k_bufs, v_bufs, barriers,
    MASKED: gl.constexpr, STAGES: gl.constexpr, HAS_POSITIONS: gl.constexpr,
):  # fmt: skip
    """Logits of block c and, at the same time, the values of block c - 1; then the softmax of block c."""
    _, _, k_full, k_empty, v_full, v_empty, _, _ = barriers
    B: gl.constexpr = k_bufs.shape[3]
    D: gl.constexpr = k_bufs.shape[4]
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, B, 16])
    O_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    P_LAYOUT: gl.constexpr = gl.DotOperandLayout(0, O_LAYOUT, 2)
    stage = c % STAGES
    before = (c - 1) % STAGES
    p = gl.convert_layout(weights.to(k_bufs.dtype), P_LAYOUT)
    zeros = gl.zeros([64, B], gl.float32, S_LAYOUT)
    mbarrier.wait(k_full.index(stage), c // STAGES & 1)
    k = k_bufs.index(stage).reshape([B, D])
    s = warpgroup_mma(q, k.permute((1, 0)), zeros, use_acc=False, is_async=True)
    mbarrier.wait(v_full.index(before), (c - 1) // STAGES & 1)
    v = v_bufs.index(before).reshape([B, D])
    acc = warpgroup_mma(p, v, acc, is_async=True)
    s = warpgroup_mma_wait(1, deps=(s,))
    mbarrier.arrive(k_empty.index(stage), count=1)
    if MASKED:
        s = _masked(s, j, own, block_list, count, position_row, query_positions, N, B, HAS_POSITIONS)
    weights, m, total, alpha = _softmax(s, m, total, scale_log2)
    acc = warpgroup_mma_wait(0, deps=(acc,))
    mbarrier.arrive(v_empty.index(before), count=1)
    acc = acc * gl.convert_layout(alpha, gl.SliceLayout(1, O_LAYOUT))[:, None]
    return weights, acc, m, total


@gluon.jit
def _compute(
    descriptors, buffers, barriers, pointers, sizes, scale_log2,
    WHICH: gl.constexpr, STAGES: gl.constexpr, HAS_POSITIONS: gl.constexpr,
):  # fmt: skip
    """A computing group: 64 of a tile's 128 queries, the first or (WHICH = 1) the second half."""
    _, _, _, o_desc = descriptors
    q_buf, k_bufs, v_bufs, o_bufs, infos = buffers
    q_full, q_empty, k_full, k_empty, v_full, v_empty, info_full, info_empty = barriers
    _, indices, key_positions, _ = pointers
    Hk, GROUP, N, T, L, _, _ = sizes
    B: gl.constexpr = q_buf.shape[2]
    D: gl.constexpr = q_buf.shape[3]
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, B, 16])
    O_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    P_LAYOUT: gl.constexpr = gl.DotOperandLayout(0, O_LAYOUT, 2)
    q = q_buf.reshape([B, D]).slice(WHICH * 64, 64)
    o_buf = o_bufs.index(WHICH)

    n = 0
    c = 0
    tile, count, own = _next_tile(n, infos, info_full, info_empty)
    while tile >= 0:
        b, key_head, h, row = _decode(tile, T, GROUP, Hk)
        block_list = indices + ((b * Hk * GROUP + h).to(gl.int64) * T + row) * L
        position_row = key_positions + (b * Hk + key_head).to(gl.int64) * N
        m0 = row * B + WHICH * 64
        query_positions = m0 + gl.arange(0, 64, layout=gl.SliceLayout(1, S_LAYOUT))
        acc = gl.zeros([64, D], gl.float32, O_LAYOUT)
        total = gl.zeros([64], gl.float32, gl.SliceLayout(1, S_LAYOUT))
        # Finite: a row that has seen nothing yet must not give inf - inf.
        m = gl.full([64], -3.0e38, gl.float32, gl.SliceLayout(1, S_LAYOUT))
        mbarrier.wait(q_full, n & 1)
        if count > 0:
            stage = c % STAGES
            mbarrier.wait(k_full.index(stage), c // STAGES & 1)
            k = k_bufs.index(stage).reshape([B, D])
            zeros = gl.zeros([64, B], gl.float32, S_LAYOUT)
            s = warpgroup_mma(q, k.permute((1, 0)), zeros, use_acc=False, is_async=True)
            s = warpgroup_mma_wait(0, deps=(s,))
            mbarrier.arrive(k_empty.index(stage), count=1)
            s = _masked(s, 0, own, block_list, count, position_row, query_positions, N, B, HAS_POSITIONS)
            weights, m, total, _alpha = _softmax(s, m, total, scale_log2)
            c += 1
            for j in range(1, own):
                weights, acc, m, total = _step(
                    q, weights, acc, m, total, c, j, own, count, block_list, position_row, query_positions, N, scale_log2,
                    k_bufs, v_bufs, barriers, True, STAGES, HAS_POSITIONS,
                )  # fmt: skip
                c += 1
            for j in range(gl.maximum(own, 1), count):
                weights, acc, m, total = _step(
                    q, weights, acc, m, total, c, j, own, count, block_list, position_row, query_positions, N, scale_log2,
                    k_bufs, v_bufs, barriers, False, STAGES, HAS_POSITIONS,
                )  # fmt: skip
                c += 1
            mbarrier.arrive(q_empty, count=1)
            before = (c - 1) % STAGES
            mbarrier.wait(v_full.index(before), (c - 1) // STAGES & 1)
            v = v_bufs.index(before).reshape([B, D])
            p = gl.convert_layout(weights.to(k_bufs.dtype), P_LAYOUT)
            acc = warpgroup_mma(p, v, acc, is_async=True)
            acc = warpgroup_mma_wait(0, deps=(acc,))
            mbarrier.arrive(v_empty.index(before), count=1)
        else:
            mbarrier.arrive(q_empty, count=1)
        factor = 1.0 / gl.where(total == 0.0, 1.0, total)
        o = acc * gl.convert_layout(factor, gl.SliceLayout(1, O_LAYOUT))[:, None]
        tma.store_wait(0)  # the last tile has left the buffer
        o_buf.reshape([64, D]).store(o.to(o_desc.dtype))
        fence_async_shared()
        tma.async_copy_shared_to_global(o_desc, [b, h, m0, 0], o_buf)
        n += 1
        tile, count, own = _next_tile(n, infos, info_full, info_empty)
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["Hk", "GROUP", "N", "T", "L", "SEGMENT", "tiles"])
def _forward_kernel(
    q_desc, k_desc, v_desc, o_desc,  # [B, H or Hk, N, D]; reads past N give zeros, writes past N are dropped
    counts, indices,  # [B, H, T], [B, H, T, L]
    key_positions,  # [B, Hk, N]
    counter,  # int32 [1], zero: the next tile
    Hk, GROUP, N, T, L, SEGMENT, tiles,
    scale_log2,
    SEGMENT_BLOCKS: gl.constexpr,  # blocks per segment, rounded up to a power of two
    HAS_POSITIONS: gl.constexpr, STAGES: gl.constexpr,
    COMPUTE_REGISTERS: gl.constexpr, LOAD_REGISTERS: gl.constexpr,
):  # fmt: skip
    """One program a multiprocessor: two computing groups and a loading warp."""
    q_buf = gl.allocate_shared_memory(q_desc.dtype, q_desc.block_type.shape, q_desc.layout)
    k_bufs = gl.allocate_shared_memory(k_desc.dtype, [STAGES] + k_desc.block_type.shape, k_desc.layout)  # noqa: RUF005
    v_bufs = gl.allocate_shared_memory(v_desc.dtype, [STAGES] + v_desc.block_type.shape, v_desc.layout)  # noqa: RUF005
    o_bufs = gl.allocate_shared_memory(o_desc.dtype, [2] + o_desc.block_type.shape, o_desc.layout)  # noqa: RUF005
    infos = gl.allocate_shared_memory(gl.int32, [2, 4], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    q_empty = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    info_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    info_empty = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_full, count=1)
    mbarrier.init(q_empty, count=2)
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(k_empty.index(i), count=2)
        mbarrier.init(v_full.index(i), count=1)
        mbarrier.init(v_empty.index(i), count=2)
    for i in gl.static_range(2):
        mbarrier.init(info_full.index(i), count=1)
        mbarrier.init(info_empty.index(i), count=2)
    fence_async_shared()

    descriptors = (q_desc, k_desc, v_desc, o_desc)
    buffers = (q_buf, k_bufs, v_bufs, o_bufs, infos)
    barriers = (q_full, q_empty, k_full, k_empty, v_full, v_empty, info_full, info_empty)
    pointers = (counts, indices, key_positions, counter)
    sizes = (Hk, GROUP, N, T, L, SEGMENT, tiles)
    gl.warp_specialize(
        [
            (_compute, (descriptors, buffers, barriers, pointers, sizes, scale_log2, 0, STAGES, HAS_POSITIONS)),
            (_compute, (descriptors, buffers, barriers, pointers, sizes, scale_log2, 1, STAGES, HAS_POSITIONS)),
            (_load, (descriptors, buffers, barriers, pointers, sizes, SEGMENT_BLOCKS, STAGES)),
        ],
        [4, 1],
        [COMPUTE_REGISTERS, LOAD_REGISTERS],
    )


def supports(device: torch.device, dtype: torch.dtype, head_dim: int, block_size: int) -> bool:
    """Whether this kernel takes such inputs: Hopper, float16 or bfloat16, D 64 or 128, blocks of 128."""
    return is_hopper(device) and dtype in DTYPES and head_dim in KERNEL_HEAD_DIMS and block_size == BLOCK_SIZE


@lru_cache
def _layout(rows: int, head_dim: int, dtype: torch.dtype):
    """Of rows in shared memory. Kept: to make it takes the host longer than to make the descriptor."""
    return gl.NVMMASharedLayout.get_default_for([1, 1, rows, head_dim], gl.float16 if dtype == torch.float16 else gl.bfloat16)


@lru_cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _descriptor(x: Tensor, rows: int) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(x, [1, 1, rows, x.shape[3]], _layout(rows, x.shape[3], x.dtype))


def block_sparse_attention_hopper(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: BlockLists,
    *,
    block_size: int = BLOCK_SIZE,
    segment_size: int | None = None,
    key_positions: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """As `block_sparse_attention`, without its checks, for inputs that `supports` accepts."""
    B, H, N, D = q.shape
    Hk = k.shape[1]
    T, L = blocks.indices.shape[2:]
    segment_size = block_size if segment_size is None else segment_size
    scale = 1 / math.sqrt(D) if scale is None else scale
    tiles = B * H * T
    programs = min(tiles, _multiprocessors(q.device))

    o = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    _forward_kernel[(programs,)](
        _descriptor(for_descriptor(q), block_size),
        _descriptor(for_descriptor(k), block_size),
        _descriptor(for_descriptor(v), block_size),
        _descriptor(o, block_size // 2),
        blocks.counts.contiguous(),
        blocks.indices.contiguous(),
        blocks.counts if key_positions is None else key_positions.contiguous(),
        torch.zeros(1, dtype=torch.int32, device=q.device),
        Hk, H // Hk, N, T, L, segment_size, tiles,
        scale * math.log2(math.e),
        SEGMENT_BLOCKS=triton.next_power_of_2(segment_size // block_size),
        HAS_POSITIONS=key_positions is not None,
        STAGES=STAGES,
        COMPUTE_REGISTERS=240,
        LOAD_REGISTERS=24,
        num_warps=4,
        maxnreg=168,  # times 12 warps: the whole register file, shared out anew when the tasks part
    )  # fmt: skip
    return o
