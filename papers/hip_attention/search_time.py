"""Claims on speed: search and attention beside dense attention in the same run, over lengths and sizes of blocks."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.sparse_attention import structured_inputs
from common.sparse_attention.dense_kernels import dense_attention
from common.timing import median_milliseconds
from papers.hip_attention.hip_attention import HierarchicalPruning, KeyLists


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        seed: of the inputs.
        lengths: tokens; all in one run, since the slope is measured over them.
        heads, key_heads, head_dim: shape.
        dtype: of queries, keys and values.
        topic_logits, locality_logit: of the structured inputs.
        block_q, block_k, window, sink, stride_q: of `HierarchicalPruning`.
        top_ks: values of k.
        grid_length: length at which sizes of blocks are varied, at the first k.
        block_qs, block_ks: sizes of blocks.
        dense: dense kernels to time: flash, cudnn; math on the CPU.
        repeat_milliseconds: time spent on repeating each measurement.
    """

    seed: int
    lengths: list[int]
    heads: int
    key_heads: int
    head_dim: int
    dtype: str
    topic_logits: tuple[float, float]
    locality_logit: float
    block_q: int
    block_k: int
    window: int
    sink: int
    stride_q: int
    top_ks: list[int]
    grid_length: int
    block_qs: list[int]
    block_ks: list[int]
    dense: list[str]
    repeat_milliseconds: int

    def hip(self, **changes: int) -> HierarchicalPruning:
        """The search with some settings changed."""
        base = {name: getattr(self, name) for name in ("block_q", "block_k", "window", "sink", "stride_q")}
        return HierarchicalPruning(**{**base, "top_k": self.top_ks[0], **changes})


def slope(lengths: list[int], times: list[float]) -> float:
    """Exponent of the power of the length that fits the times best: least squares in logarithms."""
    x, y = ([math.log(value) for value in values] for values in (lengths, times))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def stages_of(hip: HierarchicalPruning, q: Tensor, k: Tensor, v: Tensor) -> tuple[KeyLists, dict[str, Callable[[], object]]]:
    """What the search finds, and search, attention over what it found and both in one, to be timed."""
    found = hip.select(q, k)
    return found, {
        "search": lambda: hip.select(q, k),
        "attention": lambda: found.attend(q, k, v),
        "total": lambda: hip.select(q, k).attend(q, k, v),
    }


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Time stages and whole at every length and k, dense kernels beside them, and the search over sizes of blocks."""
    measurement = Measurement()
    s = settings
    progress = context.progress(len(s.lengths) + 1)

    def draw(length: int) -> tuple[Tensor, Tensor, Tensor]:
        return structured_inputs(
            length, heads=s.heads, key_heads=s.key_heads, head_dim=s.head_dim, topic_logits=s.topic_logits,
            locality_logit=s.locality_logit, seed=s.seed, device=context.device, dtype=getattr(torch, s.dtype),
        )  # fmt: skip

    times: dict[tuple[int, str], list[float]] = {}
    for length in s.lengths:
        q, k, v = draw(length)
        dense = {
            name: median_milliseconds(dense_attention(name, q, k, v), context.device, s.repeat_milliseconds) for name in s.dense
        }
        for name, milliseconds in dense.items():
            measurement.add("time", milliseconds, "ms", method=name, timing=True, stage="total", length=length)
        for top_k in s.top_ks:
            found, stages = stages_of(s.hip(top_k=top_k), q, k, v)
            found.check_contents()
            measurement.add("density", found.density().mean(), method="hip", length=length, top_k=top_k)
            for stage, call in stages.items():
                milliseconds = median_milliseconds(call, context.device, s.repeat_milliseconds)
                times.setdefault((top_k, stage), []).append(milliseconds)
                setting = {"stage": stage, "length": length, "top_k": top_k}
                measurement.add("time", milliseconds, "ms", method="hip", timing=True, **setting)
            for name, milliseconds in dense.items():
                speed_up = milliseconds / times[top_k, "total"][-1]
                setting = {"length": length, "top_k": top_k, "over": name}
                measurement.add("speed_up", speed_up, "x", method="hip", timing=True, **setting)
        progress.step(f"{length} tokens")
    for (top_k, stage), milliseconds in times.items():
        measurement.add("slope", slope(s.lengths, milliseconds), method="hip", timing=True, stage=stage, top_k=top_k)
    q, k, _ = draw(s.grid_length)
    for block_q in s.block_qs:
        for block_k in s.block_ks:
            hip = s.hip(block_q=block_q, block_k=block_k)
            milliseconds = median_milliseconds(lambda hip=hip: hip.select(q, k), context.device, s.repeat_milliseconds)
            setting = {"block_q": block_q, "block_k": block_k, "length": s.grid_length}
            measurement.add("searches_per_second", 1000 / milliseconds, "1/s", method="hip", timing=True, **setting)
    progress.step("sizes of blocks")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
