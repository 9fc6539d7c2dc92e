"""Claim on the scores: blocks ranked by proxy heads hold more attention mass than those of other selectors, at equal density.

Rows as of `compare_coverage`: `density`, `coverage`, `coverage_at_density`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import CoverageSettings, compare_coverage
from papers.proxy_attn.methods import compared_families


class Settings(CoverageSettings):
    """Axes and parameters of `config.yaml`, beyond those of every comparison.

    Attributes:
        groups: g, the number of proxy heads.
    """

    groups: int


def run(settings: Settings, context: Context) -> Measurement:
    """Coverage against density of the method and the baselines, over windows of a text."""
    return compare_coverage(settings, compared_families(settings.block_size, settings.groups), context)


if __name__ == "__main__":
    main(run, Settings)
