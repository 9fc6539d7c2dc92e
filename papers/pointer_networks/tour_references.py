"""What lengths of tours are compared with."""

import torch
from torch import Tensor

from common.errors import InputError
from papers.pointer_networks.generate import EXACT_TOURS_UP_TO
from papers.pointer_networks.tour_solvers import solve_tours
from papers.pointer_networks.travelling_salesman import tour_lengths


def reference_lengths(points: Tensor) -> Tensor:
    """Lengths of optimal tours up to 12 cities; beyond, of the shorter one of the solvers A2 and A3.

    Args:
        points: floating point [B, n, 2].

    Returns:
        float64 [B].
    """
    if points.shape[1] <= EXACT_TOURS_UP_TO:
        return tour_lengths(points, solve_tours(points, "held_karp"))
    return torch.minimum(*(tour_lengths(points, solve_tours(points, solver)) for solver in ("a2", "a3")))


def mean_of_parts(values: Tensor, parts: int) -> list[float]:
    """Means of consecutive parts of equal size.

    Args:
        values: [B].
        parts: a divisor of B.

    Raises:
        InputError: it is not one.
    """
    if parts < 1 or len(values) % parts:
        raise InputError(f"parts is {parts} for {len(values)} values; give a divisor of that number.")
    return values.view(parts, -1).mean(1).tolist()
