"""Claims on speed: permutation, selection and attention, timed by stage beside dense attention in the same run (Table 7)."""

import torch
from torch import Tensor

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.kernels.block_sparse_attention import BlockLists, block_sparse_attention
from common.kernels.segment_sort import gather_keys_values
from common.sparse_attention import MeanPooling, density, structured_inputs
from common.sparse_attention.blocks import number_of_blocks
from common.sparse_attention.dense_kernels import dense_attention
from common.timing import median_milliseconds
from papers.pbs_attn.pbs_attn import PBSAttention, select_blocks


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        length: tokens.
        seed: of the inputs.
        heads, key_heads, head_dim: shape.
        dtype: of queries, keys and values.
        topic_logits: of the structured inputs: first and last key head.
        locality_logit: of the structured inputs.
        structure: length -> factor of both logits.
        block_size, segment_size, tau: B, S and the selection threshold.
        dense: dense kernels to time: flash, cudnn, flex.
        repeat_milliseconds: time spent on repeating each measurement.
    """

    length: int
    seed: int
    heads: int
    key_heads: int
    head_dim: int
    dtype: str
    topic_logits: tuple[float, float]
    locality_logit: float
    structure: dict[int, float]
    block_size: int
    segment_size: int
    tau: float
    dense: list[str]
    repeat_milliseconds: int


class Stages:
    """The pipeline's stages, each to be timed alone on what the stages before it gave, and the whole."""

    def __init__(self, method: PBSAttention, q: Tensor, k: Tensor, v: Tensor):
        self.method, self.q, self.k, self.v = method, q, k, v
        self.permuted = self.permute()
        self.blocks = self.select()

    def permute(self) -> tuple[Tensor, Tensor, Tensor]:
        """The order pi, K' and V'."""
        order = self.method.key_order(self.q, self.k)
        return order, *gather_keys_values(self.k, self.v, order)

    def _select(self, order: Tensor) -> BlockLists:
        m = self.method
        return select_blocks(self.q, self.k, order, block_size=m.block_size, segment_size=m.segment_size, tau=m.tau)

    def select(self) -> BlockLists:
        """The blocks to read."""
        return self._select(self.permuted[0])

    def _attend(self, order: Tensor, k_permuted: Tensor, v_permuted: Tensor, blocks: BlockLists) -> Tensor:
        m = self.method
        return block_sparse_attention(
            self.q, k_permuted, v_permuted, blocks, block_size=m.block_size, segment_size=m.segment_size, key_positions=order
        )

    def attention(self) -> Tensor:
        """Attention over the blocks."""
        return self._attend(*self.permuted, self.blocks)

    def total(self) -> Tensor:
        """All stages."""
        permuted = self.permute()
        return self._attend(*permuted, self._select(permuted[0]))


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Time each stage and the whole; count the blocks selected with and without sorting."""
    measurement = Measurement()
    s = settings
    structure = s.structure[s.length]
    progress = context.progress(5 + len(s.dense))
    q, k, v = structured_inputs(
        s.length,
        heads=s.heads,
        key_heads=s.key_heads,
        head_dim=s.head_dim,
        topic_logits=(s.topic_logits[0] * structure, s.topic_logits[1] * structure),
        locality_logit=s.locality_logit * structure,
        seed=s.seed,
        device=context.device,
        dtype=getattr(torch, s.dtype),
    )
    method = PBSAttention(block_size=s.block_size, segment_size=s.segment_size, tau=s.tau)
    unsorted = PBSAttention(block_size=s.block_size, segment_size=s.segment_size, tau=s.tau, order="none")
    blocks_in_all = number_of_blocks(s.length, s.block_size) * (number_of_blocks(s.length, s.block_size) + 1) // 2
    shares = {}
    for name, selector in (("last_block", method), ("none", unsorted), ("mean_pooling", MeanPooling(s.block_size, s.tau))):
        selection = selector.select(q, k)
        for counted in ("causal", "executed"):
            share = density(selection.mask, selection.segment_size, selection.block_size, counted=counted).mean()
            shares[name, counted] = float(share)
        measurement.add("selected_density", shares[name, "causal"], method=name)
        measurement.add("executed_density", shares[name, "executed"], method=name)
        measurement.add("selected_blocks", shares[name, "causal"] * blocks_in_all, "blocks", method=name)
        del selection  # masks of 128K tokens are large
    fewer = 100 * (1 - shares["last_block", "causal"] / shares["none", "causal"])
    measurement.add("fewer_blocks", fewer, "%", method="last_block", than="none")
    progress.step("selections counted")

    stages = Stages(method, q, k, v)
    times = {}
    for stage in ("permute", "select", "attention", "total"):
        function = getattr(stages, stage)
        times[stage] = median_milliseconds(function, context.device, s.repeat_milliseconds)
        measurement.add("time", times[stage], "ms", method="pbs_attn", timing=True, stage=stage)
        progress.step(f"{stage}: {times[stage]:.3f} ms")
    overhead = 100 * (times["permute"] + times["select"]) / times["total"]
    measurement.add("overhead", overhead, "%", method="pbs_attn", timing=True)
    for name in s.dense:
        time = median_milliseconds(dense_attention(name, q, k, v), context.device, s.repeat_milliseconds)
        measurement.add("time", time, "ms", method=name, timing=True, stage="total")
        measurement.add("speed_up", time / times["total"], "x", method="pbs_attn", timing=True, over=name)
        progress.step(f"dense {name}: {time:.3f} ms")
    fastest = min(
        (row for row in measurement.rows if row.metric == "time" and row.method in s.dense), key=lambda row: row.value
    )
    measurement.add("speed_up", fastest.value / times["total"], "x", method="pbs_attn", timing=True, over="fastest dense")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
