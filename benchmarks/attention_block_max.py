"""Block maxima of the attention map with the output: ours beside plain PyTorch; dense SDPA without maxima as the yardstick."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import max_pool2d, scaled_dot_product_attention

from benchmarks.registry import Row, benchmark
from benchmarks.timing import check_and_time
from common.errors import InputError
from common.kernels.attention_block_max import attention_block_max
from common.kernels.attention_block_max.triton import BLOCK_SIZES

TOLERANCE = 2e-2  # bfloat16 in and out; PyTorch's logits are rounded to bfloat16 too
PLAIN_ROWS = 1024  # queries at a time of plain PyTorch, a multiple of every block size
CHECKED_BLOCKS = 16
Result = tuple[Tensor | None, Tensor | None]  # maxima [1, H, T, T] and output [1, H, N, D], None where not computed


@dataclass(frozen=True)
class Problem:
    """One causal prefill: q [1, H, N, D], k and v [1, Hk, N, D]."""

    q: Tensor
    k: Tensor
    v: Tensor
    block_size: int

    @classmethod
    def draw(
        cls, length: int, block_size: int, heads: int, key_heads: int, head_dim: int, seed: int, device: str = "cuda"
    ) -> "Problem":
        """Normal bfloat16 tensors."""
        g = torch.Generator(device).manual_seed(seed)
        q, k, v = (
            torch.randn(1, h, length, head_dim, device=device, dtype=torch.bfloat16, generator=g)
            for h in (heads, key_heads, key_heads)
        )
        return cls(q, k, v, block_size)

    def expected(self, head: int, block: int) -> tuple[Tensor, Tensor]:
        """Maxima [block + 1] and output [rows, D] of one query block, in float64."""
        _, heads, N, D = self.q.shape
        key_head = head // (heads // self.k.shape[1])
        rows = torch.arange(block * self.block_size, min((block + 1) * self.block_size, N), device=self.q.device)
        keys = torch.arange(int(rows[-1]) + 1, device=self.q.device)
        logits = self.q[0, head, rows].double() @ self.k[0, key_head, keys].double().T * D**-0.5
        p = logits.masked_fill(keys > rows[:, None], float("-inf")).softmax(-1)
        maxima = torch.stack([x.amax() for x in p.split(self.block_size, dim=1)])
        return maxima, p @ self.v[0, key_head, keys].double()

    def error(self, result: Result) -> float:
        """The larger relative RMS error of maxima and output, on query blocks drawn with a fixed seed, the last one always."""
        maxima, o = result
        g = torch.Generator().manual_seed(0)
        T = -(-self.q.shape[2] // self.block_size)
        pairs: dict[str, list[tuple[Tensor, Tensor]]] = {"maxima": [], "o": []}
        for n in range(CHECKED_BLOCKS):
            h = int(torch.randint(self.q.shape[1], (1,), generator=g))
            i = T - 1 if n == 0 else int(torch.randint(T, (1,), generator=g))
            expected_maxima, expected_o = self.expected(h, i)
            if maxima is not None:
                pairs["maxima"].append((maxima[0, h, i, : i + 1], expected_maxima))
            if o is not None:
                pairs["o"].append((o[0, h, i * self.block_size : (i + 1) * self.block_size], expected_o))
        return max(relative_error(part) for part in pairs.values() if part)


def relative_error(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """RMS(found - expected) / RMS(expected) over all pairs, in float64."""
    squared_error = sum((found.double() - expected).square().sum().item() for found, expected in pairs)
    return (squared_error / sum(expected.square().sum().item() for _, expected in pairs)) ** 0.5


def plain(problem: Problem) -> Result:
    """As one writes it in PyTorch: the map of 1,024 queries at a time in bfloat16, its softmax in float32, then max pooling."""
    _, H, N, D = problem.q.shape
    T = -(-N // problem.block_size)
    k, v = (x.repeat_interleave(H // problem.k.shape[1], dim=1) for x in (problem.k, problem.v))
    maxima = torch.zeros(1, H, T, T, dtype=torch.float32, device=k.device)
    o = torch.empty_like(problem.q)
    places = torch.arange(N, device=k.device)
    for start in range(0, N, PLAIN_ROWS):
        end = min(start + PLAIN_ROWS, N)
        logits = problem.q[:, :, start:end] @ k[:, :, :end].mT * D**-0.5
        future = places[:end] > places[start:end, None]
        p = logits.masked_fill_(future, float("-inf")).softmax(-1, dtype=torch.float32)
        o[:, :, start:end] = p.to(v.dtype) @ v[:, :, :end]
        pooled = max_pool2d(p, problem.block_size, ceil_mode=True)
        first = start // problem.block_size
        maxima[:, :, first : first + pooled.shape[2], : pooled.shape[3]] = pooled
    return maxima, o


def sdpa_flash(problem: Problem) -> Result:
    """Dense causal attention alone: what the maxima cost is the difference to it."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return None, scaled_dot_product_attention(problem.q, problem.k, problem.v, is_causal=True, enable_gqa=True)


KERNELS: dict[str, Callable[[Problem], Result]] = {
    "ours": lambda p: attention_block_max(p.q, p.k, p.v, block_size=p.block_size),
    "ours, maxima only": lambda p: (attention_block_max(p.q, p.k, block_size=p.block_size), None),
    "PyTorch": plain,
    "SDPA flash, output only": sdpa_flash,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 32768, 65536], help="tokens")
    parser.add_argument("--block-sizes", type=int, nargs="+", default=[64], help="tokens per block: 16, 32, 64, 128")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--key-heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)


@benchmark("attention_block_max", add_arguments)
def run(args: argparse.Namespace) -> list[Row]:
    """Causal attention with the largest probability of every block of the map, bfloat16."""
    if bad := [n for n in args.lengths if n < 1]:
        raise InputError(f"--lengths {bad} are not positive numbers of tokens.")
    if bad := [n for n in args.block_sizes if n not in BLOCK_SIZES]:
        raise InputError(f"--block-sizes {bad} are not among {', '.join(map(str, BLOCK_SIZES))}.")
    rows: list[Row] = []
    for length in args.lengths:
        for block_size in args.block_sizes:
            problem = Problem.draw(length, block_size, args.heads, args.key_heads, args.head_dim, args.seed)
            rows += compare(problem, peak_mib)
            torch.cuda.empty_cache()
    return rows


def compare(problem: Problem, memory: Callable[[Callable[[], Result]], float]) -> list[Row]:
    """Check and time every kernel on one problem; `memory` gives the MiB that a call needs, results included."""
    rows: list[Row] = []
    for name, kernel in KERNELS.items():
        timed = check_and_time(lambda kernel=kernel: lambda: kernel(problem), problem.error, TOLERANCE)
        rows.append(
            {
                "kernel": name,
                "length": problem.q.shape[2],
                "block": problem.block_size,
                "mib": None if timed.failed else memory(lambda kernel=kernel: kernel(problem)),
                **timed._asdict(),
            }
        )
    return rows


def peak_mib(call: Callable[[], Result]) -> float:
    """Device memory that a call needs at its peak beyond what is held before it, in MiB."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20
