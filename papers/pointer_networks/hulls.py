"""Convex hulls: the three networks at 50 points, and one pointer network from 5 to 500 points (Table 1)."""

from torch import Tensor

from common.experiment import Context, Measurement, main
from papers.pointer_networks.convex_hull import hull_scores
from papers.pointer_networks.decoding import ClosedPolygons
from papers.pointer_networks.examples import Examples
from papers.pointer_networks.learning import LearningSettings, TaskRules, learn, test_all


class Settings(LearningSettings):
    """Axes and parameters of `config.yaml`: see `LearningSettings`."""


def score(examples: Examples, sequences: Tensor) -> dict[str, float]:
    """Metrics of hulls.

    In percent: `accuracy`, `accuracy_either_way` (the polygon may run clockwise), `area` (of the simple outputs), `not_simple`.
    `area_fail` is 1 where the paper prints FAIL.
    """
    scores = hull_scores(examples.points, sequences, examples.sequences)
    either_way = hull_scores(examples.points, sequences, examples.sequences, either_direction=True)
    metrics = {
        "accuracy": 100 * scores.accuracy,
        "accuracy_either_way": 100 * either_way.accuracy,
        "not_simple": 100 * scores.not_simple_share,
        "area_fail": float(scores.failed),
    }
    return {**metrics, "area": 100 * scores.area_coverage} if bool(scores.simple.any()) else metrics


# An output twice as long as every true one is wrong, and counts as one that is not simple.
RULES = TaskRules("convex_hull", score, ClosedPolygons(), longest=lambda n, true_length: min(n + 2, 2 * true_length))


def run(settings: Settings, context: Context) -> Measurement:
    """Train, then test on every length."""
    measurement = Measurement()
    trained = learn(settings, RULES, context, measurement)
    test_all(settings, RULES, trained, context, measurement)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
