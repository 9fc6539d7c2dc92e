"""Scores of additive attention with their gradients: ours beside plain PyTorch, eager and compiled."""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.registry import Row, benchmark
from benchmarks.timing import check_and_time
from common.kernels.additive_attention import additive_attention, additive_attention_reference

PASSES = ("forward", "forward + backward")
TOLERANCE = 2e-2  # gradients, and PyTorch's scores, are rounded to bfloat16
Scores = Callable[[Tensor, Tensor, Tensor], Tensor]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 21, 265], help="output positions; 1 is a decoding step")
    parser.add_argument("--keys", type=int, default=51)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)


def plain(q: Tensor, k: Tensor, weight: Tensor) -> Tensor:
    """As one writes it in PyTorch: keeps a tensor of all pairs and hidden units for the backward pass."""
    return torch.tanh(q[:, :, None] + k[:, None]) @ weight


def difference(expected: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> float:
    """Largest relative RMS error of the tensors."""
    return max(((b.double() - a).norm() / a.norm()).item() for a, b in zip(expected, found, strict=True))


@benchmark("additive_attention", add_arguments)
def run(args: argparse.Namespace) -> list[Row]:
    """Scores v^T tanh(k_j + q_i) in bfloat16, forward and with gradients, checked against float64."""
    rows: list[Row] = []
    for queries in args.queries:
        g = torch.Generator("cuda").manual_seed(args.seed)
        shapes = ((args.batch, queries, args.hidden_size), (args.batch, args.keys, args.hidden_size), (args.hidden_size,))
        inputs = [torch.randn(shape, device="cuda", generator=g).bfloat16() for shape in shapes]
        du = torch.randn(args.batch, queries, args.keys, device="cuda", generator=g)
        for part in PASSES:
            rows += compare(part, inputs, du)
        torch.cuda.empty_cache()
    return rows


def compare(part: str, inputs: list[Tensor], du: Tensor) -> list[Row]:
    """Check and time every implementation of one pass at one size."""
    kernels: dict[str, Scores] = {"ours": additive_attention, "PyTorch": plain, "PyTorch, compiled": torch.compile(plain)}
    expected = results(additive_attention_reference, part, [x.double() for x in inputs], du.double())
    rows: list[Row] = []
    for name, scores in kernels.items():
        timed = check_and_time(
            lambda scores=scores: lambda: results(scores, part, inputs, du),
            lambda found: difference(expected, found),
            TOLERANCE,
        )
        rows.append({"kernel": name, "pass": part, "queries": len(du[0]), **timed._asdict()})
    return rows


def results(scores: Scores, part: str, inputs: list[Tensor], du: Tensor) -> tuple[Tensor, ...]:
    """The scores, or with "forward + backward" the gradients of q, k and the weight for the gradient du of the scores."""
    if part == "forward":
        return (scores(*inputs),)
    leaves = [x.detach().requires_grad_() for x in inputs]
    u = scores(*leaves)
    return torch.autograd.grad(u, leaves, du.to(u.dtype))
