"""Travelling salesman: tours of pointer networks that learned from exact and from approximate solutions (Table 2)."""

from functools import cache
from typing import Any

from torch import Tensor

from common.experiment import Context, Measurement, main
from papers.pointer_networks.decoding import ClosedTours
from papers.pointer_networks.examples import Examples
from papers.pointer_networks.learning import LearningSettings, TaskRules, learn, read_test_set, test_all
from papers.pointer_networks.tour_references import mean_of_parts, reference_lengths
from papers.pointer_networks.travelling_salesman import tour_scores


class Settings(LearningSettings):
    """Axes and parameters of `config.yaml`, beyond those of `LearningSettings`.

    Attributes:
        paired_lengths: numbers of cities whose tours are also given as means over parts of the test set, to be paired with the
            solvers' tours.
        parts: how many parts.
    """

    paired_lengths: list[int]
    parts: int


def score(examples: Examples, sequences: Tensor) -> dict[str, float]:
    """`length`, the mean over valid tours, and `invalid`, the share of other outputs in percent."""
    scores = tour_scores(examples.points, sequences)
    invalid = {"invalid": 100 * scores.invalid_share}
    return {**invalid, "length": scores.mean_length} if bool(scores.valid.any()) else invalid


RULES = TaskRules("travelling_salesman", score, ClosedTours(), longest=lambda n, true_length: n + 2)


def run(settings: Settings, context: Context) -> Measurement:
    """Train, then test on every length."""
    measurement = Measurement()
    trained = learn(settings, RULES, context, measurement)
    method = settings.chosen.method

    @cache
    def reference(n: int) -> float:
        return float(reference_lengths(read_test_set(settings, RULES, n, context.device).points).mean())

    def compare(examples: Examples, sequences: Tensor, place: dict[str, Any]) -> None:
        """Rows of restricted decodings, where every output is a tour: over the reference, and by part."""
        if place["decoding"] != "valid":
            return
        lengths = tour_scores(examples.points, sequences).lengths
        ratio = float(lengths.mean()) / reference(examples.size)
        measurement.add("length_ratio", ratio, method=method, **place)
        if examples.size in settings.paired_lengths:
            for part, mean in enumerate(mean_of_parts(lengths, settings.parts)):
                measurement.add("length_of_part", mean, method=method, part=part, **place)

    test_all(settings, RULES, trained, context, measurement, further=compare)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
