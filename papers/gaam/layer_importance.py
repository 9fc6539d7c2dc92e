"""Do layers of a high importance factor serve better alone than layers of a low one?"""

from dataclasses import replace

import numpy as np
from scipy.stats import rankdata

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from papers.gaam.comparison import runs_of
from papers.gaam.importance_factor import importance_factor, layer_contributions
from papers.gaam.models import Method, Sizes
from papers.gaam.subjects import Subject, features_of
from papers.gaam.training import Schedule, scores_of, train_methods


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        data_set: which.
        subjects: data set -> how it is read.
        seeds: as in `comparison`.
        validation_share: as in `comparison`.
        gates: methods of `comparison` whose mean gates are read.
        method: trained on each layer alone.
        sizes: of its networks, but for the heads of a gate.
        schedules: data set -> optimisation.
        layers_at_once: trained side by side, each with all runs: what fits the memory.
    """

    data_set: str
    subjects: dict[str, Subject]
    seeds: list[int]
    validation_share: float
    gates: list[str]
    method: Method
    sizes: dict[str, int | list[int]]
    schedules: dict[str, Schedule]
    layers_at_once: int


def rank_correlation(importance: np.ndarray, accuracy: np.ndarray) -> float:
    """Spearman's correlation over layers; 0 where either is the same for all layers, since there is no order then."""
    if np.ptp(importance) == 0 or np.ptp(accuracy) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(importance), rankdata(accuracy))[0, 1])


def add_importance_rows(measurement: Measurement, name: str, gates: np.ndarray, accuracies: np.ndarray) -> None:
    """Importance of layers by a method's gate beside the accuracy of each layer alone.

    Rows by run: `layer_importance` (percent), `importance_rank_correlation`, `high_minus_low` (accuracy of the layer of the
    highest importance less that of the lowest); over runs `share_of_runs_high_wins`. Array `importance_<method>`.

    Args:
        measurement: to which they are added.
        name: of the method.
        gates: mean gates [R, N, d].
        accuracies: of each layer alone, in percent [R, N].
    """
    factors = np.stack([importance_factor(gate) for gate in gates])
    measurement.arrays[f"importance_{name}"] = factors.astype(np.float32)
    wins = []
    for run, (factor, accuracy) in enumerate(zip(factors, accuracies, strict=True)):
        contributions = layer_contributions(factor)
        for layer, contribution in enumerate(contributions, start=1):
            measurement.add("layer_importance", contribution, unit="%", method=name, layer=layer, run=run)
        difference = accuracy[contributions.argmax()] - accuracy[contributions.argmin()]
        measurement.add("importance_rank_correlation", rank_correlation(contributions, accuracy), method=name, run=run)
        measurement.add("high_minus_low", difference, unit="%", method=name, run=run)
        wins.append(difference > 0)
    measurement.add("share_of_runs_high_wins", np.mean(wins), method=name)


def run(settings: Settings, context: Context) -> Measurement:
    """Train on each layer alone, layers and runs side by side, and hold the importance from `comparison` against it."""
    features = features_of(settings.data_set, settings.subjects[settings.data_set], context)
    runs = runs_of(features, settings.seeds, settings.validation_share)
    N = features.layers
    sizes = Sizes.model_validate({"parts": 1, **settings.sizes})
    schedule = settings.schedules[settings.data_set]
    found = []
    for first in range(0, N, settings.layers_at_once):
        layers = range(first, min(first + settings.layers_at_once, N))
        alone = [replace(one, layers=np.array([layer])) for one in runs for layer in layers]
        method = {"alone": settings.method}
        trainer = train_methods(method, sizes, schedule, features, alone, context, label=f"layers-{first}")["alone"]
        found.append(scores_of(trainer).nested.reshape(len(runs), len(layers)))
    accuracies = np.concatenate(found, axis=1)
    measurement = Measurement()
    for one, of_run in zip(runs, accuracies, strict=True):
        for layer, accuracy in enumerate(of_run, start=1):
            measurement.add("layer_accuracy", accuracy, unit="%", layer=layer, run=one.number)
    records = context.results_of("comparison")
    (record,) = [one for one in records.records if one.axes["data_set"] == settings.data_set]
    arrays = records.arrays(record)
    for name in settings.gates:
        add_importance_rows(measurement, name, arrays[f"gate_{name}"], accuracies)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
