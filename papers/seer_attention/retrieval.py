"""Retrieval: is what is hidden in a long prompt still found when its prefill reads the blocks of the gates (RULER)?

Rows of `common.selector_comparison.compare_retrieval`: `score`, `answer_negative_log_likelihood` and `density`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import RetrievalSettings, baseline_families, compare_retrieval, load_subject
from papers.seer_attention.gates import seer_families


class Settings(RetrievalSettings):
    """Axes and parameters of `config.yaml`, beyond those of the comparison.

    Attributes:
        gates: training that made the gates.
    """

    gates: str


def run(settings: Settings, context: Context) -> Measurement:
    """Answer the prompts with dense attention, the gates and the baselines."""
    model = load_subject(settings, settings.length, context.device).model
    with seer_families(context, model, settings.gates, settings.block_size) as ours:
        return compare_retrieval(settings, {**baseline_families(settings.block_size), **ours}, context)


if __name__ == "__main__":
    main(run, Settings)
