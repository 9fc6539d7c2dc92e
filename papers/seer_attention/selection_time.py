"""Claim on the gate's cost: how long gate and attention take beside dense attention and other selectors.

Rows of `common.selector_comparison.compare_selection_time`: `selection_time`, `selection_share`, `total_time`, `speed_up` and
others. The gate is untrained, which costs the same: it selects the density that it is told, and its `coverage` says nothing.
"""

from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from common.experiment import Context, Measurement, main
from common.language_models.load import SHAPES
from common.selector_comparison import (
    Family,
    SelectionTimeSettings,
    baseline_families,
    compare_selection_time,
)
from papers.seer_attention.seer_attention import AttentionGate
from papers.seer_attention.selector import SeerAttention, as_given, block_tables


class Settings(SelectionTimeSettings):
    """Axes and parameters of `config.yaml`, beyond those of the comparison.

    Attributes:
        rotary_of: architecture whose rotary embedding the gate takes (`common.language_models.load.SHAPES`).
    """

    rotary_of: str


def untrained_family(settings: Settings, device: str) -> Family:
    """SeerAttention with an untrained gate on queries and keys as they are given; swept is the density."""
    s = settings
    gate = AttentionGate(s.heads, s.key_heads, s.head_dim, seed=s.seed, block_size=s.block_size)
    rotary = LlamaRotaryEmbedding(LlamaConfig(**{**SHAPES[s.rotary_of], "head_dim": s.head_dim})).to(device)
    gates = [gate.to(device).requires_grad_(False)]
    return lambda density: SeerAttention(gates, block_tables(rotary), as_given, density=density)


def run(settings: Settings, context: Context) -> Measurement:
    """Time the gate and the baselines."""
    ours = {"seer_attention": untrained_family(settings, context.device)}
    return compare_selection_time(settings, {**baseline_families(settings.block_size), **ours}, context)


if __name__ == "__main__":
    main(run, Settings)
