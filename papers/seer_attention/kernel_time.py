"""Claim on the kernel: how much faster than dense attention is attention over a share of the blocks (Figure 6)?

Blocks are drawn at random, as many in every row of all heads as its density asks for: the speed of the kernel alone, whatever
selects. Blocks of 64 are the paper's; our kernel for Hopper reads blocks of 128, so 64 goes through the plain Triton kernel.
"""

import torch
from torch import Tensor

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.kernels.block_sparse_attention import BlockLists, block_sparse_attention
from common.sparse_attention.at_density import blocks_at_density
from common.sparse_attention.blocks import number_of_blocks
from common.sparse_attention.dense_kernels import dense_attention
from common.timing import median_milliseconds
from papers.seer_attention.ground_truth import random_inputs


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        length: tokens.
        heads: query heads.
        key_heads: key heads.
        head_dim: d.
        dtype: of queries, keys and values.
        block_sizes: tokens per block, each timed.
        sparsities: shares of the causal blocks that are left out.
        dense: dense kernels that are timed.
        repeat_milliseconds: time spent on repeating each measurement.
        seed: of inputs and blocks.
    """

    length: int
    heads: int
    key_heads: int
    head_dim: int
    dtype: str
    block_sizes: list[int]
    sparsities: list[float]
    dense: list[str]
    repeat_milliseconds: int
    seed: int


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Time dense kernels, and the block-sparse kernel at every block size and sparsity."""
    measurement = Measurement()
    s = settings
    progress = context.progress(len(s.dense) + len(s.block_sizes) * len(s.sparsities))
    q, k, v = random_inputs(s.length, s.heads, s.key_heads, s.head_dim, dtype=s.dtype, seed=s.seed, device=context.device)
    dense = {}
    for name in s.dense:
        dense[name] = median_milliseconds(dense_attention(name, q, k, v), context.device, s.repeat_milliseconds)
        measurement.add("time", dense[name], "ms", method=name, timing=True)
        progress.step(f"{name}: {dense[name]:.3f} ms")
    for block_size in s.block_sizes:
        T = number_of_blocks(s.length, block_size)
        for sparsity in s.sparsities:
            place = {"block_size": block_size, "sparsity": sparsity}
            blocks = blocks_at_density(
                s.length,
                s.heads,
                1 - sparsity,
                block_size=block_size,
                segment_size=block_size,
                device=context.device,
                seed=s.seed,
            )
            read = blocks.counts[0, 0].sum() / (T * (T + 1) / 2)
            measurement.add("density", read, method="block_sparse_attention", **place)

            def attend(blocks: BlockLists = blocks, block_size: int = block_size) -> Tensor:
                return block_sparse_attention(q, k, v, blocks, block_size=block_size)

            time = median_milliseconds(attend, context.device, s.repeat_milliseconds)
            measurement.add("time", time, "ms", method="block_sparse_attention", timing=True, **place)
            for name in s.dense:
                speed_up = dense[name] / time
                measurement.add("speed_up", speed_up, "x", method="block_sparse_attention", timing=True, over=name, **place)
            progress.step(f"blocks of {block_size}, sparsity {sparsity}: {time:.3f} ms")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
