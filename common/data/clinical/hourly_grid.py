"""The discretiser: irregular measurements on a grid of hours, the last value of an hour wins, and gaps are filled forward."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import InputError


@dataclass(frozen=True)
class HourlyGrid:
    """Stays on a grid of hours.

    Attributes:
        values: float32 [stays, hours, variables]; NaN where nothing was measured.
        names: of the variables.
    """

    values: np.ndarray
    names: tuple[str, ...]

    @property
    def observed(self) -> np.ndarray:
        """Bool [stays, hours, variables]: where something was measured."""
        return ~np.isnan(self.values)


def last_in_each_hour(
    stay: np.ndarray,
    minute: np.ndarray,
    variable: np.ndarray,
    value: np.ndarray,
    *,
    stays: int,
    hours: int,
    names: Sequence[str],
) -> HourlyGrid:
    """Put measurements on a grid; of several in one hour the latest counts, and of those at one minute the last listed.

    Args:
        stay: int [n], 0..stays - 1.
        minute: since admission, [n]; the very end, minute 60 * hours, belongs to the last hour; later ones are left out.
        variable: int [n], index into `names`.
        value: float [n]; NaN counts as not measured.
        stays: how many.
        hours: length of the grid.
        names: of the variables.

    Raises:
        InputError: the columns differ in length, or an index or minute is out of range.
    """
    if len({len(column) for column in (stay, minute, variable, value)}) > 1:
        raise InputError("stay, minute, variable and value differ in length; give one of each for every measurement.")
    for name, column, limit in (("stay", stay, stays), ("variable", variable, len(names))):
        if len(column) and not (column.min() >= 0 and column.max() < limit):
            raise InputError(f"{name} lies in {column.min()}..{column.max()}; it must lie in 0..{limit - 1}.")
    if len(minute) and minute.min() < 0:
        raise InputError(f"minute is {minute.min()}; minutes count from admission, at least 0.")
    minute = np.asarray(minute, dtype=np.float64)
    keep = (minute <= 60 * hours) & ~np.isnan(np.asarray(value, dtype=np.float64))
    stay, minute, variable, value = stay[keep], minute[keep], variable[keep], value[keep]
    order = np.argsort(minute, kind="stable")  # where an index repeats, numpy's assignment keeps the last
    hour = np.minimum(minute // 60, hours - 1).astype(np.int64)
    values = np.full((stays, hours, len(names)), np.nan, dtype=np.float32)
    values[stay[order], hour[order], variable[order]] = value[order]
    return HourlyGrid(values, tuple(names))


def fill_forward(values: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Carry the last observation forward.

    Args:
        values: [stays, hours, variables], NaN where nothing was measured.
        before: [variables], what stands before the first observation, such as a median or a normal value.

    Returns:
        float32, the same shape, without NaN.

    Raises:
        InputError: `before` has another length, or is not finite.
    """
    if before.shape != values.shape[-1:] or not np.isfinite(before).all():
        raise InputError(f"before has shape {before.shape}; it needs a finite number for each of {values.shape[-1]} variables.")
    hours = values.shape[1]
    last = np.where(np.isnan(values), -1, np.arange(hours)[None, :, None])
    last = np.maximum.accumulate(last, axis=1)
    filled = np.take_along_axis(values, np.maximum(last, 0), axis=1)
    return np.where(last < 0, before[None, None], filled).astype(np.float32)


def hours_since_observed(observed: np.ndarray) -> np.ndarray:
    """δ of GRU-D (Che et al., 2018, Equation 2) on a grid of hours.

    δ_1 = 0; δ_t = 1 where hour t - 1 was observed, else 1 + δ_{t-1}.

    Args:
        observed: bool [stays, hours, variables].

    Returns:
        float32, the same shape.
    """
    since = np.zeros(observed.shape, dtype=np.float32)
    for hour in range(1, observed.shape[1]):
        since[:, hour] = np.where(observed[:, hour - 1], 1.0, 1.0 + since[:, hour - 1])
    return since
