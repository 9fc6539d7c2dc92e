"""How much attention mass PBS-Attn covers beside mean pooling, at equal density.

Rows as of `compare_coverage`: `density`, `coverage`, `coverage_at_density`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import CoverageSettings, compare_coverage
from papers.pbs_attn.comparison import compared_families


class Settings(CoverageSettings):
    """Axes and parameters of `config.yaml`, beyond those of every comparison.

    Attributes:
        segment_size: S.
    """

    segment_size: int


def run(settings: Settings, context: Context) -> Measurement:
    """Coverage against density, over windows of a text."""
    return compare_coverage(settings, compared_families(settings.block_size, settings.segment_size), context)


if __name__ == "__main__":
    main(run, Settings)
