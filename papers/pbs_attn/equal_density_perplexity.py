"""How well the model predicts text with PBS-Attn and mean pooling, at equal density.

Rows as of `compare_perplexity`: `negative_log_likelihood`, `density`, `negative_log_likelihood_at_density`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import PerplexitySettings, compare_perplexity
from papers.pbs_attn.comparison import compared_families


class Settings(PerplexitySettings):
    """Axes and parameters of `config.yaml`, beyond those of every comparison.

    Attributes:
        segment_size: S.
    """

    segment_size: int


def run(settings: Settings, context: Context) -> Measurement:
    """Negative log-likelihood and density, over windows of a text."""
    return compare_perplexity(settings, compared_families(settings.block_size, settings.segment_size), context)


if __name__ == "__main__":
    main(run, Settings)
