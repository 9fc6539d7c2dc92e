"""HiP's mask search: ours beside plain PyTorch; dense SDPA as the yardstick of what there is to save."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.registry import Row, benchmark
from benchmarks.timing import check_and_time
from common.errors import InputError
from common.kernels.block_sparse_attention import BlockLists
from common.kernels.hierarchical_search import hierarchical_search, hierarchical_search_reference
from common.kernels.hierarchical_search.triton import LARGEST_BEAM

TOLERANCE = 1e-2  # share of the checked lists' entries that may differ: scores within rounding of one another
CHECKED_BLOCKS = 16


@dataclass(frozen=True)
class Problem:
    """One causal prefill: q [1, H, N, D], k [1, Hk, N, D], and the settings of the search."""

    q: Tensor
    k: Tensor
    nodes: int
    block_q: int
    block_k: int
    window: int = 256
    sink: int = 16
    stride_q: int = 2

    @classmethod
    def draw(
        cls, length: int, nodes: int, block_q: int, block_k: int, heads: int, key_heads: int, head_dim: int, seed: int,
        device: str = "cuda",
    ) -> "Problem":  # fmt: skip
        """Normal bfloat16 tensors."""
        g = torch.Generator(device).manual_seed(seed)
        q, k = (
            torch.randn(1, h, length, head_dim, device=device, dtype=torch.bfloat16, generator=g) for h in (heads, key_heads)
        )
        return cls(q, k, nodes, block_q, block_k)

    @property
    def settings(self) -> dict[str, Any]:
        """Keywords of the search."""
        names = ("nodes", "block_q", "block_k", "window", "sink", "stride_q")
        return {name: getattr(self, name) for name in names}

    def expected(self, head: int, block: int) -> list[int]:
        """The list of one query block in float64: that of the last block of queries of a text that ends with it."""
        end = min((block + 1) * self.block_q, self.q.shape[2])
        key_head = head // (self.q.shape[1] // self.k.shape[1])
        q = self.q[:, head : head + 1, block * self.block_q : end].double()
        k = self.k[:, key_head : key_head + 1, :end].double()
        lists = hierarchical_search(q, k, **self.settings, implementation="reference")
        return lists.indices[0, 0, 0, : int(lists.counts[0, 0, 0])].tolist()

    def error(self, lists: BlockLists | None) -> float:
        """Share of expected entries that are not listed, on query blocks drawn with a fixed seed, the last one always."""
        if lists is None:
            return 0.0
        g = torch.Generator().manual_seed(0)
        rows = -(-self.q.shape[2] // self.block_q)
        missing = total = 0
        for n in range(CHECKED_BLOCKS):
            h = int(torch.randint(self.q.shape[1], (1,), generator=g))
            i = rows - 1 if n == 0 else int(torch.randint(rows, (1,), generator=g))
            expected = set(self.expected(h, i))
            found = lists.indices[0, h, i, : int(lists.counts[0, h, i])].tolist()
            if len(set(found)) != len(expected) or found != sorted(found):
                return float("inf")
            missing, total = missing + len(expected - set(found)), total + len(expected)
        return missing / max(total, 1)


def plain(problem: Problem) -> BlockLists:
    """As one writes it in PyTorch: a few query blocks at a time, gathered keys and a sort a round."""
    return hierarchical_search_reference(problem.q, problem.k, **problem.settings, stride_k=1, representative="center")


def sdpa_flash(problem: Problem) -> None:
    """Dense causal attention."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        scaled_dot_product_attention(problem.q, problem.k, problem.k, is_causal=True, enable_gqa=True)


KERNELS: dict[str, Callable[[Problem], BlockLists | None]] = {
    "ours": lambda p: hierarchical_search(p.q, p.k, **p.settings),
    "PyTorch": plain,
    "SDPA flash, dense attention": sdpa_flash,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 32768, 131072], help="tokens")
    parser.add_argument("--top-k", type=int, nargs="+", default=[512, 2048], help="keys of a list")
    parser.add_argument("--block-q", type=int, default=64, help="queries that share a list")
    parser.add_argument("--block-k", type=int, default=2, help="keys of a block")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--key-heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)


@benchmark("hierarchical_search", add_arguments)
def run(args: argparse.Namespace) -> list[Row]:
    """HiP's beam search over key blocks for every block of queries, bfloat16."""
    if bad := [n for n in args.lengths if n < 1]:
        raise InputError(f"--lengths {bad} are not positive numbers of tokens.")
    if bad := [n for n in args.top_k if n < 1 or n % args.block_k or n // args.block_k > LARGEST_BEAM]:
        raise InputError(f"--top-k {bad} are not multiples of --block-k {args.block_k} with at most {LARGEST_BEAM} blocks.")
    rows: list[Row] = []
    for length in args.lengths:
        for top_k in args.top_k:
            nodes = top_k // args.block_k
            problem = Problem.draw(
                length, nodes, args.block_q, args.block_k, args.heads, args.key_heads, args.head_dim, args.seed
            )
            rows += compare(problem)
            torch.cuda.empty_cache()
    return rows


def compare(problem: Problem) -> list[Row]:
    """Check and time every kernel on one problem."""
    return [
        {
            "kernel": name,
            "length": problem.q.shape[2],
            "top_k": problem.nodes * problem.block_k,
            **check_and_time(lambda kernel=kernel: lambda: kernel(problem), problem.error, TOLERANCE)._asdict(),
        }
        for name, kernel in KERNELS.items()
    ]
