"""How well is the remaining length of stay predicted in ten classes? (Table III)."""

import numpy as np
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from papers.tscan.mortality import regression, tensors_of
from papers.tscan.networks import NetworkSizes, initialised, make_network
from papers.tscan.stays import DataName, Stays, load, split
from papers.tscan.training import Fitting, fit, predict, same_rows

EDGES = (1, 2, 3, 4, 5, 6, 7, 8, 14)
"""Days at which the benchmark's classes begin, from the second: under a day, by day to 8, 8 to 14, 14 and more."""
OBSERVED_DAYS = 2


class Settings(Parameters):
    """Axes and parameters of `config.yaml`: as in `mortality`."""

    model: str
    data_set: DataName
    seeds: list[int]
    sizes: NetworkSizes
    fitting: Fitting
    inverse_penalties: list[float]


def classes_of(days: np.ndarray) -> np.ndarray:
    """Class 0..9 of remaining days."""
    return np.digitize(days, EDGES)


def kappa(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Cohen's kappa with linear weights, of the most probable class. outputs [n, 10], labels [n]; 0 where only one class is."""
    predicted = outputs.argmax(1)
    if len(set(predicted) | set(labels)) < 2:
        return 0.0
    return float(cohen_kappa_score(labels, predicted, weights="linear", labels=np.arange(len(EDGES) + 1)))


def class_hours(days: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Mean hours of each class on training stays; a class that none has takes the middle of all. float64 [10]."""
    hours = 24 * days
    return np.array([hours[classes == k].mean() if (classes == k).any() else hours.mean() for k in range(len(EDGES) + 1)])


def known_lengths(stays: Stays) -> tuple[Stays, np.ndarray]:
    """The stays whose length is known, and their remaining days after the first two."""
    keep = np.flatnonzero(~np.isnan(stays.days))
    place = {row: number for number, row in enumerate(keep)}
    fields = {
        name: getattr(stays, name)[keep]
        for name in ("values", "observed", "since", "summary", "died", "days", "saps", "sofa")
    }  # fmt: skip
    rows = {
        name: np.array([place[row] for row in getattr(stays, name) if row in place])
        for name in ("learning", "test")
    }  # fmt: skip
    chosen = Stays(**fields, **rows)
    return chosen, (chosen.days - OBSERVED_DAYS).clip(min=0)


def run(settings: Settings, context: Context) -> Measurement:
    """Train with every seed: rows `kappa` and `mean_absolute_deviation` (hours)."""
    measurement = Measurement()
    stays, days = known_lengths(load(settings.data_set))
    classes = classes_of(days)
    # Split by death: rare classes of few stays could not be split evenly.
    splits = [split(stays.died, stays.learning, seed) for seed in settings.seeds]
    if settings.model == "logistic_regression":
        found = []
        for seed, (training, _) in zip(settings.seeds, splits, strict=True):
            present = np.unique(classes[training])
            seen = np.searchsorted(present, classes).clip(max=len(present) - 1)
            probabilities, _ = regression(
                stays, seen, seed, settings.inverse_penalties, lambda p, y: kappa(p, y), stratum=stays.died
            )  # fmt: skip
            wide = np.zeros((len(probabilities), len(EDGES) + 1))
            wide[:, present] = probabilities
            found.append(wide)
        outputs = np.stack(found)
    else:
        tensors = tensors_of(stays, classes.astype(np.int64), context.device, gaps=settings.model == "gru_d")
        hours, variables = stays.values.shape[1:]

        def make():
            return make_network(
                settings.model, settings.sizes, hours=hours, variables=variables, outputs=len(EDGES) + 1  # pyright: ignore[reportArgumentType]
            )  # fmt: skip

        fitted = fit(
            [initialised(make, seed) for seed in settings.seeds],
            tensors,
            [rows for rows, _ in splits],
            [rows for _, rows in splits],
            settings.fitting,
            kappa,
            seeds=settings.seeds,
        )
        outputs = predict(fitted.networks, tensors, same_rows(tensors, stays.test, len(settings.seeds)))
    for seed, (training, _), row in zip(settings.seeds, splits, outputs, strict=True):
        hours_of = class_hours(days[training], classes[training])
        error = mean_absolute_error(24 * days[stays.test], hours_of[row.argmax(1)])
        measurement.add("kappa", kappa(row, classes[stays.test]), method=settings.model, seed=seed)
        measurement.add("mean_absolute_deviation", error, "h", method=settings.model, seed=seed)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
