"""Claims on the gate's design: block RoPE beyond the training length, and the pooling of queries and keys.

Gates trained on short sequences, tested at once, twice and four times their length. Rows of
`common.selector_comparison.compare_coverage` (`coverage_at_density` among them), and `pooling_rank`.
"""

from common.errors import InputError
from common.experiment import Context, Measurement, main
from common.records import Row
from common.selector_comparison import CoverageSettings, compare_coverage, load_subject
from papers.seer_attention.gates import ablation_families, seer_families


class Settings(CoverageSettings):
    """Axes and parameters of `config.yaml`, beyond those of the comparison.

    Attributes:
        gates: training that made the gates for long sequences.
        short_gates: training of the ablations, whose gates have names of their own.
        poolings: those of its gates that differ in their poolings alone.
        best_pooling: the one that the paper found best.
    """

    gates: str
    short_gates: str
    poolings: list[str]
    best_pooling: str


def add_rank(measurement: Measurement, poolings: list[str], best: str) -> None:
    """Rows `pooling_rank`: how many poolings cover no less than `best` at a density, itself among them; 1 is the best rank.

    Raises:
        InputError: `best` is not among the poolings.
    """
    if best not in poolings:
        raise InputError(f"best_pooling is {best!r}; choose one of poolings: {', '.join(poolings)}.")
    rows = [row for row in measurement.rows if row.metric == "coverage_at_density" and row.method in poolings]
    for row in [row for row in rows if row.method == best]:
        others = [other for other in rows if other.setting == row.setting]
        rank = sum(other.value >= row.value for other in others)
        place = {"of": len(others), "density": row.setting["density"], "window": row.setting["window"]}
        measurement.rows.append(Row(metric="pooling_rank", value=rank, unit="1", method=best, setting=place))


def run(settings: Settings, context: Context) -> Measurement:
    """Sweep the gates over windows of a text."""
    model = load_subject(settings, settings.length, context.device).model
    with (
        seer_families(context, model, settings.gates, settings.block_size) as long,
        ablation_families(context, model, settings.short_gates, settings.block_size) as short,
    ):
        measurement = compare_coverage(settings, {**long, **short}, context)
    add_rank(measurement, settings.poolings, settings.best_pooling)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
