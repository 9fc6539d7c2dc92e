"""How much does the convention alone move P_k, and does the order of systems survive it? From records of other experiments."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from common.configuration import Parameters
from common.errors import DataError
from common.experiment import Context, Measurement, main
from common.figures import rows_where


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        experiments: whose records are read; data sets that the first does not have are left out.
        standard: the convention that others are compared with.
        readings: pairs of data sets that are two readings of the same documents.
    """

    experiments: list[str]
    standard: str
    readings: list[tuple[str, str]]


def _column(rows: pd.DataFrame, name: str) -> np.ndarray:
    """A setting as text; empty where a row, or every row, lacks it."""
    texts = rows[name].fillna("").astype(str).tolist() if name in rows else [""] * len(rows)
    return np.array(texts, dtype=object)


def system_scores(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean of a metric over seeds: one line a data set and system, one column a convention.

    A system is a method, with `count known` where it is told the number of segments, and with its training set where that may
    be another than the test set. The reading of label changes is a data set of its own.
    """
    rows = rows_where(table, metric=metric)
    if rows.empty:
        raise DataError(f"The records hold no {metric}. Run the experiments of this paper first.")
    trained_on, tested_on = _column(rows, "trained_on"), _column(rows, "tested_on")
    system = _column(rows, "method") + np.where(_column(rows, "count") == "known", ", count known", "")
    system += np.where(trained_on == "", "", ", trained on " + trained_on)
    data_set = np.where(tested_on == "", _column(rows, "data_set"), tested_on)
    data_set = data_set + np.where(_column(rows, "reading") == "label_changes", "-label-changes", "")
    return rows.assign(system=system, data_set=data_set).pivot_table(
        index=["data_set", "system"], columns="convention", values="value"
    )


def agreement(scores: np.ndarray) -> float | None:
    """Kendall's τ of two scores of the same systems.

    Args:
        scores: float [systems, 2]; a system that lacks one of the two has no part.

    Returns:
        None where one side is constant or fewer than three systems have both.
    """
    both = scores[np.isfinite(scores).all(axis=1)]
    if len(both) < 3 or (np.ptp(both, axis=0) == 0).any():
        return None
    return float(kendalltau(both[:, 0], both[:, 1])[0])  # pyright: ignore[reportArgumentType]


def turned_pairs(scores: np.ndarray) -> float:
    """Percentage of the pairs of systems whose order turns from one score to the other.

    Args:
        scores: float [systems, 2]; a system that lacks one of the two has no part.
    """
    differences = [a - b for a, b in combinations(scores[np.isfinite(scores).all(axis=1)], 2)]
    return 100 * sum(bool(left * right < 0) for left, right in differences) / max(len(differences), 1)


def run(settings: Settings, context: Context) -> Measurement:
    """Ranges over conventions, agreement of orders with the standard one, and pairs of systems whose order turns.

    Rows: `pk_range`, `pk_rank_agreement`, `pk_turned_pairs` and, between readings of a reference, `pk_reading_agreement`; the
    same of WindowDiff.
    """
    measurement = Measurement()
    table = pd.concat([context.results_of(experiment).table() for experiment in settings.experiments], ignore_index=True)
    first = context.results_of(settings.experiments[0]).table()
    known = set(system_scores(first, "pk").index.get_level_values("data_set"))
    progress = context.progress(2)
    for metric in ("pk", "window_diff"):
        scores = system_scores(table, metric)
        scores = scores[scores.index.get_level_values("data_set").isin(known)]
        values = scores.to_numpy(dtype=np.float64)
        data_sets = np.array(scores.index.get_level_values("data_set"))
        systems = np.array(scores.index.get_level_values("system"))
        standard = values[:, list(scores.columns).index(settings.standard)]
        for data_set, system, line in zip(data_sets, systems, values, strict=True):
            spread = np.nanmax(line) - np.nanmin(line)
            measurement.add(f"{metric}_range", spread, "%", method=str(system), data_set=str(data_set))
        for data_set in dict.fromkeys(data_sets):
            here = data_sets == data_set
            for convention, column in zip(scores.columns, values.T, strict=True):
                if convention != settings.standard:
                    pair = np.stack([standard[here], column[here]], axis=1)
                    tau = agreement(pair)
                    if tau is not None:
                        measurement.add(f"{metric}_rank_agreement", tau, data_set=str(data_set), convention=str(convention))
                    turned = turned_pairs(pair)
                    measurement.add(f"{metric}_turned_pairs", turned, "%", data_set=str(data_set), convention=str(convention))
        for one, other in settings.readings:
            by_system = [
                dict(zip(systems[data_sets == name], standard[data_sets == name], strict=True)) for name in (one, other)
            ]
            common = [system for system in by_system[0] if system in by_system[1]]
            tau = agreement(np.array([[side[system] for side in by_system] for system in common]).reshape(-1, 2))
            if tau is not None:
                measurement.add(f"{metric}_reading_agreement", tau, data_set=one, other=other)
        progress.step(metric)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
