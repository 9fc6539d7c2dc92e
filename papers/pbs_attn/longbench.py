"""LongBench, which you bring, with PBS-Attn, its baselines and dense attention.

Rows as of `compare_longbench`: `score` and `density` by `example` and `threshold`, `relative_score`, `prompt_tokens`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import LongBenchSettings, compare_longbench
from papers.pbs_attn.comparison import compared_families


class Settings(LongBenchSettings):
    """Axes and parameters of `config.yaml`, beyond those of every comparison.

    Attributes:
        segment_size: S.
    """

    segment_size: int


def run(settings: Settings, context: Context) -> Measurement:
    """Scores of the answers, on the same prompts."""
    return compare_longbench(settings, compared_families(settings.block_size, settings.segment_size), context)


if __name__ == "__main__":
    main(run, Settings)
