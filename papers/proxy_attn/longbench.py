"""LongBench, which you bring, with the method, the baselines and dense attention.

Rows as of `compare_longbench`: `score` and `density` by `example` and `threshold`, `relative_score`, `prompt_tokens`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import LongBenchSettings, compare_longbench
from papers.proxy_attn.methods import compared_families


class Settings(LongBenchSettings):
    """Axes and parameters of `config.yaml`, beyond those of every comparison.

    Attributes:
        groups: g, the number of proxy heads.
        minimum_budget: tokens, of `proxy_attn_minimum`.
    """

    groups: int
    minimum_budget: int


def run(settings: Settings, context: Context) -> Measurement:
    """Scores of the answers, on the same prompts."""
    return compare_longbench(
        settings, compared_families(settings.block_size, settings.groups, settings.minimum_budget), context
    )


if __name__ == "__main__":
    main(run, Settings)
