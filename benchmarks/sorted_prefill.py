"""Attention over sorted keys as a whole: importance, sort, gather, selection and block-sparse attention (PBS-Attn)."""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.registry import Row, benchmark
from benchmarks.timing import Timed, check_and_time
from common.errors import InputError
from common.kernels.block_selection import block_means, select_top_p
from common.kernels.block_sparse_attention import BlockLists, block_sparse_attention, block_sparse_attention_reference
from common.kernels.segment_sort import gather_keys_values, key_importance, segment_argsort
from common.sparse_attention import structured_inputs

BLOCK, SEGMENT, TAU = 128, 256, 0.9
TOLERANCE = 1e-2  # bfloat16 in and out


class Pipeline:
    """The stages, each on what the stages before it gave.

    Attributes:
        q: queries [1, H, N, D].
        k: keys [1, Hk, N, D].
        v: values [1, Hk, N, D].
    """

    def __init__(self, q: Tensor, k: Tensor, v: Tensor):
        self.q, self.k, self.v = q, k, v
        self.order = self.sort()
        self.permuted = self.gather()
        self.blocks = self.select()

    def sort(self) -> Tensor:
        """Key importance and the order of every segment: int32 [1, H, N]."""
        return segment_argsort(key_importance(self.q[:, :, -BLOCK:], self.k), SEGMENT)

    def gather(self) -> tuple[Tensor, Tensor]:
        """Keys and values in that order, [1, H, N, D]."""
        return gather_keys_values(self.k, self.v, self.order)

    def select(self) -> BlockLists:
        """The blocks to read."""
        sink = ((self.order[..., :SEGMENT] == 0).int().argmax(-1) // BLOCK).int()
        q_means, k_means = block_means(self.q, BLOCK), block_means(self.k, BLOCK, order=self.order)
        return select_top_p(q_means, k_means, tau=TAU, segment_blocks=SEGMENT // BLOCK, always=sink)

    def attend(self) -> Tensor:
        """Attention over them."""
        return block_sparse_attention(
            self.q, *self.permuted, self.blocks, block_size=BLOCK, segment_size=SEGMENT, key_positions=self.order
        )

    def whole(self) -> Tensor:
        """All stages."""
        return Pipeline(self.q, self.k, self.v).attend()

    def density(self) -> float:
        """Blocks read divided by causal blocks."""
        T = self.blocks.counts.shape[2]
        return int(self.blocks.counts.sum()) / (self.q.shape[1] * T * (T + 1) / 2)

    def error(self, out: Tensor) -> float:
        """Relative RMS error of the first head against the reference in float64."""
        k, v = (x[:, :1].double() for x in self.permuted)
        blocks = BlockLists(self.blocks.counts[:, :1].contiguous(), self.blocks.indices[:, :1].contiguous())
        expected = block_sparse_attention_reference(
            self.q[:, :1].double(), k, v, blocks, block_size=BLOCK, segment_size=SEGMENT,
            key_positions=self.order[:, :1].contiguous(),
        )  # fmt: skip
        return ((out[:, :1].double() - expected).norm() / expected.norm()).item()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 32768, 131072], help="tokens, multiples of 256")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--key-heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)


@benchmark("sorted_prefill", add_arguments)
def run(args: argparse.Namespace) -> list[Row]:
    """All stages of attention over sorted keys, structured inputs in bfloat16; a stage's share is of the whole."""
    if bad := [n for n in args.lengths if n < 2 * SEGMENT or n % SEGMENT]:
        raise InputError(f"--lengths {bad} are not multiples of {SEGMENT} from {2 * SEGMENT} on.")
    shape = {"heads": args.heads, "key_heads": args.key_heads, "head_dim": args.head_dim}
    rows: list[Row] = []
    for length in args.lengths:
        rows += compare(Pipeline(*structured_inputs(length, **shape, seed=args.seed, device="cuda", dtype=torch.bfloat16)))
        torch.cuda.empty_cache()
    return rows


def compare(pipeline: Pipeline) -> list[Row]:
    """Check the whole, then time it and its stages; nothing is timed if the whole is wrong."""
    timed: dict[str, Timed] = {"whole": check_and_time(lambda: pipeline.whole, pipeline.error, TOLERANCE)}
    whole = timed["whole"].ms
    stages: dict[str, Callable[[], object]] = {
        "sort": pipeline.sort, "gather": pipeline.gather, "select": pipeline.select, "attend": pipeline.attend,
    }  # fmt: skip
    if whole:
        timed |= {name: check_and_time(lambda s=stage: s, lambda _: 0.0, TOLERANCE) for name, stage in stages.items()}
    return [
        {
            "kernel": "ours",
            "stage": stage,
            "length": pipeline.q.shape[2],
            "density": round(pipeline.density(), 4),
            "ms": result.ms,
            "share": result.ms / whole if result.ms and whole else None,
            "error": result.error if stage == "whole" else None,
            "failed": result.failed,
        }
        for stage, result in timed.items()
    ]
