"""Claims on speed: estimation is a small share of dense attention, and the whole is faster than other selectors.

Rows as of `compare_selection_time`: `selection_time`, `attention_time`, `total_time`, `selection_share` and `speed_up` `over`
dense kernels, `density`, `coverage`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import SelectionTimeSettings, compare_selection_time
from papers.proxy_attn.methods import compared_families


class Settings(SelectionTimeSettings):
    """Axes and parameters of `config.yaml`, beyond those of every comparison.

    Attributes:
        groups: g, the number of proxy heads.
        minimum_budget: tokens, of `proxy_attn_minimum`.
    """

    groups: int
    minimum_budget: int


def run(settings: Settings, context: Context) -> Measurement:
    """Time selection and attention of the method and the baselines beside dense kernels."""
    return compare_selection_time(
        settings, compared_families(settings.block_size, settings.groups, settings.minimum_budget), context
    )


if __name__ == "__main__":
    main(run, Settings)
