"""Key importance, segment sort and gathering: ours beside plain PyTorch."""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.registry import Row, benchmark
from benchmarks.timing import check_and_time
from common.errors import InputError
from common.kernels.segment_sort import (
    gather_keys_values,
    key_importance,
    segment_argsort,
)

BLOCK, SEGMENT = 128, 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 32768, 131072], help="tokens, multiples of 256")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--key-heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)


def relative_error(expected: Tensor) -> Callable[[Tensor], float]:
    """RMS(out - expected) / RMS(expected) in float32."""
    return lambda out: ((out.float() - expected.float()).norm() / expected.float().norm()).item()


@benchmark("segment_sort", add_arguments)
def run(args: argparse.Namespace) -> list[Row]:
    """The steps of PBS-Attn before block selection, bfloat16, one permutation per query head."""
    if bad := [n for n in args.lengths if n < SEGMENT or n % SEGMENT]:
        raise InputError(f"--lengths {bad} are not positive multiples of {SEGMENT}.")
    rows: list[Row] = []
    for length in args.lengths:
        g = torch.Generator("cuda").manual_seed(args.seed)
        shapes = ((args.heads, BLOCK), (args.key_heads, length), (args.key_heads, length))
        q, k, v = (torch.randn(1, h, n, args.head_dim, device="cuda", dtype=torch.bfloat16, generator=g) for h, n in shapes)
        importance = key_importance(q, k, implementation="reference")
        order = segment_argsort(importance, SEGMENT, implementation="reference")
        gathered = gather_keys_values(k, v, order, implementation="reference")[0]
        steps: dict[tuple[str, str], tuple[Callable[[], Tensor], Tensor]] = {
            ("key_importance", "ours"): (lambda q=q, k=k: key_importance(q, k), importance),
            ("key_importance", "PyTorch"): (lambda q=q, k=k: key_importance(q, k, implementation="reference"), importance),
            ("segment_argsort", "ours"): (lambda i=importance: segment_argsort(i, SEGMENT), order),
            ("segment_argsort", "PyTorch"): (
                lambda i=importance: segment_argsort(i, SEGMENT, implementation="reference"),
                order,
            ),
            ("gather_keys_values", "ours"): (lambda k=k, v=v, o=order: gather_keys_values(k, v, o)[0], gathered),
            ("gather_keys_values", "PyTorch"): (
                lambda k=k, v=v, o=order: gather_keys_values(k, v, o, implementation="reference")[0],
                gathered,
            ),
        }
        for (step, name), (call, expected) in steps.items():
            rows.append(
                {
                    "step": step,
                    "kernel": name,
                    "length": length,
                    **check_and_time(lambda c=call: c, relative_error(expected), 1e-4)._asdict(),
                }
            )
        del importance, order, gathered, steps
        torch.cuda.empty_cache()
    return rows
