"""LongBench, which you bring: is it answered as well when the prefill reads the blocks of the gates?

Rows as of `compare_longbench`: `score` and `density` by `example` and `threshold`, `relative_score`, `prompt_tokens`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import LongBenchSettings, baseline_families, compare_longbench, load_subject
from papers.seer_attention.gates import seer_families


class Settings(LongBenchSettings):
    """Axes and parameters of `config.yaml`, beyond those of the comparison.

    Attributes:
        gates: training that made the gates.
    """

    gates: str


def run(settings: Settings, context: Context) -> Measurement:
    """Answer the prompts with dense attention, the gates and the baselines."""
    model = load_subject(settings, settings.context_tokens, context.device).model
    with seer_families(context, model, settings.gates, settings.block_size) as ours:
        return compare_longbench(settings, {**baseline_families(settings.block_size), **ours}, context)


if __name__ == "__main__":
    main(run, Settings)
