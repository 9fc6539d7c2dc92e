"""From predicted probabilities of death to rows: discrimination and calibration of each seed."""

from typing import Any

import numpy as np

from common.experiment import Measurement
from common.metrics.classification import calibration, discrimination


def auroc(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Of outputs [n, 1] and labels [n, 1]: what the best epoch is chosen by."""
    return discrimination(labels[:, 0], outputs[:, 0]).auroc


def add_scores(measurement: Measurement, labels: np.ndarray, probabilities: np.ndarray, *, method: str, **setting: Any) -> None:
    """Add the rows `auroc`, `auprc`, `brier`, `calibration_error`, `calibration_slope` and `calibration_intercept` of one seed.

    Args:
        measurement: to add to.
        labels: [n], 0 or 1.
        probabilities: [n].
        method: the model.
        setting: coordinates of the rows, such as the seed.
    """
    areas, agreement = discrimination(labels, probabilities), calibration(labels, probabilities)
    measurement.add("auroc", areas.auroc, method=method, **setting)
    measurement.add("auprc", areas.auprc, method=method, **setting)
    measurement.add("brier", agreement.brier, method=method, **setting)
    measurement.add("calibration_error", agreement.expected_error, method=method, **setting)
    measurement.add("calibration_slope", agreement.slope, method=method, **setting)
    measurement.add("calibration_intercept", agreement.intercept, method=method, **setting)
