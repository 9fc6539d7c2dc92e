"""Quality: perplexity of a pretrained model with the method and the baselines, at equal density.

Rows as of `compare_perplexity`: `negative_log_likelihood`, `density`, `negative_log_likelihood_at_density`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import PerplexitySettings, compare_perplexity
from papers.proxy_attn.methods import compared_families


class Settings(PerplexitySettings):
    """Axes and parameters of `config.yaml`, beyond those of every comparison.

    Attributes:
        groups: g, the number of proxy heads.
        minimum_budget: tokens, of `proxy_attn_minimum`.
    """

    groups: int
    minimum_budget: int


def run(settings: Settings, context: Context) -> Measurement:
    """Negative log-likelihood and density of the method and the baselines, over windows of a text."""
    return compare_perplexity(
        settings, compared_families(settings.block_size, settings.groups, settings.minimum_budget), context
    )


if __name__ == "__main__":
    main(run, Settings)
