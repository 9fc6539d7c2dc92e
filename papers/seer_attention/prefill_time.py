"""Claim on end-to-end speed: time to the first token of a whole model, dense and with SeerAttention.

Rows of `common.selector_comparison.compare_prefill`: `prefill_time`, `prefill_speed_up` and `density`. The pretrained subject
has its distilled gates, the random one untrained gates.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import PrefillSettings, baseline_families, compare_prefill
from common.selector_comparison.prefill_time import load_prefill_subject
from papers.seer_attention.gates import gated, seer_families
from papers.seer_attention.seer_attention import Pooling
from papers.seer_attention.training import GateSettings, make_gate


class Settings(PrefillSettings):
    """Axes and parameters of `config.yaml`, beyond those of the comparison.

    Attributes:
        gates: training that made the gates of the pretrained subject.
        queries: how the untrained gates pool queries.
        keys: how they pool keys.
    """

    gates: str
    queries: list[Pooling]
    keys: list[Pooling]


def run(settings: Settings, context: Context) -> Measurement:
    """Time the forward pass that gives the first token."""
    s = settings
    subject = load_prefill_subject(s, context.device)
    model, baselines = subject[0], baseline_families(s.block_size)
    if s.subject == "pretrained":
        with seer_families(context, model, s.gates, s.block_size) as ours:
            return compare_prefill(s, {**baselines, **ours}, context, subject=subject)
    kind = GateSettings(queries=s.queries, keys=s.keys)
    gate = make_gate(kind, model.config, block_size=s.block_size, seed=s.seed).to(context.device)
    with gated(model) as made:
        return compare_prefill(s, {**baselines, "seer_attention": made.by_density(gate)}, context, subject=subject)


if __name__ == "__main__":
    main(run, Settings)
