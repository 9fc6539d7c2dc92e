"""What the experiments share: test trained methods and write the rows that claims compare."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.data.bags import PaddedBags
from common.experiment import Measurement
from papers.acmil.evaluation import TOP, add_map_rows, classification_scores, test_scores
from papers.acmil.models import Method
from papers.acmil.training import Run, SideBySide

ABMIL = "abmil"
Found = dict[str, list[dict[str, np.ndarray]]]


def masks_in_training(method: Method) -> bool:
    """Whether STKIM takes anything out."""
    return method.model in ("acmil", "acmil_mha") and method.K > 0 and method.p > 0


def labels_of(bags: PaddedBags, numbers: np.ndarray) -> np.ndarray:
    """Labels of bags: int64 [bags]."""
    return bags.labels.cpu().numpy()[numbers]


def add_scores_of_runs(
    measurement: Measurement, networks: Mapping[str, SideBySide], bags: PaddedBags, runs: Sequence[Run]
) -> Found:
    """Test every method on every run and add the rows.

    Rows by method and the run's place: `auc`, `f1_macro`, `accuracy`, those of `add_map_rows`; with STKIM also at test time
    `auc_masked_at_test` and `masking_at_test_no_better` (1 or 0); and what `add_spread_rows` adds.
    """
    every: Found = {}
    for name, network in networks.items():
        every[name] = test_scores(network, runs)
        masked = test_scores(network, runs, masking=True) if masks_in_training(network.method) else None
        for number, (run, found) in enumerate(zip(runs, every[name], strict=True)):
            labels = labels_of(bags, run.test)
            scores = classification_scores(labels, found["probabilities"])
            for metric, value in scores.items():
                measurement.add(metric, value, method=name, **run.place)
            add_map_rows(measurement, found, method=name, **run.place)
            if masked is not None:
                auc = classification_scores(labels, masked[number]["probabilities"])["auc"]
                add_masked_rows(measurement, scores["auc"], auc, method=name, **run.place)
    add_spread_rows(measurement, every, [run.place for run in runs])
    return every


def add_masked_rows(measurement: Measurement, auc: float, auc_masked: float, *, method: str, **place: Any) -> None:
    """Rows `auc_masked_at_test`, and `masking_at_test_no_better`: whether it is at most the AUC without."""
    measurement.add("auc_masked_at_test", auc_masked, method=method, **place)
    measurement.add("masking_at_test_no_better", auc_masked <= auc, method=method, **place)


def add_spread_rows(measurement: Measurement, every: Found, places: Sequence[Mapping[str, Any]]) -> None:
    """Rows `top10_drop`: the top-10 attention of ABMIL less that of each method with a heat map, mean over a seed's bags."""
    if ABMIL not in every:
        return
    for name, found in every.items():
        if name == ABMIL or "cumulative" not in found[0]:
            continue
        drops: dict[int, list[float]] = {}
        for place, theirs, ours in zip(places, every[ABMIL], found, strict=True):
            drop = theirs["cumulative"][:, TOP - 1].mean() - ours["cumulative"][:, TOP - 1].mean()
            drops.setdefault(place["seed"], []).append(float(drop))
        for seed, each in drops.items():
            measurement.add("top10_drop", np.mean(each), method=name, seed=seed)


def keep_cumulative_attention(measurement: Measurement, every: Found) -> None:
    """Arrays `cumulative_<method>`: cumulative attention, mean over test bags of each run, float32 [runs, 50]."""
    for name, found in every.items():
        if "cumulative" in found[0]:
            measurement.arrays[f"cumulative_{name}"] = np.stack([one["cumulative"].mean(0) for one in found])


def add_mean_gain(measurement: Measurement, methods: Sequence[str]) -> None:
    """Rows `mean_auc_gain`: the mean AUC of each method less ABMIL's, over all rows."""

    def mean_auc(method: str) -> float:
        return float(np.mean([row.value for row in measurement.rows if row.metric == "auc" and row.method == method]))

    if ABMIL in methods:
        for method in methods:
            if method != ABMIL:
                measurement.add("mean_auc_gain", mean_auc(method) - mean_auc(ABMIL), method=method)
