"""HiP among the selectors that every paper is compared with: a family over k."""

from common.selector_comparison import Family, baseline_families
from papers.hip_attention.hip_attention import HierarchicalPruning


def families(block_size: int) -> dict[str, Family]:
    """The baselines with blocks of `block_size`, and `hip` with lists of k keys, its threshold, for every 64 queries.

    b_k, window and sink are those of the official code: 2, 256 and 16.
    """
    return {**baseline_families(block_size), "hip": lambda top_k: HierarchicalPruning(block_q=64, top_k=round(top_k / 2) * 2)}
