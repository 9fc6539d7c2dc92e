"""Speed at equal coverage: how long search and attention take beside dense attention and selectors of blocks.

Rows of `common.selector_comparison.compare_selection_time`: `selection_time`, `attention_time`, `total_time`, `speed_up` and
others. The threshold of `hip` is k.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import SelectionTimeSettings as Settings
from common.selector_comparison import compare_selection_time
from papers.hip_attention.families import families


def run(settings: Settings, context: Context) -> Measurement:
    """Time key lists and the baselines."""
    return compare_selection_time(settings, families(settings.block_size), context)


if __name__ == "__main__":
    main(run, Settings)
