"""Delaunay triangulations of 5, 10 and 50 points (Section 4.3)."""

from torch import Tensor

from common.experiment import Context, Measurement, main
from papers.pointer_networks.delaunay import triangulation_scores
from papers.pointer_networks.examples import Examples
from papers.pointer_networks.learning import LearningSettings, TaskRules, learn, test_all


class Settings(LearningSettings):
    """Axes and parameters of `config.yaml`: see `LearningSettings`."""


def score(examples: Examples, sequences: Tensor) -> dict[str, float]:
    """In percent: `accuracy`, `coverage` (true triangles that were predicted), `precision` (predicted ones that are true)."""
    scores = triangulation_scores(examples.points, sequences, examples.sequences)
    metrics = {"accuracy": 100 * scores.accuracy, "coverage": 100 * scores.triangle_coverage}
    return {**metrics, "precision": 100 * scores.triangle_precision} if bool(scores.predicted.any()) else metrics


# n points have at most 2n - 5 triangles, three positions each, and the end follows.
RULES = TaskRules("delaunay", score, None, longest=lambda n, true_length: 3 * (2 * n - 5) + 1)


def run(settings: Settings, context: Context) -> Measurement:
    """Train, then test on every length."""
    measurement = Measurement()
    trained = learn(settings, RULES, context, measurement)
    test_all(settings, RULES, trained, context, measurement)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
