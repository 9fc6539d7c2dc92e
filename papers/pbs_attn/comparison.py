"""PBS-Attn among other selectors, on the terms that the papers of the field share: families by threshold."""

from common.selector_comparison import Family, baseline_families
from papers.pbs_attn.pbs_attn import PBSAttention


def compared_families(block_size: int, segment_size: int) -> dict[str, Family]:
    """The baselines of every paper, and `pbs_attn` by tau.

    Args:
        block_size: B.
        segment_size: S.
    """
    return {
        **baseline_families(block_size),
        "pbs_attn": lambda tau: PBSAttention(block_size=block_size, segment_size=segment_size, tau=tau),
    }
