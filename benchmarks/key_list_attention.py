"""Attention over listed key blocks, first keys and a window: ours beside plain PyTorch and dense SDPA, prefill and decoding."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.registry import Row, benchmark
from benchmarks.timing import check_and_time
from common.errors import InputError
from common.kernels.block_sparse_attention import BlockLists
from common.kernels.hierarchical_search import searched_blocks
from common.kernels.key_list_attention import key_list_attention, key_list_attention_reference

TOLERANCE = 1e-2  # bfloat16 in and out
CHECKED_BLOCKS = 16


@dataclass(frozen=True)
class Problem:
    """Queries [1, H, N, D] at the end of keys and values [1, Hk, T, D], and lists spread over the keys before the window."""

    q: Tensor
    k: Tensor
    v: Tensor
    lists: BlockLists
    window_starts: Tensor
    block_q: int
    block_k: int
    sink: int

    @classmethod
    def draw(
        cls, queries: int, length: int, top_k: int, block_q: int, block_k: int, heads: int, key_heads: int, head_dim: int,
        seed: int, window: int = 256, sink: int = 16, device: str = "cuda",
    ) -> "Problem":  # fmt: skip
        """Normal bfloat16 tensors; a list takes a block at random from each of equal parts of the keys."""
        g = torch.Generator(device).manual_seed(seed)
        q, k, v = (
            torch.randn(1, h, n, head_dim, device=device, dtype=torch.bfloat16, generator=g)
            for h, n in ((heads, queries), (key_heads, length), (key_heads, length))
        )
        M = searched_blocks(queries, length, block_q=block_q, block_k=block_k, window=window, sink=sink, device=device)
        n = top_k // block_k
        counts = M.clamp_max(n).expand(1, heads, -1).contiguous()
        part = torch.arange(n, device=device)
        first, end = part * M[:, None].long() // n, (part + 1) * M[:, None].long() // n
        draw = torch.rand(1, heads, len(M), n, device=device, generator=g)
        spread = first + (draw * (end - first)).long()
        indices = torch.where(n < M[:, None], spread, part.masked_fill(part >= M[:, None], 0)).int().contiguous()
        return cls(q, k, v, BlockLists(counts, indices), sink + M * block_k, block_q, block_k, sink)

    def expected(self, head: int, block: int) -> Tensor:
        """Output [rows, D] of one query block, in float64."""
        _, heads, N, D = self.q.shape
        T, key_head = self.k.shape[2], head // (heads // self.k.shape[1])
        rows = torch.arange(block * self.block_q, min((block + 1) * self.block_q, N), device=self.q.device)
        listed = self.lists.indices[0, head, block, : int(self.lists.counts[0, head, block])].long()
        tokens = self.sink + listed[:, None] * self.block_k + torch.arange(self.block_k, device=self.q.device)
        read = torch.zeros(T, dtype=torch.bool, device=self.q.device)
        read[tokens.flatten()] = True
        read[: self.sink] = True
        read[int(self.window_starts[block]) :] = True
        logits = self.q[0, head, rows].double() @ self.k[0, key_head].double().T * D**-0.5
        hidden = ~read | (torch.arange(T, device=self.q.device) > (T - N + rows)[:, None])
        return logits.masked_fill(hidden, float("-inf")).softmax(-1) @ self.v[0, key_head].double()

    def error(self, o: Tensor | None) -> float:
        """Relative RMS error, on query blocks drawn with a fixed seed, the last one always."""
        if o is None:
            return 0.0
        g = torch.Generator().manual_seed(0)
        blocks = len(self.window_starts)
        squared_error = squares = 0.0
        for n in range(CHECKED_BLOCKS):
            h = int(torch.randint(self.q.shape[1], (1,), generator=g))
            i = blocks - 1 if n == 0 else int(torch.randint(blocks, (1,), generator=g))
            expected = self.expected(h, i)
            found = o[0, h, i * self.block_q : (i + 1) * self.block_q].double()
            squared_error += (found - expected).square().sum().item()
            squares += expected.square().sum().item()
        return (squared_error / squares) ** 0.5


def ours(problem: Problem) -> Tensor:
    """The public function."""
    p = problem
    return key_list_attention(
        p.q, p.k, p.v, p.lists, p.window_starts, block_q=p.block_q, block_k=p.block_k, sink=p.sink
    )  # fmt: skip


def plain(problem: Problem) -> Tensor:
    """As one writes it in PyTorch: the keys of a few query blocks gathered side by side, then softmax."""
    p = problem
    return key_list_attention_reference(
        p.q, p.k, p.v, p.lists.counts, p.lists.indices, p.window_starts, block_q=p.block_q, block_k=p.block_k, sink=p.sink,
        scale=p.q.shape[3] ** -0.5,
    )  # fmt: skip


def dense(backend: SDPBackend, problem: Problem) -> None:
    """Dense attention: causal where there are as many queries as keys, one query against all keys in decoding."""
    p = problem
    with sdpa_kernel(backend):
        scaled_dot_product_attention(p.q, p.k, p.v, is_causal=p.q.shape[2] > 1, enable_gqa=True)


KERNELS: dict[str, Callable[[Problem], Tensor | None]] = {
    "ours": ours,
    "PyTorch": plain,
    "SDPA flash, all keys": lambda p: dense(SDPBackend.FLASH_ATTENTION, p),
    "SDPA cuDNN, all keys": lambda p: dense(SDPBackend.CUDNN_ATTENTION, p),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 32768, 131072], help="tokens")
    parser.add_argument("--top-k", type=int, nargs="+", default=[512, 2048], help="keys of a list")
    parser.add_argument("--block-q", type=int, default=64, help="queries that share a list in prefill")
    parser.add_argument("--block-k", type=int, default=2, help="keys of a block")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--key-heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)


@benchmark("key_list_attention", add_arguments)
def run(args: argparse.Namespace) -> list[Row]:
    """Attention over key lists with sink and window, bfloat16, prefill and one step of decoding."""
    if bad := [n for n in args.lengths if n < 2]:
        raise InputError(f"--lengths {bad} are not numbers of tokens from 2 on.")
    if bad := [n for n in args.top_k if n < 1 or n % args.block_k]:
        raise InputError(f"--top-k {bad} are not positive multiples of --block-k {args.block_k}.")
    rows: list[Row] = []
    for length in args.lengths:
        for top_k in args.top_k:
            for phase, queries, block_q in (("prefill", length, args.block_q), ("decoding", 1, 1)):
                problem = Problem.draw(
                    queries, length, top_k, block_q, args.block_k, args.heads, args.key_heads, args.head_dim, args.seed
                )
                rows += compare(problem, phase, top_k)
                torch.cuda.empty_cache()
    return rows


def compare(problem: Problem, phase: str, top_k: int) -> list[Row]:
    """Check and time every kernel on one problem."""
    return [
        {
            "kernel": name,
            "phase": phase,
            "length": problem.k.shape[2],
            "top_k": top_k,
            **check_and_time(lambda kernel=kernel: lambda: kernel(problem), problem.error, TOLERANCE)._asdict(),
        }
        for name, kernel in KERNELS.items()
    ]
