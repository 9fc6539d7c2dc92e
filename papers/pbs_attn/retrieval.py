"""What is hidden in long prompts (passkey, RULER) and found again with PBS-Attn and mean pooling.

Rows as of `compare_retrieval`: `score`, `answer_negative_log_likelihood`, `density`, by `trial` and `threshold`.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import RetrievalSettings, compare_retrieval
from papers.pbs_attn.comparison import compared_families


class Settings(RetrievalSettings):
    """Axes and parameters of `config.yaml`, beyond those of every comparison.

    Attributes:
        segment_size: S.
    """

    segment_size: int


def run(settings: Settings, context: Context) -> Measurement:
    """Scores and losses of the answers, on the same prompts."""
    return compare_retrieval(settings, compared_families(settings.block_size, settings.segment_size), context)


if __name__ == "__main__":
    main(run, Settings)
