"""Intervals for the numbers in tables and verdicts."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from common.errors import InputError

RESAMPLES = 10_000


class Interval(NamedTuple):
    """A mean with its two-sided 95% interval; for a single item the interval is unknown (None)."""

    mean: float
    low: float | None
    high: float | None
    n: int


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Bootstrap interval of the mean (percentile method; the resampling is seeded, so the same values give the same interval).

    Args:
        values: float [n], one number an item (a seed, a text), n >= 1.
        confidence: two-sided level.

    Raises:
        InputError: no values, or values that are not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise InputError(
            f"values must be a non-empty vector of finite numbers; got shape {values.shape}: {values.ravel()[:5]}."
        )
    mean = float(values.mean())
    if values.size == 1:
        return Interval(mean, None, None, 1)
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean, values.size)
    result = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return Interval(mean, float(result.confidence_interval.low), float(result.confidence_interval.high), values.size)
