"""The normaliser: clip at percentiles, then subtract the mean and divide by the standard deviation, of training data alone."""

from dataclasses import dataclass

import numpy as np

from common.errors import InputError


@dataclass(frozen=True)
class Normaliser:
    """What was learnt from training data.

    Attributes:
        low: [columns], smallest value kept.
        high: [columns], greatest value kept.
        median: [columns], of what was observed, after clipping.
        mean: [columns], after clipping.
        deviation: [columns], standard deviation after clipping; 1 for a column that is constant or never observed.
    """

    low: np.ndarray
    high: np.ndarray
    median: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, percentiles: tuple[float, float] = (1.0, 99.0)) -> "Normaliser":
        """Learn from what was observed.

        Args:
            values: [..., columns]; NaN is left out. A column without any observation gets 0 for all but the deviation.
            percentiles: where to clip; (0, 100) clips nothing.

        Raises:
            InputError: the percentiles are not in order.
        """
        if not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise InputError(f"percentiles is {percentiles}; two of 0..100 in ascending order are needed, such as (1, 99).")
        flat = np.asarray(values, dtype=np.float64).reshape(-1, values.shape[-1])
        columns = [column[~np.isnan(column)] for column in flat.T]
        columns = [column if column.size else np.zeros(1) for column in columns]
        low, high = np.array([np.percentile(column, percentiles) for column in columns]).T
        clipped = [column.clip(a, b) for column, a, b in zip(columns, low, high, strict=True)]
        deviation = np.array([column.std() for column in clipped])
        # Rounding leaves a constant column with a deviation of about 1e-16 of its size.
        constant = deviation <= 1e-9 * np.maximum(1.0, np.abs([column.mean() for column in clipped]))
        return cls(
            low=low,
            high=high,
            median=np.array([np.median(column) for column in clipped]),
            mean=np.array([column.mean() for column in clipped]),
            deviation=np.where(constant, 1.0, deviation),
        )

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Clip and scale; NaN stays NaN. Returns float32 of the same shape."""
        if values.shape[-1:] != self.mean.shape:
            raise InputError(f"values has {values.shape[-1]} columns and the normaliser {self.mean.size}; they must agree.")
        return ((values.clip(self.low, self.high) - self.mean) / self.deviation).astype(np.float32)
