"""Logistic regression on the MIMIC-III benchmark's features: six statistics of each variable over seven parts of the stay."""

import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression

PARTS = ((0.0, 1.0), (0.0, 0.1), (0.0, 0.25), (0.0, 0.5), (0.5, 1.0), (0.75, 1.0), (0.9, 1.0))
"""The whole, the first 10%, 25%, 50%, and the last 50%, 25%, 10%."""


def summary_features(values: np.ndarray) -> np.ndarray:
    """Minimum, maximum, mean, standard deviation, skewness and count of what was observed in each part.

    Args:
        values: [stays, hours, variables]; NaN where nothing was observed.

    Returns:
        float64 [stays, 7 * 6 * variables]; NaN for a statistic of nothing, 0 for its count.
    """
    hours = values.shape[1]
    features = []
    for start, end in PARTS:
        part = values[:, int(np.floor(start * hours)) : max(int(np.ceil(end * hours)), 1)].astype(np.float64)
        count = (~np.isnan(part)).sum(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of empty slices: those are NaN, as wanted
            mean, deviation = np.nanmean(part, axis=1), np.nanstd(part, axis=1)
            third = np.nanmean((part - mean[:, None]) ** 3, axis=1)
            skew = np.where(deviation > 1e-9, third / np.where(deviation > 1e-9, deviation, 1) ** 3, 0.0)
            skew = np.where(count > 0, skew, np.nan)
            features += [np.nanmin(part, axis=1), np.nanmax(part, axis=1), mean, deviation, skew, count]
    return np.concatenate(features, axis=1)


def standardised(features: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Mean imputation and z-scores by the statistics of the training rows; a constant or empty column becomes 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        mean, deviation = np.nanmean(features[training], axis=0), np.nanstd(features[training], axis=0)
    mean = np.nan_to_num(mean)
    deviation = np.where(np.nan_to_num(deviation) > 1e-9, deviation, 1.0)
    scaled = (np.where(np.isnan(features), mean, features) - mean) / deviation
    return scaled.clip(-20, 20)  # a value far outside the training range must not decide alone


def fit(features: np.ndarray, labels: np.ndarray, C: float) -> LogisticRegression:
    """L2-regularised logistic regression, multinomial for more than two labels. Deterministic."""
    return LogisticRegression(C=C, max_iter=500).fit(features, labels)
