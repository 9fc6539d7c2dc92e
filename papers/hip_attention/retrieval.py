"""Retrieval: is what is hidden in a long prompt still found when its prefill reads key lists (passkey, RULER)?

Rows of `common.selector_comparison.compare_retrieval`: `score`, `answer_negative_log_likelihood` and `density`. The threshold
of `hip` is k.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import RetrievalSettings as Settings
from common.selector_comparison import compare_retrieval
from papers.hip_attention.families import families


def run(settings: Settings, context: Context) -> Measurement:
    """Answer the prompts with dense attention, key lists and the baselines."""
    return compare_retrieval(settings, families(settings.block_size), context)


if __name__ == "__main__":
    main(run, Settings)
