"""LongBench, which you bring: is it answered as well when the prefill reads key lists?

Rows of `common.selector_comparison.compare_longbench`: `score` and `density` by `example` and `threshold`, `relative_score`,
`prompt_tokens`. The threshold of `hip` is k.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import LongBenchSettings as Settings
from common.selector_comparison import compare_longbench
from papers.hip_attention.families import families


def run(settings: Settings, context: Context) -> Measurement:
    """Answer the prompts with dense attention, key lists and the baselines."""
    return compare_longbench(settings, families(settings.block_size), context)


if __name__ == "__main__":
    main(run, Settings)
