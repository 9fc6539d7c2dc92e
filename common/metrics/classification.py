"""Metrics of predicted probabilities: discrimination (areas under curves) and calibration."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.stats import rankdata
from sklearn.metrics import auc, brier_score_loss, precision_recall_curve, roc_auc_score

from common.errors import InputError


class Discrimination(NamedTuple):
    """Areas under curves.

    Attributes:
        auroc: under the receiver operating characteristic.
        auprc: under the precision-recall curve by trapezoids, as the MIMIC-III benchmark has it; not the average precision.
    """

    auroc: float
    auprc: float


class Calibration(NamedTuple):
    """How far probabilities agree with frequencies.

    Attributes:
        brier: mean squared error of the probability.
        expected_error: mean |frequency - mean probability| over bins of equal counts, weighted by their counts.
        slope: b of the logistic regression of the label on a + b logit(p); 1 is calibrated, below 1 overconfident.
        intercept: a.
    """

    brier: float
    expected_error: float
    slope: float
    intercept: float


def _checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if labels.shape != probabilities.shape or labels.ndim != 1:
        raise InputError(f"labels {labels.shape} and probabilities {probabilities.shape} must be vectors of one length.")
    if not np.isfinite(probabilities).all() or set(np.unique(labels)) != {0, 1}:
        raise InputError("labels must be 0 and 1, each at least once, and probabilities finite numbers.")
    return labels, probabilities


def discrimination(labels: np.ndarray, probabilities: np.ndarray) -> Discrimination:
    """Areas under the two curves.

    Args:
        labels: [n], 0 or 1, both present.
        probabilities: [n], of label 1, or any score that rises with it.

    Raises:
        InputError: shapes differ, one label is absent, or a score is not finite.
    """
    labels, probabilities = _checked(labels, probabilities)
    precision, recall, _ = precision_recall_curve(labels, probabilities)
    return Discrimination(float(roc_auc_score(labels, probabilities)), float(auc(recall, precision)))


def calibration(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> Calibration:
    """Brier score, expected calibration error, and slope and intercept of recalibration.

    Args:
        labels: [n], 0 or 1, both present.
        probabilities: [n], in 0..1.
        bins: of nearly equal counts.

    Raises:
        InputError: as `discrimination`, or a probability is outside 0..1.
    """
    labels, probabilities = _checked(labels, probabilities)
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise InputError(f"probabilities lie in {probabilities.min()}..{probabilities.max()}; they must lie in 0..1.")
    _, counts, predicted, found = reliability(labels, probabilities, bins)
    logit = np.log(probabilities.clip(1e-7, 1 - 1e-7) / (1 - probabilities.clip(1e-7, 1 - 1e-7)))

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = x[0] + x[1] * logit
        error = 1 / (1 + np.exp(-z)) - labels
        return float((np.logaddexp(0, z) - labels * z).mean()), np.array([error.mean(), (error * logit).mean()])

    fitted = minimize(loss, np.array([0.0, 1.0]), jac=True, method="BFGS").x
    return Calibration(
        brier=float(brier_score_loss(labels, probabilities)),
        expected_error=float((counts * np.abs(predicted - found)).sum() / counts.sum()),
        slope=float(fitted[1]),
        intercept=float(fitted[0]),
    )


def reliability(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The reliability diagram: bins of nearly equal counts in the order of probability.

    Returns:
        Number of the bin, count, mean probability, and share of label 1; each [bins], empty bins left out.
    """
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return (
        np.arange(len(parts)),
        np.array([len(part) for part in parts]),
        np.array([probabilities[part].mean() for part in parts]),
        np.array([labels[part].mean() for part in parts]),
    )


def bootstrapped_aurocs(labels: np.ndarray, scores: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """AUROC of several scores on the same resamples of the cases, for intervals of their differences.

    Cases are drawn with replacement within each label, so that every resample has both.

    Args:
        labels: [n], 0 or 1, both present.
        scores: [m, n].
        resamples: how many.
        seed: of the draw.

    Returns:
        float64 [resamples, m].

    Raises:
        InputError: shapes do not fit, or one label is absent.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or not len(scores):
        raise InputError(f"scores has shape {scores.shape}; give one row of scores a model, at least one.")
    for row in scores:
        _checked(labels, row)
    rng = np.random.default_rng(seed)
    cases, controls = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    found = np.empty((resamples, len(scores)))
    for number in range(resamples):
        drawn = np.concatenate([rng.choice(cases, len(cases)), rng.choice(controls, len(controls))])
        ranks = rankdata(scores[:, drawn], axis=1)[:, : len(cases)]  # Mann-Whitney: ties share a rank
        found[number] = (ranks.sum(1) - len(cases) * (len(cases) + 1) / 2) / (len(cases) * len(controls))
    return found
