"""How long selection and attention take with PBS-Attn and mean pooling, on the same terms as in other papers.

Rows as of `compare_selection_time`: `selection_time`, `attention_time`, `total_time`, `selection_share` and `speed_up` `over`
dense kernels, `density`, `coverage`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import SelectionTimeSettings, compare_selection_time
from papers.pbs_attn.comparison import compared_families


class Settings(SelectionTimeSettings):
    """Axes and parameters of `config.yaml`, beyond those of every comparison.

    Attributes:
        segment_size: S.
    """

    segment_size: int


def run(settings: Settings, context: Context) -> Measurement:
    """Time selection and attention beside dense kernels."""
    return compare_selection_time(settings, compared_families(settings.block_size, settings.segment_size), context)


if __name__ == "__main__":
    main(run, Settings)
