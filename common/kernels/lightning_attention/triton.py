"""Linear attention with per-head decay, Triton kernels: states of long blocks, a scan over them, outputs inside the blocks.

Every gradient is the same operation on other tensors, forwards or backwards in time: see `triton_backward.py`.
"""

# Triton turns Python numbers into constexpr at the launch, and adds the launch's own options.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from common.kernels.checks import is_hopper
from common.kernels.descriptors import for_descriptor

SCAN_ELEMENTS, SCAN_WARPS = 512, 4  # elements of a D x E state in one program of the scan: 16 bytes a thread


@dataclass(frozen=True)
class Walk:
    """How a kernel walks through a block: tokens per step, warps of a program, loads in flight."""

    chunk: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Configuration:
    """How the work is cut: one state is kept per `block` tokens, and programs walk through a block in chunks.

    Attributes:
        block: tokens per stored state, a multiple of the chunks.
        states: the kernel that makes the blocks' states.
        outputs: the kernel that makes the outputs, and the gradient of the queries.
        columns: most output columns that one of its programs makes; for fewer it takes proportionally fewer warps.
        gradients: the kernel that makes the gradients of keys and values together; None makes each with the kernel of the
            outputs, for which a program needs only `columns` columns of a state.
    """

    block: int
    states: Walk
    outputs: Walk
    columns: int
    gradients: Walk | None


def device_class(device: torch.device) -> str:
    """Devices that share configurations: "hopper" (compute capability 9.0, measured) or "other" (99 KiB of shared memory)."""
    return "hopper" if is_hopper(device) else "other"


def configuration(device_class: str, dtype: torch.dtype) -> Configuration:
    """The frozen configuration: nothing is tuned at run time, so that two runs give the same bits."""
    if dtype == torch.float32:  # exact float32 products run on the ordinary cores, in registers: small tiles
        return Configuration(512, states=Walk(16, 8, 1), outputs=Walk(16, 8, 1), columns=32, gradients=None)
    if device_class == "hopper":
        return Configuration(2048, states=Walk(64, 4, 3), outputs=Walk(64, 4, 2), columns=64, gradients=Walk(64, 8, 2))
    return Configuration(512, states=Walk(32, 8, 2), outputs=Walk(32, 8, 2), columns=64, gradients=None)


# Every configuration that `configuration` can return, by what it is for. The tests run each of them.
CONFIGURATIONS: dict[tuple[str, torch.dtype], Configuration] = {
    (kind, dtype): configuration(kind, dtype)
    for kind in ("hopper", "other")
    for dtype in (torch.float16, torch.bfloat16, torch.float32)
}


@dataclass(frozen=True)
class Blocks:
    """Where the blocks lie: B sequences of N tokens, or sequences of several lengths packed one after the other.

    Attributes:
        size: tokens per block; the last block of a sequence may be shorter.
        sequences: how many sequences.
        count: how many blocks there are, or at most are when lengths differ.
        length: N, of the tensors.
        boundaries: int32 [sequences + 1], first token of every sequence and the end of the last; None when all have length N.
        first: int32 [sequences + 1], first block of every sequence and the number of blocks.
        owner: int32 [count], the sequence of every block; `sequences` for places that hold none.
    """

    size: int
    sequences: int
    count: int
    length: int
    boundaries: Tensor | None
    first: Tensor | None
    owner: Tensor | None

    @classmethod
    def of(cls, size: int, batch: int, length: int, boundaries: Tensor | None) -> "Blocks":
        """Cut the sequences; nothing waits for the device."""
        if boundaries is None:
            return cls(size, batch, batch * triton.cdiv(length, size), length, None, None, None)
        sequences = len(boundaries) - 1
        count = length // size + sequences  # no sequence has more than one incomplete block
        blocks = (boundaries.diff() + size - 1) // size
        first = torch.zeros_like(boundaries)
        first[1:] = blocks.cumsum(0)
        places = torch.arange(count, device=boundaries.device, dtype=torch.int32)
        owner = torch.searchsorted(first[1:], places, right=True, out_int32=True)
        return cls(size, sequences, count, length, boundaries, first, owner)


@triton.jit
def locate(p, boundaries, first, owner, N, S, BLOCK: tl.constexpr, PACKED: tl.constexpr):
    """Block p: its batch entry, tokens [start, stop), whether it opens and closes its sequence; stop <= start: no block."""
    if PACKED:
        sequence = tl.load(owner + p)
        real = sequence < S
        sequence = tl.minimum(sequence, S - 1)
        begin = tl.load(boundaries + sequence)
        end = tl.load(boundaries + sequence + 1)
        start = begin + (p - tl.load(first + sequence)) * BLOCK
        stop = tl.where(real, tl.minimum(start + BLOCK, end), start)
        return 0, start, stop, start == begin, stop == end
    T = tl.cdiv(N, BLOCK)
    start = p % T * BLOCK
    stop = tl.minimum(start + BLOCK, N)
    return p // T, start, stop, start == 0, stop == N


@triton.jit(do_not_specialize=["N", "S", "H"])  # one compilation for all lengths
def _state_kernel(
    k_desc, v_desc,  # [B, H, N, D], [B, H, N, E]; reads outside give zeros
    states,  # float32 [blocks, H, D, E]
    slopes,  # float32 [H]
    boundaries, first, owner, N, S, H,
    D: tl.constexpr, E: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr,
    REVERSE: tl.constexpr, NEED_ALL: tl.constexpr, PACKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What a block alone adds to the state at its end, or when REVERSE to the state before it."""
    tiles: tl.constexpr = E // TILE
    e0 = tl.program_id(0) % tiles * TILE
    h = tl.program_id(0) // tiles % H
    p = tl.program_id(0) // tiles // H
    b, start, stop, opens, closes = locate(p, boundaries, first, owner, N, S, BLOCK, PACKED)
    outermost = opens if REVERSE else closes  # nothing comes after it, but for the state that is handed out
    if stop <= start or (outermost and not NEED_ALL):
        return
    slope = tl.load(slopes + h) * 1.4426950408889634
    length = stop - start
    reach = tl.minimum(127.0 / tl.maximum(slope, 1e-6), 1.0e9).to(tl.int32)  # farther keys' weights underflow to zero
    lo = 0 if REVERSE else tl.maximum(length - 1 - reach, 0) // CHUNK
    hi = tl.cdiv(tl.minimum(length, reach + 1) if REVERSE else length, CHUNK)

    state = tl.zeros([D, TILE], tl.float32)
    for c in tl.range(lo, hi):
        t0 = start + c * CHUNK
        t = t0 + tl.arange(0, CHUNK)
        k = k_desc.load([b, h, t0, 0]).reshape([CHUNK, D])
        v = v_desc.load([b, h, t0, e0]).reshape([CHUNK, TILE])
        steps = t - start if REVERSE else stop - 1 - t
        weight = tl.where(t < stop, tl.exp2(-slope * tl.maximum(steps, 0)), 0.0)
        weighted = (v * weight[:, None]).to(v.dtype)
        state = tl.dot(k.T, weighted, state, input_precision=PRECISION)
    if REVERSE:  # the step from the first token to the state before it, not on each weight: float16 would lose it
        state *= tl.exp2(-slope)
    at = tl.arange(0, D)[:, None] * E + e0 + tl.arange(0, TILE)[None, :]
    tl.store(states + (p.to(tl.int64) * H + h) * (D * E) + at, state)


@triton.jit(do_not_specialize=["N", "S", "H"])
def _scan_kernel(
    states,  # float32 [blocks, H, D, E]: in, what the blocks add; out, the state that enters each
    initial, final,  # float32 [sequences, H, D, E]
    slopes, boundaries, first, N, S, H,
    ELEMENTS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, STAGES: tl.constexpr,
    REVERSE: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_FINAL: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Carry the state over the blocks of one sequence, for a few of its D * E elements."""
    tiles: tl.constexpr = ELEMENTS // TILE
    at = tl.program_id(0) % tiles * TILE + tl.arange(0, TILE)
    h = tl.program_id(0) // tiles % H
    sequence = tl.program_id(0) // tiles // H
    if PACKED:
        length = tl.load(boundaries + sequence + 1) - tl.load(boundaries + sequence)
        p0 = tl.load(first + sequence)
    else:
        length = N
        p0 = sequence * tl.cdiv(N, BLOCK)
    T = tl.cdiv(length, BLOCK)
    slope = tl.load(slopes + h) * 1.4426950408889634
    row = (sequence.to(tl.int64) * H + h) * ELEMENTS
    state = tl.load(initial + row + at) if HAS_INITIAL else tl.zeros([TILE], tl.float32)
    for i in tl.range(0, T, num_stages=STAGES):
        j = T - 1 - i if REVERSE else i
        tokens = tl.minimum(length - j * BLOCK, BLOCK)
        here = states + ((p0 + j).to(tl.int64) * H + h) * ELEMENTS + at
        added = tl.load(here, mask=(i < T - 1) | HAS_FINAL, other=0.0)
        tl.store(here, state)
        state = state * tl.exp2(-slope * tokens) + added
    if HAS_FINAL:
        tl.store(final + row + at, state)


@triton.jit
def narrow(x, dtype: tl.constexpr, axis: tl.constexpr):
    """`x` in `dtype`, and the factors that undo the scaling of its rows (columns when `axis` is 0).

    float16 would overflow and is scaled; the other dtypes hold all of float32's range.
    """
    if dtype == tl.float16:
        factor = tl.maximum(tl.max(tl.abs(x), axis), 1e-30) * (1 / 32768)
    else:
        factor = tl.full([x.shape[1 - axis]], 1.0, tl.float32)
    return (x / tl.expand_dims(factor, axis)).to(dtype), factor


@triton.jit
def add_product(out, a, b, wide: tl.constexpr, dtype: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """`out` + a b, where a (`wide` 0) or b (1) is float32 and narrowed to the other's `dtype`, when SPLIT to twice its bits."""
    x = a if wide == 0 else b
    high, factor = narrow(x, dtype, 1 - wide)
    factor = tl.expand_dims(factor, 1 - wide)
    product = tl.zeros_like(out) if dtype == tl.float16 else out
    product = tl.dot(high if wide == 0 else a, b if wide == 0 else high, product, input_precision=PRECISION)
    if SPLIT:
        low = (x / factor - high).to(dtype)
        product = tl.dot(low if wide == 0 else a, b if wide == 0 else low, product, input_precision=PRECISION)
    return out + product * factor if dtype == tl.float16 else product


@triton.jit(do_not_specialize=["N", "S", "H"])
def _output_kernel(
    q_desc, k_desc, v_desc,  # [B, H, N, D], [B, H, N, D], [B, H, N, E]; reads outside give zeros
    o,  # [B, H, N, E], contiguous
    states,  # float32 [blocks, H, D, E], or [blocks, H, E, D] when TRANSPOSED: the state that enters each block
    slopes,  # float32 [H]
    boundaries, first, owner, N, S, H,
    scale,
    D: tl.constexpr, E: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr,
    TRANSPOSED: tl.constexpr, REVERSE: tl.constexpr, SPLIT: tl.constexpr, PACKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """o_t = scale * q_t (sum over s <= t of decay^(t-s) k_s v_s^T), or over s >= t when REVERSE, for one block of t.

    Everything is transposed, o^T = S^T q^T + v^T P^T: then the state is the left factor of its product, which the tensor cores
    read from registers, where it is summed, and need not pass through shared memory in every chunk.
    """
    tiles: tl.constexpr = E // TILE
    e0 = tl.program_id(0) % tiles * TILE
    h = tl.program_id(0) // tiles % H
    p = tl.program_id(0) // tiles // H
    b, start, stop, _, _ = locate(p, boundaries, first, owner, N, S, BLOCK, PACKED)
    if stop <= start:
        return
    dtype: tl.constexpr = q_desc.dtype
    slope = tl.load(slopes + h) * 1.4426950408889634
    r = tl.arange(0, CHUNK)
    e = e0 + tl.arange(0, TILE)

    # Steps of decay: between a key (row) and a query of the chunk, from the entering state to a query, from a key to the state
    # that leaves. All powers are <= 1; backwards in time the rows count from the other end.
    between = r[:, None] - r[None, :] if REVERSE else r[None, :] - r[:, None]
    mask = tl.where(between >= 0, tl.exp2(-slope * tl.maximum(between, 0)), 0.0) * scale
    to_query = tl.exp2(-slope * (CHUNK - 1 - r if REVERSE else r + 1)) * scale
    from_key = tl.exp2(-slope * (r + 1 if REVERSE else CHUNK - 1 - r))
    across = tl.exp2(-slope * CHUNK)

    d = tl.arange(0, D)
    at = e[:, None] * D + d[None, :] if TRANSPOSED else d[None, :] * E + e[:, None]
    state = tl.load(states + (p.to(tl.int64) * H + h) * (D * E) + at)
    rows = o + (b.to(tl.int64) * H + h) * N * E if not PACKED else o + h.to(tl.int64) * N * E

    # Chunks are aligned to the end where time starts, so that only the last chunk is incomplete and nothing follows it.
    for c in tl.range(0, tl.cdiv(stop - start, CHUNK)):
        t0 = stop - (c + 1) * CHUNK if REVERSE else start + c * CHUNK
        q = q_desc.load([b, h, t0, 0]).reshape([CHUNK, D])
        k = k_desc.load([b, h, t0, 0]).reshape([CHUNK, D])
        v = v_desc.load([b, h, t0, e0]).reshape([CHUNK, TILE])

        out = tl.zeros([TILE, CHUNK], tl.float32)
        out = add_product(out, state, q.T, 0, dtype, SPLIT, PRECISION) * to_query[None, :]
        weights = tl.dot(k, q.T, input_precision=PRECISION) * mask
        out = add_product(out, v.T, weights, 1, dtype, SPLIT, PRECISION)
        weighted = (v * from_key[:, None]).to(dtype)
        state = tl.dot(weighted.T, k, state * across, input_precision=PRECISION)

        t = t0 + r
        inside = (t >= start) & (t < stop)
        tl.store(rows + t.to(tl.int64)[None, :] * E + e[:, None], out.to(dtype), mask=inside[None, :])


def descriptor(x: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """Descriptor of x [B, H, N, columns or more], read in tiles of some rows and columns of one head."""
    return TensorDescriptor.from_tensor(for_descriptor(x), [1, 1, rows, columns])


def precision(dtype: torch.dtype) -> str | None:
    """How products of `dtype` are computed: float32 exactly, which Triton would else round to 10 bits."""
    return "ieee" if dtype == torch.float32 else None


def entering_states(
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    blocks: Blocks,
    c: Configuration,
    *,
    initial: Tensor | None,
    need_final: bool,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """The state that enters each block, and the one that leaves each sequence.

    Args:
        k: [B, H, N, D].
        v: [B, H, N, E].
        slopes: float32 [H].
        blocks: how the sequences are cut.
        c: configuration.
        initial: float32 [sequences, H, D, E], the state that enters each sequence; None is zero.
        need_final: whether the leaving state is wanted; otherwise an empty tensor takes its place.
        reverse: walk from the last token to the first; the state is then the one after the block.
    """
    _, H, N, D = k.shape
    E = v.shape[-1]
    states = torch.empty(blocks.count, H, D, E, dtype=torch.float32, device=k.device)
    final = torch.empty((blocks.sequences, H, D, E) if need_final else (0,), dtype=torch.float32, device=k.device)
    tile = min(E, c.columns if k.dtype == torch.float32 else 128)
    common = {
        "boundaries": blocks.boundaries, "first": blocks.first, "N": N, "S": blocks.sequences, "H": H,
        "BLOCK": blocks.size, "REVERSE": reverse, "PACKED": blocks.boundaries is not None,
    }  # fmt: skip
    _state_kernel[(blocks.count * H * (E // tile),)](
        descriptor(k, c.states.chunk, D), descriptor(v, c.states.chunk, tile), states, slopes, owner=blocks.owner, **common,
        D=D, E=E, CHUNK=c.states.chunk, TILE=tile, NEED_ALL=need_final, PRECISION=precision(k.dtype),
        num_warps=c.states.warps, num_stages=c.states.stages,
    )  # fmt: skip
    _scan_kernel[(blocks.sequences * H * (D * E // SCAN_ELEMENTS),)](
        states, initial, final, slopes, **common, ELEMENTS=D * E, TILE=SCAN_ELEMENTS, STAGES=4,
        HAS_INITIAL=initial is not None, HAS_FINAL=need_final, num_warps=SCAN_WARPS,
    )  # fmt: skip
    return states, final


def outputs(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    states: Tensor,
    scale: float,
    blocks: Blocks,
    c: Configuration,
    *,
    transposed: bool = False,
    reverse: bool = False,
    split: bool = False,
) -> Tensor:
    """o_t = scale * q_t S_t with S_t the decayed sum of k_s v_s^T over s <= t, or over s >= t when `reverse`.

    Args:
        q: [B, H, N, D].
        k: [B, H, N, D].
        v: [B, H, N, E].
        slopes: float32 [H].
        states: float32 [blocks, H, D, E], from `entering_states`; [blocks, H, E, D] when `transposed`.
        scale: factor of the result.
        blocks: how the sequences are cut.
        c: configuration.
        transposed: whether `states` holds the states of (v, k) in place of (k, v).
        reverse: walk from the last token to the first.
        split: narrow states and weights to twice the bits of a 16-bit dtype before they are multiplied with q and v.

    Returns:
        [B, H, N, E], contiguous, in the dtype of q.
    """
    B, H, N, D = q.shape
    E = v.shape[-1]
    o = torch.empty(B, H, N, E, dtype=q.dtype, device=q.device)
    tile = min(E, c.columns)
    _output_kernel[(blocks.count * H * (E // tile),)](
        descriptor(q, c.outputs.chunk, D), descriptor(k, c.outputs.chunk, D), descriptor(v, c.outputs.chunk, tile),
        o, states, slopes, blocks.boundaries, blocks.first, blocks.owner, N, blocks.sequences, H, scale,
        D=D, E=E, BLOCK=blocks.size, CHUNK=c.outputs.chunk, TILE=tile, TRANSPOSED=transposed, REVERSE=reverse,
        SPLIT=split and q.dtype != torch.float32, PACKED=blocks.boundaries is not None, PRECISION=precision(q.dtype),
        num_warps=max(c.outputs.warps * tile // c.columns, 1), num_stages=c.outputs.stages,
    )  # fmt: skip
    return o


def lightning_attention_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor,
    *,
    scale: float,
    initial_state: Tensor | None,
    output_final_state: bool,
    cu_seqlens: Tensor | None,
    layout: Configuration | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `lightning_attention`, without its checks and with a configuration to choose: for tests and benchmarks.

    Returns:
        o, the final state (empty if not asked for) and the states that entered the blocks, which the backward pass wants.
    """
    c = layout or configuration(device_class(q.device), q.dtype)
    blocks = Blocks.of(c.block, q.shape[0], q.shape[2], cu_seqlens)
    states, final = entering_states(k, v, slopes, blocks, c, initial=initial_state, need_final=output_final_state)
    return outputs(q, k, v, slopes, states, scale, blocks, c, split=True), final, states
