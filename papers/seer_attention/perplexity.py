"""Quality: how well the model predicts text when its prefill reads the blocks of its gates (PG19 tables of the paper).

Rows of `common.selector_comparison.compare_perplexity`: `negative_log_likelihood`, `density` and
`negative_log_likelihood_at_density`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import PerplexitySettings, baseline_families, compare_perplexity, load_subject
from papers.seer_attention.gates import ablation_families, seer_families


class Settings(PerplexitySettings):
    """Axes and parameters of `config.yaml`, beyond those of the comparison.

    Attributes:
        gates: training that made the gates.
        short_gates: training of the ablations, whose gates have names of their own.
    """

    gates: str
    short_gates: str


def run(settings: Settings, context: Context) -> Measurement:
    """Predict windows of a text with dense attention, the gates and the baselines."""
    model = load_subject(settings, settings.length, context.device).model
    size = settings.block_size
    with (
        seer_families(context, model, settings.gates, size) as ours,
        ablation_families(context, model, settings.short_gates, size) as short,
    ):
        return compare_perplexity(settings, {**baseline_families(size), **ours, **short}, context)


if __name__ == "__main__":
    main(run, Settings)
