"""What block-sparse attention methods share: selections, coverage and density, baselines, the transformers plug."""

from common.sparse_attention.block_mass import block_attention_mass, block_attention_masses
from common.sparse_attention.coverage import OracleCurve, coverage, density, density_at_coverage, oracle_curve
from common.sparse_attention.dense import Dense, causal_selection
from common.sparse_attention.mean_pooling import MeanPooling
from common.sparse_attention.oracle import Oracle, oracle_mask
from common.sparse_attention.selection import Selection, Selector, sparse_attention
from common.sparse_attention.structured_inputs import StructuredInputs, structured_inputs

__all__ = [
    "Dense",
    "MeanPooling",
    "Oracle",
    "OracleCurve",
    "Selection",
    "Selector",
    "StructuredInputs",
    "block_attention_mass",
    "block_attention_masses",
    "causal_selection",
    "coverage",
    "density",
    "density_at_coverage",
    "oracle_curve",
    "oracle_mask",
    "sparse_attention",
    "structured_inputs",
]
