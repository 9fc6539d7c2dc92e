"""Block maxima of the attention map, Triton kernel: flash attention that notes the row maxima of every key block."""

# Triton turns Python numbers into constexpr at the launch, and adds the launch's own options.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from common.kernels.checks import is_hopper
from common.kernels.descriptors import for_descriptor

BLOCK_SIZES = (16, 32, 64, 128)
# Columns of row maxima that are turned into probabilities at once: a whole number of key blocks in every configuration.
CHUNK = 64
# Programs on the CPU, in Triton's interpreter: few, so that each takes several tiles as on a GPU.
INTERPRETED_PROGRAMS = 3


@dataclass(frozen=True)
class Configuration:
    """How a program is laid out: tiles of block_m queries by block_n keys."""

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
        tile = 32 if head_dim == 64 else 16
        return Configuration(tile, tile, num_warps=8, num_stages=2 if head_dim == 64 else 1)
    if device_class == "hopper" and head_dim == 128 and block_size == 128:
        return Configuration(128, 128, num_warps=8, num_stages=2)
    return Configuration(128, 64, num_warps=8, num_stages=3 if device_class == "hopper" else 2)


def device_class(device: torch.device) -> str:
    """Devices that share configurations: "hopper" (compute capability 9.0) or "other" (99 KiB of shared memory)."""
    return "hopper" if is_hopper(device) else "other"


def resident_programs(device: torch.device, *, with_values: bool) -> int:
    """How many programs are started: as a rule a multiprocessor's registers hold one that sums values, two that do not."""
    if device.type != "cuda":
        return INTERPRETED_PROGRAMS
    return torch.cuda.get_device_properties(device).multi_processor_count * (1 if with_values else 2)


# Every configuration that `configuration` can return, by what it is for. The tests run each of them.
CONFIGURATIONS: dict[tuple[str, torch.dtype, int, int], Configuration] = {
    (kind, dtype, head_dim, block_size): configuration(kind, dtype, head_dim, block_size)
    for kind in ("hopper", "other")
    for dtype in (torch.float16, torch.bfloat16, torch.float32)
    for head_dim in (64, 128)
    for block_size in BLOCK_SIZES
}


@triton.jit
def _walk(
    q, acc, total, m,  # of BLOCK_M queries: themselves, sum of p v, sum of p, maximum of the logits
    k_desc, v_desc, row_maxima, b, key_head, m0, first, last, N, scale_log2,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, COLUMNS: tl.constexpr,
    CAUSAL: tl.constexpr, MASKED: tl.constexpr, HAS_V: tl.constexpr, INPUT_PRECISION: tl.constexpr,
):  # fmt: skip
    """The online softmax over key tiles first .. last - 1. Row maxima go to row_maxima[column, row], COLUMNS to a tile."""
    rows = tl.arange(0, BLOCK_M)
    for t in tl.range(first, last):
        n0 = t * BLOCK_N
        k = k_desc.load([b, key_head, n0, 0]).reshape([BLOCK_N, D])
        s = tl.dot(q, k.T, input_precision=INPUT_PRECISION)
        if MASKED:
            places = n0 + tl.arange(0, BLOCK_N)
            if CAUSAL:
                s = tl.where(places[None, :] <= (m0 + rows)[:, None], s, float("-inf"))
            else:
                s = tl.where((places < N)[None, :], s, float("-inf"))
        if COLUMNS == 1:
            r = tl.max(s, 1) * scale_log2
            tl.store(row_maxima + t * BLOCK_M + rows, r)
            m_new = tl.maximum(m, r)
        else:
            r = tl.max(s.reshape([BLOCK_M, COLUMNS, BLOCK_N // COLUMNS]), 2) * scale_log2
            columns = t * COLUMNS + tl.arange(0, COLUMNS)
            tl.store(row_maxima + columns[None, :] * BLOCK_M + rows[:, None], r)
            m_new = tl.maximum(m, tl.max(r, 1))
        p = tl.exp2(s * scale_log2 - m_new[:, None])
        alpha = tl.exp2(m - m_new)
        total = total * alpha + tl.sum(p, 1)
        m = m_new
        if HAS_V:
            acc = acc * alpha[:, None]
            v = v_desc.load([b, key_head, n0, 0]).reshape([BLOCK_N, D])
            acc = tl.dot(p.to(v.dtype), v, acc, input_precision=INPUT_PRECISION)
    return acc, total, m


@triton.jit(do_not_specialize=["Hk", "GROUP", "N", "T", "M_TILES", "TILES", "COLUMN_COUNT"])  # one compilation for all lengths
def _forward_kernel(
    q_desc, k_desc, v_desc, o_desc,  # [B, H or Hk, N, D]; reads past N give zeros, writes past N are dropped
    row_maxima,  # float32 [programs, COLUMN_COUNT, BLOCK_M]: logits in base 2, of a program's tile of queries
    maxima,  # float32 [B, H, ceil(N / ROWS), T], zeros
    Hk, GROUP, N, T, M_TILES, TILES, COLUMN_COUNT,
    scale_log2,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_SIZE: tl.constexpr, CHUNK: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_V: tl.constexpr, INPUT_PRECISION: tl.constexpr,
):  # fmt: skip
    ROWS: tl.constexpr = BLOCK_SIZE if BLOCK_SIZE < BLOCK_M else BLOCK_M  # queries of a block within a tile
    KEYS: tl.constexpr = BLOCK_SIZE if BLOCK_SIZE < BLOCK_N else BLOCK_N  # keys of a column
    COLUMNS: tl.constexpr = BLOCK_N // KEYS
    BLOCK_COLUMNS: tl.constexpr = BLOCK_SIZE // KEYS
    BLOCK_ROWS: tl.constexpr = BLOCK_M // ROWS
    program, programs = tl.program_id(0), tl.num_programs(0)
    own_maxima = row_maxima + program.to(tl.int64) * COLUMN_COUNT * BLOCK_M
    rows = tl.arange(0, BLOCK_M)

    # A program takes one tile of every round. Every other round runs backwards, so that programs get equal shares of tiles that
    # become shorter; which of them computes a tile does not change its numbers.
    whole_rounds = TILES // programs
    in_last_round = programs - 1 - program if whole_rounds % 2 else program
    rounds = whole_rounds + (in_last_round < TILES % programs).to(tl.int32)
    for turn in tl.range(0, rounds):
        tile = turn * programs + tl.where(turn % 2 == 0, program, programs - 1 - program)
        # The query heads of a group run side by side and share K and V in the L2 cache; long rows come first.
        m_tile = M_TILES - 1 - (tile // GROUP) % M_TILES
        key_head = tile // (GROUP * M_TILES) % Hk
        b = tile // (GROUP * M_TILES) // Hk
        h = key_head * GROUP + tile % GROUP
        m0 = m_tile * BLOCK_M

        q = q_desc.load([b, h, m0, 0]).reshape([BLOCK_M, D])
        acc = tl.zeros([BLOCK_M, D], tl.float32)
        total = tl.zeros([BLOCK_M], tl.float32)
        m = tl.full([BLOCK_M], -3.0e38, tl.float32)  # finite: a row that has seen nothing yet must not give inf - inf
        key_tiles = tl.cdiv(N, BLOCK_N)
        if CAUSAL:
            unmasked = m0 // BLOCK_N
            key_tiles = tl.minimum(key_tiles, tl.cdiv(m0 + BLOCK_M, BLOCK_N))
        else:
            unmasked = N // BLOCK_N
        acc, total, m = _walk(
            q, acc, total, m, k_desc, v_desc, own_maxima, b, key_head, m0, 0, unmasked, N, scale_log2,
            D, BLOCK_M, BLOCK_N, COLUMNS, CAUSAL, False, HAS_V, INPUT_PRECISION,
        )  # fmt: skip
        acc, total, m = _walk(
            q, acc, total, m, k_desc, v_desc, own_maxima, b, key_head, m0, unmasked, key_tiles, N, scale_log2,
            D, BLOCK_M, BLOCK_N, COLUMNS, CAUSAL, True, HAS_V, INPUT_PRECISION,
        )  # fmt: skip
        if HAS_V:
            o = acc / total[:, None]
            o_desc.store([b, h, m0, 0], o.to(o_desc.dtype).reshape([1, 1, BLOCK_M, D]))

        # The maxima of the probabilities: a = 2^(r - m) / total, largest over the rows and columns of a block.
        tl.debug_barrier()  # other warps wrote what this one reads
        last_key = m0 + rows if CAUSAL else tl.full([BLOCK_M], 0, tl.int32) + (N - 1)
        blocks_of_tile = m0 // ROWS + tl.arange(0, BLOCK_ROWS)
        block_row = (b * Hk * GROUP + h).to(tl.int64) * tl.cdiv(N, ROWS) + blocks_of_tile
        for c0 in tl.range(0, key_tiles * COLUMNS, CHUNK):
            columns = c0 + tl.arange(0, CHUNK)
            written = columns < key_tiles * COLUMNS
            at = own_maxima + columns[:, None] * BLOCK_M + rows[None, :]
            r = tl.load(at, mask=written[:, None], other=float("-inf"))
            seen = (columns * KEYS)[:, None] <= last_key[None, :]
            seen = seen & written[:, None] & (m0 + rows < N)[None, :]
            a = tl.where(seen, tl.exp2(r - m[None, :]) / total[None, :], 0.0)
            # Bits of numbers that are not negative are ordered as the numbers are, with NaN above all.
            bits = tl.where(a == a, a.to(tl.int32, bitcast=True), 0x7FC00000)
            bits = tl.max(bits.reshape([CHUNK, BLOCK_ROWS, ROWS]), 2)
            bits = tl.max(bits.reshape([CHUNK // BLOCK_COLUMNS, BLOCK_COLUMNS, BLOCK_ROWS]), 1)
            key_blocks = c0 // BLOCK_COLUMNS + tl.arange(0, CHUNK // BLOCK_COLUMNS)
            inside = (key_blocks < T)[:, None] & (blocks_of_tile < tl.cdiv(N, ROWS))[None, :]
            tl.store(maxima + block_row[None, :] * T + key_blocks[:, None], bits.to(tl.float32, bitcast=True), mask=inside)
        tl.debug_barrier()  # the next tile overwrites what other warps may still read


def attention_block_max_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor | None = None,
    *,
    block_size: int = 64,
    causal: bool = True,
    scale: float | None = None,
    layout: Configuration | None = None,
    programs: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """As `attention_block_max`, without its checks and with layout and number of programs to choose: for tests and benchmarks.

    o is None without v.
    """
    B, H, N, D = q.shape
    Hk, T = k.shape[1], -(-N // block_size)
    scale = 1 / math.sqrt(D) if scale is None else scale
    c = layout or configuration(device_class(q.device), q.dtype, D, block_size)
    rows, keys = min(block_size, c.block_m), min(block_size, c.block_n)
    m_tiles = -(-N // c.block_m)
    tiles = B * H * m_tiles
    programs = min(programs or resident_programs(q.device, with_values=v is not None), tiles)

    columns = -(-N // c.block_n) * (c.block_n // keys)
    row_maxima = torch.empty(programs, columns, c.block_m, dtype=torch.float32, device=q.device)
    maxima = torch.zeros(B, H, -(-N // rows), T, dtype=torch.float32, device=q.device)
    o = None if v is None else torch.empty(q.shape, dtype=q.dtype, device=q.device)
    tile_m, tile_n = [1, 1, c.block_m, D], [1, 1, c.block_n, D]
    queries = TensorDescriptor.from_tensor(for_descriptor(q), tile_m)
    keys_descriptor = TensorDescriptor.from_tensor(for_descriptor(k), tile_n)
    _forward_kernel[(programs,)](
        queries,
        keys_descriptor,
        keys_descriptor if v is None else TensorDescriptor.from_tensor(for_descriptor(v), tile_n),
        queries if o is None else TensorDescriptor.from_tensor(o, tile_m),
        row_maxima,
        maxima,
        Hk, H // Hk, N, T, m_tiles, tiles, columns,
        scale * math.log2(math.e),
        D=D,
        BLOCK_M=c.block_m,
        BLOCK_N=c.block_n,
        BLOCK_SIZE=block_size,
        CHUNK=CHUNK,
        CAUSAL=causal,
        HAS_V=v is not None,
        INPUT_PRECISION="ieee" if q.dtype == torch.float32 else None,
        num_warps=c.num_warps,
        num_stages=c.num_stages,
    )  # fmt: skip
    if rows < block_size:  # a query block lies on several tiles
        maxima = torch.stack([x.amax(2) for x in maxima.split(block_size // rows, dim=2)], dim=2)
    return maxima, o
