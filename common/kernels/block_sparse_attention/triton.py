"""Block-sparse attention, Triton kernel: one program per tile of queries walks its list of key blocks."""

# Triton turns Python numbers into constexpr at the launch, and adds the launch's own options.
# pyright: reportArgumentType=false, reportCallIssue=false

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from common.kernels.block_sparse_attention.block_lists import BlockLists
from common.kernels.checks import is_hopper
from common.kernels.descriptors import for_descriptor

BLOCK_SIZES = (16, 32, 64, 128)


@dataclass(frozen=True)
class Configuration:
    """How a program is laid out: BLOCK_M queries by BLOCK_N keys, both divisors of the block size."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


def configuration(device_class: str, dtype: torch.dtype, head_dim: int, block_size: int) -> Configuration:
    """The frozen configuration: nothing is tuned at run time, so that two runs give the same bits.

    Args:
        device_class: "hopper" or "other", see `device_class`.
        dtype: of the queries.
        head_dim: D.
        block_size: tokens per block.
    """
    if dtype == torch.float32:  # exact float32 products run on the ordinary cores, in registers: small tiles
        tile = min(block_size, 32 if head_dim == 64 else 16)
        return Configuration(tile, tile, num_warps=8, num_stages=2 if head_dim == 64 else 1)
    if block_size < 64:
        return Configuration(block_size, block_size, num_warps=2, num_stages=3)
    if block_size == 64:
        return Configuration(64, 64, num_warps=4, num_stages=3 if device_class == "hopper" else 2)
    if device_class == "hopper":
        return Configuration(128, 128 if head_dim == 128 else 64, num_warps=8, num_stages=2)
    return Configuration(128, 64, num_warps=8, num_stages=2)


def device_class(device: torch.device) -> str:
    """Devices that share configurations: "hopper" (compute capability 9.0, measured) or "other" (99 KiB of shared memory)."""
    return "hopper" if is_hopper(device) else "other"


# Every configuration that `configuration` can return, by what it is for. The tests run each of them.
CONFIGURATIONS: dict[tuple[str, torch.dtype, int, int], Configuration] = {
    (kind, dtype, head_dim, block_size): configuration(kind, dtype, head_dim, block_size)
    for kind in ("hopper", "other")
    for dtype in (torch.float16, torch.bfloat16, torch.float32)
    for head_dim in (64, 128)
    for block_size in BLOCK_SIZES
}


@triton.jit(do_not_specialize=["Hk", "GROUP", "N", "T", "L", "SEGMENT_SIZE"])  # one compilation for all lengths
def _forward_kernel(
    q_desc, k_desc, v_desc, o_desc,  # [B, H or Hk, N, D]; reads past N give zeros, writes past N are dropped
    counts, indices,  # [B, H, T], [B, H, T, L]
    key_positions,  # [B, Hk, N]
    Hk, GROUP, N, T, L, SEGMENT_SIZE,
    scale_log2,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, SEGMENT_BLOCKS: tl.constexpr,  # blocks per segment, rounded up to a power of two
    HAS_POSITIONS: tl.constexpr, INPUT_PRECISION: tl.constexpr,
):  # fmt: skip
    # The query heads of a group run side by side and share K and V in the L2 cache; long rows come first, so that the last
    # programs to finish are short.
    tiles: tl.constexpr = BLOCK_SIZE // BLOCK_M
    rows = T * tiles
    program = tl.program_id(0)
    row = rows - 1 - (program // GROUP) % rows
    key_head = program // (GROUP * rows) % Hk
    b = program // (GROUP * rows) // Hk
    h = key_head * GROUP + program % GROUP
    query_block = row // tiles
    list_row = (b * Hk * GROUP + h).to(tl.int64) * T + query_block

    # The last entries of the ascending list are the own segment's.
    count = tl.load(counts + list_row)
    block_list = indices + list_row * L
    first_own = query_block * BLOCK_SIZE // SEGMENT_SIZE * (SEGMENT_SIZE // BLOCK_SIZE)
    last = count - 1 - tl.arange(0, SEGMENT_BLOCKS)
    own = tl.sum((tl.load(block_list + last, mask=last >= 0, other=-1) >= first_own).to(tl.int32))

    m0 = row * BLOCK_M
    q = q_desc.load([b, h, m0, 0]).reshape([BLOCK_M, D])
    query_positions = m0 + tl.arange(0, BLOCK_M)
    position_row = key_positions + (b * Hk + key_head).to(tl.int64) * N

    acc = tl.zeros([BLOCK_M, D], tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    m = tl.full([BLOCK_M], -3.0e38, tl.float32)  # finite: a row that has seen nothing yet must not give inf - inf

    # Earlier segments: whole blocks, no mask.
    n_tiles: tl.constexpr = BLOCK_SIZE // BLOCK_N
    block = tl.load(block_list)
    for t in tl.range(0, (count - own) * n_tiles):
        n0 = block * BLOCK_SIZE + t % n_tiles * BLOCK_N
        block = tl.load(block_list + tl.minimum((t + 1) // n_tiles, L - 1))  # one step ahead of its use
        k = k_desc.load([b, key_head, n0, 0]).reshape([BLOCK_N, D])
        s = tl.dot(q, k.T, input_precision=INPUT_PRECISION)
        m_new = tl.maximum(m, tl.max(s, 1) * scale_log2)
        p = tl.exp2(s * scale_log2 - m_new[:, None])
        alpha = tl.exp2(m - m_new)
        total = total * alpha + tl.sum(p, 1)
        m = m_new
        acc = acc * alpha[:, None]
        v = v_desc.load([b, key_head, n0, 0]).reshape([BLOCK_N, D])
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision=INPUT_PRECISION)

    # Own segment: a key is visible up to the query's position; places past N hold no key.
    for t in tl.range((count - own) * n_tiles, count * n_tiles):
        n0 = tl.load(block_list + t // n_tiles) * BLOCK_SIZE + t % n_tiles * BLOCK_N
        places = n0 + tl.arange(0, BLOCK_N)
        positions = tl.load(position_row + places, mask=places < N, other=2147483647) if HAS_POSITIONS else places
        k = k_desc.load([b, key_head, n0, 0]).reshape([BLOCK_N, D])
        s = tl.dot(q, k.T, input_precision=INPUT_PRECISION)
        s = tl.where(positions[None, :] <= query_positions[:, None], s * scale_log2, float("-inf"))
        m_new = tl.maximum(m, tl.max(s, 1))
        p = tl.exp2(s - m_new[:, None])
        alpha = tl.exp2(m - m_new)
        total = total * alpha + tl.sum(p, 1)
        m = m_new
        acc = acc * alpha[:, None]
        v = v_desc.load([b, key_head, n0, 0]).reshape([BLOCK_N, D])
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision=INPUT_PRECISION)

    o = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    o_desc.store([b, h, m0, 0], o.to(o_desc.dtype).reshape([1, 1, BLOCK_M, D]))


def block_sparse_attention_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: BlockLists,
    *,
    block_size: int = 128,
    segment_size: int | None = None,
    key_positions: Tensor | None = None,
    scale: float | None = None,
    layout: Configuration | None = None,
) -> Tensor:
    """As `block_sparse_attention`, without its checks and with a configuration to choose: for tests and benchmarks."""
    B, H, N, D = q.shape
    Hk = k.shape[1]
    T, L = blocks.indices.shape[2:]
    segment_size = block_size if segment_size is None else segment_size
    scale = 1 / math.sqrt(D) if scale is None else scale
    c = layout or configuration(device_class(q.device), q.dtype, D, block_size)

    o = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    tile_m, tile_n = [1, 1, c.block_m, D], [1, 1, c.block_n, D]
    _forward_kernel[(B * H * T * (block_size // c.block_m),)](
        TensorDescriptor.from_tensor(for_descriptor(q), tile_m),
        TensorDescriptor.from_tensor(for_descriptor(k), tile_n),
        TensorDescriptor.from_tensor(for_descriptor(v), tile_n),
        TensorDescriptor.from_tensor(o, tile_m),
        blocks.counts.contiguous(),
        blocks.indices.contiguous(),
        blocks.counts if key_positions is None else key_positions.contiguous(),
        Hk, H // Hk, N, T, L, segment_size,
        scale * math.log2(math.e),
        D=D,
        BLOCK_M=c.block_m,
        BLOCK_N=c.block_n,
        BLOCK_SIZE=block_size,
        SEGMENT_BLOCKS=triton.next_power_of_2(segment_size // block_size),
        HAS_POSITIONS=key_positions is not None,
        INPUT_PRECISION="ieee" if q.dtype == torch.float32 else None,
        num_warps=c.num_warps,
        num_stages=c.num_stages,
    )  # fmt: skip
    return o
