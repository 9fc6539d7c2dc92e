"""The importance factor (Section "Importance Factor" of the paper): which layers and features the gate lets through.

DA is the gate averaged over validation samples, [N, d]:

    IF_ij = (DA_ij - min DA) / (max DA - min DA)

with the minimum and maximum over all layers and features. A layer's contribution is the sum of its row, in percent of all rows.
"""

import numpy as np

from common.errors import InputError


def importance_factor(DA: np.ndarray) -> np.ndarray:
    """IF of a mean gate: [N, d] to [N, d], in 0..1; a constant gate makes no difference between layers and gives 0 everywhere.

    Raises:
        InputError: DA is not a finite matrix.
    """
    DA = np.asarray(DA, dtype=np.float64)
    if DA.ndim != 2 or not np.isfinite(DA).all():
        raise InputError(f"DA has shape {DA.shape} or entries that are not finite; give one number a layer and feature.")
    spread = DA.max() - DA.min()
    return (DA - DA.min()) / spread if spread > 0 else np.zeros_like(DA)


def layer_contributions(IF: np.ndarray) -> np.ndarray:
    """Contribution of each layer in percent: [N, d] to [N]. They sum to 100, and are equal where IF is 0 everywhere."""
    sums = np.asarray(IF, dtype=np.float64).sum(1)
    return 100 * sums / sums.sum() if sums.sum() > 0 else np.full(len(sums), 100 / len(sums))
