"""Training of Pointer Networks: examples a second by network, size, way to compute scores, and replicas side by side."""

import argparse
import math

import torch

from benchmarks.registry import Row, benchmark
from common.errors import InputError
from common.training import train
from papers.pointer_networks.generate import training_examples
from papers.pointer_networks.pointer_networks import Scores
from papers.pointer_networks.recipes import RECIPES
from papers.pointer_networks.training import Method, buckets_of, make_network, sequence_replica

# network, hidden size, scores, precision
VARIANTS: list[tuple[Method, int, Scores, str]] = [
    ("pointer", 256, "plain", "bfloat16"),
    ("pointer", 256, "fused", "bfloat16"),
    ("pointer", 256, "plain", "float32"),
    ("pointer", 512, "plain", "bfloat16"),
    ("attention", 256, "plain", "bfloat16"),
    ("lstm", 256, "plain", "bfloat16"),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--steps", type=int, default=500, help="of each replica")
    parser.add_argument("--recipe", default="modern", choices=list(RECIPES))
    parser.add_argument("--seed", type=int, default=0)


@benchmark("pointer_network_training", add_arguments)
def run(args: argparse.Namespace) -> list[Row]:
    """Whole training steps on convex hulls: forward, loss, backward, clip, optimise; a run that learns nothing has no time."""
    if args.points < 3 or min(args.replicas) < 1 or args.steps < 1:
        raise InputError(
            f"--points {args.points}, --replicas {args.replicas} and --steps {args.steps} must be at least 3, 1 and 1."
        )
    examples = training_examples("convex_hull", args.points, 200_000, args.seed, "cuda")
    buckets = buckets_of({args.points: examples}, "cuda")
    untrained = math.log(args.points + 1)
    rows: list[Row] = []
    for method, hidden_size, scores, precision in VARIANTS:
        for count in args.replicas:
            recipe = RECIPES[args.recipe].model_copy(update={"precision": precision})
            length = None if method == "pointer" else args.points
            replicas = [
                sequence_replica(
                    str(seed),
                    make_network(method, hidden_size, seed=seed, length=length, scores=scores),
                    recipe,
                    buckets,
                    steps=args.steps,
                    order_seed=seed,
                )
                for seed in range(count)
            ]
            curves = train(replicas).values()
            seconds = max(curve[-1]["seconds"] for curve in curves)
            losses = [curve[-1]["loss"] for curve in curves]
            learned = all(loss < untrained for loss in losses)
            rows.append(
                {
                    "kernel": method,
                    "hidden_size": hidden_size,
                    "scores": scores,
                    "precision": precision,
                    "replicas": count,
                    "ms": 1e3 * seconds / args.steps if learned else None,
                    "examples_per_second": count * args.steps * recipe.batch_size / seconds if learned else None,
                    "error": None,
                    "failed": None if learned else f"losses {losses} are not below {untrained:.3g}, that of a uniform guess",
                }
            )
            torch.cuda.empty_cache()
    return rows
