"""What block-sparse attention methods share: selections, coverage and density, baselines, the transformers plug."""

from common.sparse_attention.block_mass import block_attention_mass, block_attention_masses
from common.sparse_attention.coverage import (
    OracleCurve,
    coverage,
    density,
    density_at_coverage,
    oracle_curve,
    selection_coverage,
    selection_density,
)
from common.sparse_attention.dense import Dense, causal_selection
from common.sparse_attention.flexprefill import FlexPrefill
from common.sparse_attention.mean_pooling import MeanPooling
from common.sparse_attention.oracle import Oracle, oracle_mask
from common.sparse_attention.selection import KeySelection, Selection, Selector, sparse_attention
from common.sparse_attention.streaming import StreamingLLM
from common.sparse_attention.structured_inputs import StructuredInputs, structured_inputs
from common.sparse_attention.vertical_slash import VerticalSlash
from common.sparse_attention.xattention import XAttention

__all__ = [
    "Dense",
    "FlexPrefill",
    "KeySelection",
    "MeanPooling",
    "Oracle",
    "OracleCurve",
    "Selection",
    "Selector",
    "StreamingLLM",
    "StructuredInputs",
    "VerticalSlash",
    "XAttention",
    "block_attention_mass",
    "block_attention_masses",
    "causal_selection",
    "coverage",
    "density",
    "density_at_coverage",
    "oracle_curve",
    "oracle_mask",
    "selection_coverage",
    "selection_density",
    "sparse_attention",
    "structured_inputs",
]
