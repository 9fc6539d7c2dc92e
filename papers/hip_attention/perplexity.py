"""Quality: how well the model predicts text when its prefill reads key lists (PG19 and WikiText-2 of the paper).

Rows of `common.selector_comparison.compare_perplexity`: `negative_log_likelihood`, `density` and
`negative_log_likelihood_at_density`. The threshold of `hip` is k.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import PerplexitySettings as Settings
from common.selector_comparison import compare_perplexity
from papers.hip_attention.families import families


def run(settings: Settings, context: Context) -> Measurement:
    """Predict windows of a text with dense attention, key lists and the baselines."""
    return compare_perplexity(settings, families(settings.block_size), context)


if __name__ == "__main__":
    main(run, Settings)
