"""Quality: what is hidden in long prompts (passkey, RULER) and found again, with the method and the baselines.

Rows as of `compare_retrieval`: `score`, `answer_negative_log_likelihood`, `density`, by `trial` and `threshold`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import RetrievalSettings, compare_retrieval
from papers.proxy_attn.methods import compared_families


class Settings(RetrievalSettings):
    """Axes and parameters of `config.yaml`, beyond those of every comparison.

    Attributes:
        groups: g, the number of proxy heads.
        minimum_budget: tokens, of `proxy_attn_minimum`.
    """

    groups: int
    minimum_budget: int


def run(settings: Settings, context: Context) -> Measurement:
    """Scores and losses of the answers with the method, the baselines and dense attention, on the same prompts."""
    return compare_retrieval(
        settings, compared_families(settings.block_size, settings.groups, settings.minimum_budget), context
    )


if __name__ == "__main__":
    main(run, Settings)
