"""End-to-end speed: time to the first token of a whole model, dense and with HiP.

Rows of `common.selector_comparison.compare_prefill`: `prefill_time`, `prefill_speed_up` and `density`. Key lists have the size
k whatever a model attends to, so HiP reads what it finds with random weights, too.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import PrefillSettings as Settings
from common.selector_comparison import compare_prefill
from papers.hip_attention.families import families


def run(settings: Settings, context: Context) -> Measurement:
    """Time the forward pass that gives the first token."""
    return compare_prefill(settings, families(settings.block_size), context)


if __name__ == "__main__":
    main(run, Settings)
