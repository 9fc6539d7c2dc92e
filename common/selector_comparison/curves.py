"""Names and curves of the comparison that need no tensors: what figures and tables of records use."""

import numpy as np
from numpy.typing import ArrayLike

from common.errors import InputError

DENSE, ORACLE = "dense", "oracle"


def value_at_density(densities: ArrayLike, values: ArrayLike, wanted: float) -> float | None:
    """Value of a sweep at a density: on straight lines between its points, None outside of them.

    Args:
        densities: [P], of the points of the sweep, in any order.
        values: [P], theirs.
        wanted: density.

    Raises:
        InputError: there are no points, or not as many of one as of the other.
    """
    x, y = (np.asarray(points, dtype=np.float64) for points in (densities, values))
    if x.ndim != 1 or x.shape != y.shape or x.size == 0:
        raise InputError(f"densities have shape {x.shape} and values {y.shape}; give as many of both, at least one.")
    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    if not x[0] <= wanted <= x[-1]:
        return None
    before = int(np.searchsorted(x, wanted, side="right")) - 1
    if x[before] == wanted:
        return float(y[before])
    # By the share of the way, which lies in [0, 1]: a slope, as np.interp takes it, overflows where densities nearly coincide.
    way = (wanted - x[before]) / (x[before + 1] - x[before])
    return float((1 - way) * y[before] + way * y[before + 1])
