"""HiP's mask search, Triton kernel: all rounds of a query block in one program, and a threshold in place of a sort."""

# Triton turns Python numbers into constexpr at the launch, and adds the launch's own options.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAssignmentType=false, reportGeneralTypeIssues=false

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from common.kernels.block_sparse_attention.block_lists import BlockLists

LARGEST_BEAM = 1024
MOST_SAMPLED_QUERIES = 128
MOST_SAMPLED_KEYS = 16
# Programs on the CPU, in Triton's interpreter: few, so that each takes several query blocks as on a GPU.
INTERPRETED_PROGRAMS = 3
REPRESENTATIVE_NUMBERS = {"first": 0, "center": 1, "last": 2}


@dataclass(frozen=True)
class Configuration:
    """How a program is laid out.

    Attributes:
        keys: rows of K that are scored at once.
        num_warps: warps of a program.
        num_stages: tiles of K on their way.
        programs: resident programs a multiprocessor.
        registers: at most so many a thread, so that the programs fit; None leaves it to the compiler.
    """

    keys: int
    num_warps: int
    num_stages: int
    programs: int
    registers: int | None = None


def configuration(dtype: torch.dtype, nodes: int) -> Configuration:
    """The frozen configuration: nothing is tuned at run time, so that two runs give the same lists.

    Args:
        dtype: of queries and keys.
        nodes: of the beam.
    """
    wide = nodes > 512  # the order keys of all halves are in registers
    if dtype == torch.float32:  # exact float32 products run on the ordinary cores, in registers: small tiles
        return Configuration(32, num_warps=8 if wide else 4, num_stages=1, programs=2)
    if wide:
        return Configuration(64, num_warps=8, num_stages=3, programs=2, registers=128)
    return Configuration(64, num_warps=4, num_stages=3, programs=3, registers=168)


@triton.jit
def _children(child, codes, longest, NODES):
    """First block and length of the halves `child` of the kept chunks: chunk c has the halves 2 c and 2 c + 1."""
    code = tl.load(codes + child // 2, mask=child < 2 * NODES, other=0)
    first = code >> 1
    length = longest - 1 + (code & 1)
    left = (length + 1) // 2
    return tl.where(child % 2 == 0, first, first + left), tl.where(child % 2 == 0, left, length - left)


@triton.jit(do_not_specialize=["H", "GROUP", "N", "T", "ROWS", "TASKS", "NODES", "WINDOW", "SINK"])
def _search_kernel(
    q_ptr, k_ptr, indices, order_keys,  # [B, H, N, D], [B, Hk, T, D], int32 [B, H, ROWS, NODES], int32 [programs, WIDTH]
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn,
    H, GROUP, N, T, ROWS, TASKS, NODES, WINDOW, SINK,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, STRIDE_Q: tl.constexpr, STRIDE_K: tl.constexpr,
    REPRESENTATIVE: tl.constexpr,  # 0 first, 1 center, 2 last
    QUERIES: tl.constexpr, SAMPLED: tl.constexpr,  # sampled queries and keys of a block, each up to a power of two
    KEYS: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, INPUT_PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Lists of query blocks, one after the other.

    Lengths of the chunks of a round differ by at most one: chunks of length L and L - 1 have halves of length ceil(L / 2) and
    ceil(L / 2) - 1. So a chunk is its first block and one bit, kept in the list itself while the search runs.
    """
    SMALLEST: tl.constexpr = -0x80000000
    HALVES: tl.constexpr = KEYS // SAMPLED  # of a tile
    QUERIES_OF_BLOCK: tl.constexpr = BLOCK_Q // STRIDE_Q
    KEYS_OF_BLOCK: tl.constexpr = (BLOCK_K + STRIDE_K - 1) // STRIDE_K
    own_keys = order_keys + tl.program_id(0).to(tl.int64) * WIDTH
    d = tl.arange(0, D)
    nodes = tl.arange(0, WIDTH // 2)
    halves = tl.arange(0, WIDTH)
    for task in tl.range(tl.program_id(0), TASKS, tl.num_programs(0), num_stages=1):
        # The query heads of a group run side by side and share K in the L2 cache.
        h = task // (GROUP * ROWS) % (H // GROUP) * GROUP + task % GROUP
        row = task // GROUP % ROWS
        b = (task // (H * ROWS)).to(tl.int64)
        codes = indices + ((b * H + h) * ROWS + row) * NODES
        M = tl.maximum(T - N + row * BLOCK_Q - WINDOW - SINK, 0) // BLOCK_K
        if M <= NODES:
            tl.store(codes + nodes, tl.where(nodes < M, nodes, 0), mask=nodes < NODES)
        else:
            sample = tl.minimum(tl.arange(0, QUERIES), QUERIES_OF_BLOCK - 1)  # a repeated query changes no maximum
            place = tl.minimum(row * BLOCK_Q + sample * STRIDE_Q + STRIDE_Q - 1, N - 1)
            q = tl.load(q_ptr + b * stride_qb + h * stride_qh + place[:, None].to(tl.int64) * stride_qn + d[None, :])
            k_head = k_ptr + b * stride_kb + (h // GROUP) * stride_kh
            longest = tl.cdiv(M, NODES)
            begin = (nodes.to(tl.int64) * M // NODES).to(tl.int32)
            end = ((nodes + 1).to(tl.int64) * M // NODES).to(tl.int32)
            tl.store(codes + nodes, begin * 2 + (end - begin == longest).to(tl.int32), mask=nodes < NODES)
            tl.debug_barrier()  # other warps read what this one wrote; so at every barrier here
            while longest > 1:
                for start in tl.range(0, 2 * NODES, HALVES, num_stages=STAGES):
                    offset = tl.arange(0, KEYS)
                    first, length = _children(start + offset // SAMPLED, codes, longest, NODES)
                    if REPRESENTATIVE == 0:
                        block = first
                    elif REPRESENTATIVE == 1:
                        block = first + tl.maximum(length - 1, 0) // 2
                    else:
                        block = tl.maximum(first + length - 1, 0)
                    token = SINK + block * BLOCK_K + tl.minimum(offset % SAMPLED, KEYS_OF_BLOCK - 1) * STRIDE_K
                    token = tl.minimum(token, T - 1)
                    k = tl.load(k_head + token[:, None].to(tl.int64) * stride_kn + d[None, :])
                    s = tl.max(tl.dot(k, q.T, input_precision=INPUT_PRECISION), 1)
                    # Integers in the order of the floats; an empty half comes after everything.
                    bits = s.to(tl.int32, bitcast=True)
                    key = tl.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)
                    key = tl.where(length > 0, tl.maximum(key, SMALLEST + 1), SMALLEST)
                    key = tl.max(key.reshape([HALVES, SAMPLED]), 1)
                    half = start + tl.arange(0, HALVES)
                    tl.store(own_keys + half, key, mask=half < 2 * NODES)
                tl.debug_barrier()
                order = tl.load(own_keys + halves, mask=halves < 2 * NODES, other=SMALLEST)
                half_first, half_length = _children(halves, codes, longest, NODES)
                # The NODES-th largest key, from its highest bit to its lowest.
                limit = tl.where(tl.sum((order >= 0).to(tl.int32), 0) >= NODES, 0, SMALLEST)
                for bit in tl.static_range(30, -1, -1):
                    raised = limit + (1 << bit)
                    limit = tl.where(tl.sum((order >= raised).to(tl.int32), 0) >= NODES, raised, limit)
                # Numbers of the keys above the limit (low bits) and at it (high bits) up to each, in one scan.
                above, at = order > limit, order == limit
                both = tl.cumsum(above.to(tl.int32) + (at.to(tl.int32) << 16), 0)
                free = NODES - tl.sum(above.to(tl.int32), 0)
                at_before = both >> 16
                kept = above | (at & (at_before <= free))
                longest = (longest + 1) // 2
                code = half_first * 2 + (half_length == longest).to(tl.int32)
                tl.debug_barrier()
                tl.store(codes + (both & 0xFFFF) + tl.minimum(at_before, free) - 1, code, mask=kept)
                tl.debug_barrier()
            found = tl.load(codes + nodes, mask=nodes < NODES, other=0)
            tl.store(codes + nodes, found >> 1, mask=nodes < NODES)


def hierarchical_search_triton(
    q: Tensor,
    k: Tensor,
    *,
    nodes: int,
    block_q: int,
    block_k: int,
    window: int,
    sink: int,
    stride_q: int,
    stride_k: int,
    representative: str,
    layout: Configuration | None = None,
    programs: int | None = None,
) -> BlockLists:
    """As `hierarchical_search`, without its checks and with layout and number of programs to choose: for tests and sweeps."""
    B, H, N, D = q.shape
    T = k.shape[2]
    q, k = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k))
    c = layout or configuration(q.dtype, nodes)
    rows = triton.cdiv(N, block_q)
    if programs is None:
        programs = INTERPRETED_PROGRAMS
        if q.device.type == "cuda":
            programs = c.programs * torch.cuda.get_device_properties(q.device).multi_processor_count
    programs = min(programs, B * H * rows)
    width = max(32, triton.next_power_of_2(2 * nodes))
    indices = torch.empty(B, H, rows, nodes, dtype=torch.int32, device=q.device)
    order_keys = torch.empty(programs, width, dtype=torch.int32, device=q.device)
    _search_kernel[(programs,)](
        q, k, indices, order_keys, *q.stride()[:3], *k.stride()[:3],
        H, H // k.shape[1], N, T, rows, B * H * rows, nodes, window, sink,
        BLOCK_Q=block_q, BLOCK_K=block_k, STRIDE_Q=stride_q, STRIDE_K=stride_k,
        REPRESENTATIVE=REPRESENTATIVE_NUMBERS[representative],
        QUERIES=max(16, triton.next_power_of_2(block_q // stride_q)),
        SAMPLED=triton.next_power_of_2(triton.cdiv(block_k, stride_k)),
        KEYS=c.keys, WIDTH=width, D=D, INPUT_PRECISION="ieee" if q.dtype == torch.float32 else None, STAGES=c.num_stages,
        num_warps=c.num_warps, **({} if c.registers is None else {"maxnreg": c.registers}),
    )  # fmt: skip
    first_query = torch.arange(T - N, T, block_q, dtype=torch.int32, device=q.device)
    counts = ((first_query - window - sink).clamp_min_(0) // block_k).clamp_max_(nodes)
    return BlockLists(counts.expand(B, H, rows).contiguous(), indices)
