"""Block means and the selection of blocks: ours beside plain PyTorch."""

import argparse

import torch
from torch import Tensor

from benchmarks.registry import Row, benchmark
from benchmarks.timing import check_and_time
from common.errors import InputError
from common.kernels.block_selection import block_means, select_top_p
from common.kernels.block_sparse_attention import BlockLists
from common.kernels.checks import Implementation
from common.kernels.segment_sort import key_importance, segment_argsort
from common.sparse_attention import structured_inputs

BLOCK, SEGMENT, TAU = 128, 256, 0.9
IMPLEMENTATIONS: dict[str, Implementation] = {"ours": "auto", "PyTorch": "reference"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 32768, 131072], help="tokens, multiples of 256")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--key-heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)


def mean_error(expected: Tensor, means: Tensor) -> float:
    """Relative RMS error."""
    return ((means - expected).norm() / expected.norm()).item()


def share_of_differing_rows(expected: BlockLists, lists: BlockLists) -> float:
    """Share of rows that select other blocks: rounding may decide a few."""
    return (expected.indices != lists.indices).any(-1).double().mean().item()


@benchmark("block_selection", add_arguments)
def run(args: argparse.Namespace) -> list[Row]:
    """Means of permuted blocks, and PBS-Attn's selection from them, on structured inputs in bfloat16."""
    if bad := [n for n in args.lengths if n < SEGMENT or n % SEGMENT]:
        raise InputError(f"--lengths {bad} are not positive multiples of {SEGMENT}.")
    rows: list[Row] = []
    for length in args.lengths:
        rows += compare(length, args)
        torch.cuda.empty_cache()
    return rows


def compare(length: int, args: argparse.Namespace) -> list[Row]:
    """Check and time both steps at one length."""
    shape = {"heads": args.heads, "key_heads": args.key_heads, "head_dim": args.head_dim}
    q, k, _ = structured_inputs(length, **shape, seed=args.seed, device="cuda", dtype=torch.bfloat16)
    order = segment_argsort(key_importance(q[:, :, -BLOCK:], k), SEGMENT)
    q_means = block_means(q, BLOCK)
    k_means = block_means(k, BLOCK, order=order, implementation="reference")

    def means(implementation: Implementation) -> Tensor:
        return block_means(k, BLOCK, order=order, implementation=implementation)

    def select(implementation: Implementation) -> BlockLists:
        return select_top_p(q_means, k_means, tau=TAU, segment_blocks=SEGMENT // BLOCK, implementation=implementation)

    expected = select("reference")
    rows: list[Row] = []
    for name, implementation in IMPLEMENTATIONS.items():
        timed = {
            "block_means of permuted keys": check_and_time(
                lambda i=implementation: lambda: means(i), lambda found: mean_error(k_means, found), 1e-5
            ),
            "select_top_p": check_and_time(
                lambda i=implementation: lambda: select(i), lambda found: share_of_differing_rows(expected, found), 0.01
            ),
        }
        rows += [{"step": step, "kernel": name, "length": length, **result._asdict()} for step, result in timed.items()]
    return rows
