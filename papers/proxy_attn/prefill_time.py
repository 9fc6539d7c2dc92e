"""Claim on end-to-end speed: time to the first token of a whole model, dense and with the method.

Rows as of `compare_prefill`: `prefill_time`, `prefill_speed_up`, `density`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import PrefillSettings, compare_prefill
from papers.proxy_attn.methods import compared_families


class Settings(PrefillSettings):
    """Axes and parameters of `config.yaml`, beyond those of every comparison.

    Attributes:
        groups: g, the number of proxy heads.
        minimum_budget: tokens, of `proxy_attn_minimum`.
    """

    groups: int
    minimum_budget: int


def run(settings: Settings, context: Context) -> Measurement:
    """Time the forward pass that gives the first token."""
    return compare_prefill(settings, compared_families(settings.block_size, settings.groups, settings.minimum_budget), context)


if __name__ == "__main__":
    main(run, Settings)
