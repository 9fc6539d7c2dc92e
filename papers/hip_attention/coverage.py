"""Coverage at equal density: how much attention mass do key lists keep beside selectors of blocks?

Rows of `common.selector_comparison.compare_coverage`: `density`, `coverage` and `coverage_at_density`. The threshold
of `hip` is k.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import CoverageSettings as Settings
from common.selector_comparison import compare_coverage
from papers.hip_attention.families import families


def run(settings: Settings, context: Context) -> Measurement:
    """Sweep k and the baselines over windows of a text."""
    return compare_coverage(settings, families(settings.block_size), context)


if __name__ == "__main__":
    main(run, Settings)
