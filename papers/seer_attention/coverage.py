"""Claim on coverage: do distilled gates keep more attention mass than selectors without training, at equal density?

Rows of `common.selector_comparison.compare_coverage`: `density`, `coverage` and `coverage_at_density`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import CoverageSettings, baseline_families, compare_coverage, load_subject
from papers.seer_attention.gates import seer_families


class Settings(CoverageSettings):
    """Axes and parameters of `config.yaml`, beyond those of the comparison.

    Attributes:
        gates: training that made the gates.
    """

    gates: str


def run(settings: Settings, context: Context) -> Measurement:
    """Sweep the gates and the baselines over windows of a text."""
    model = load_subject(settings, settings.length, context.device).model
    with seer_families(context, model, settings.gates, settings.block_size) as ours:
        return compare_coverage(settings, {**baseline_families(settings.block_size), **ours}, context)


if __name__ == "__main__":
    main(run, Settings)
