"""Claim: permutation is exact. With every block selected, the output equals dense attention, whatever the key order."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.sparse_attention import sparse_attention, structured_inputs
from papers.pbs_attn.pbs_attn import PBSAttention


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        seed: of the inputs.
        dtypes: of queries, keys and values.
        lengths: tokens, also lengths that are no multiple of a block.
        heads, key_heads, head_dim: shape.
        orders: key orders of Table 4.
        block_size, segment_size: B and S.
        reference_lengths: lengths of the float32 check on the CPU.
    """

    seed: int
    dtypes: list[Literal["float32", "float16", "bfloat16"]]
    lengths: list[int]
    heads: int
    key_heads: int
    head_dim: int
    orders: list[str]
    block_size: int
    segment_size: int
    reference_lengths: list[int]


def relative_error(output: Tensor, exact: Tensor) -> float:
    """Relative L2 distance, ||output - exact|| / ||exact||, in float64."""
    return float((output.double() - exact).norm() / exact.norm())


def run(settings: Settings, context: Context) -> Measurement:
    """Compare sparse attention with tau = 1 to dense attention in float64, on the device and, in float32, on the CPU."""
    measurement = Measurement()
    places = [(context.device, dtype, length) for dtype in settings.dtypes for length in settings.lengths]
    places += [("cpu", "float32", length) for length in settings.reference_lengths]
    progress = context.progress(len(places))
    for device, dtype, length in places:
        q, k, v = structured_inputs(
            length,
            heads=settings.heads,
            key_heads=settings.key_heads,
            head_dim=settings.head_dim,
            seed=settings.seed,
            device=device,
            dtype=getattr(torch, dtype),
        )
        exact = scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True, enable_gqa=True)
        where = {"dtype": dtype, "length": length, "implementation": "kernel" if device == "cuda" else "reference"}
        dense = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        measurement.add("relative_error", relative_error(dense, exact), method="dense", **where)
        for order in settings.orders:
            method = PBSAttention(
                block_size=settings.block_size, segment_size=settings.segment_size, tau=1.0, order=order, seed=settings.seed
            )
            output = sparse_attention(q, k, v, method.select(q, k))
            measurement.add("relative_error", relative_error(output, exact), method=order, **where)
        progress.step(f"{dtype}, {length} tokens, {device}")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
