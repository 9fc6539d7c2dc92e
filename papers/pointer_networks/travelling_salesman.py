"""Travelling salesman (arXiv 1506.03134, Sections 3.3 and 4.4, Table 2): canonical tours, validity, metrics.

A *tour* is a permutation of the positions, int64 [B, n], values 1..n, not closed. The output is the tour closed, from city 1,
in the direction in which the second city is less than the last (the paper leaves the direction open): [1, 3, 2, 4, 1, 0]. So
every tour has one form. The solvers that label are in `tour_solvers`.

The paper's metric is the mean length of the closed tours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import InputError
from papers.pointer_networks.examples import (
    canonical_cycles,
    check_points,
    check_sequences,
    close_cycles,
    gather_points,
    open_cycles,
)


def check_tours(tours: Tensor, points: Tensor) -> None:
    """Check that `tours` is int64 [B, n] with every row a permutation of 1..n, B, n and the device being those of `points`.

    Raises:
        InputError: it is not.
    """
    check_sequences("tours", tours, points)
    n = points.shape[1]
    cities = torch.arange(1, n + 1, device=tours.device)
    wrong = (tours.sort(1).values != cities).any(1) if tours.shape[1] == n else torch.ones_like(tours[:, 0], dtype=torch.bool)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise InputError(f"tours row {row} is {tours[row].tolist()}; expected every city of 1..{n} once.")


def canonical_tours(tours: Tensor) -> Tensor:
    """The one form of tours: from city 1, second city < last city. int64 [B, n] to int64 [B, n]."""
    return canonical_cycles(tours, torch.full_like(tours[:, 0], tours.shape[1]), either_direction=True)


def tour_sequences(tours: Tensor) -> Tensor:
    """Tours as output sequences, in canonical form, closed and ended: int64 [B, n] to int64 [B, n + 2]."""
    return close_cycles(canonical_tours(tours), torch.full_like(tours[:, 0], tours.shape[1]))


def valid_tours(points: Tensor, sequences: Tensor) -> Tensor:
    """Whether outputs are tours: every city once, the first again or not, then the end. bool [B].

    Args:
        points: floating point [B, n, 2].
        sequences: int64 [B, m], every value in -1..n; what follows the first 0 is ignored.

    Raises:
        InputError: a shape, dtype, device or value does not fit.
    """
    check_points(points)
    check_sequences("sequences", sequences, points)
    return _read(points, sequences)[1]


def tour_lengths(points: Tensor, tours: Tensor) -> Tensor:
    """Lengths of closed tours in float64: [B].

    Args:
        points: floating point [B, n, 2].
        tours: int64 [B, n], permutations of 1..n.

    Raises:
        InputError: a shape, dtype, device or value does not fit, or a row is not a tour.
    """
    check_points(points)
    check_tours(tours, points)
    return _lengths(points, tours)


@dataclass(frozen=True)
class TourScores:
    """Metrics of predicted tours.

    Attributes:
        valid: bool [B], the output is a tour.
        lengths: float64 [B], length of the closed tour; NaN where it is not valid.
    """

    valid: Tensor
    lengths: Tensor

    @property
    def mean_length(self) -> float:
        """Mean length over the valid tours; NaN without any."""
        return self.lengths[self.valid].mean().item()

    @property
    def invalid_share(self) -> float:
        """Share of outputs that are not tours."""
        return 1 - self.valid.double().mean().item()


def tour_scores(points: Tensor, predicted: Tensor) -> TourScores:
    """Length and validity of predicted tours (arXiv 1506.03134, Section 4.4).

    Args:
        points: floating point [B, n, 2].
        predicted: int64 [B, m], every value in -1..n; what follows the first 0 is ignored.

    Raises:
        InputError: a shape, dtype, device or value does not fit.
    """
    check_points(points)
    check_sequences("predicted", predicted, points)
    tours, valid = _read(points, predicted)
    return TourScores(valid, _lengths(points, tours).masked_fill(~valid, float("nan")))


def _read(points: Tensor, sequences: Tensor) -> tuple[Tensor, Tensor]:
    """Tours [B, n] where valid [B]; other rows of the tours hold the cities in input order."""
    cities = torch.arange(1, points.shape[1] + 1, device=points.device)
    cycles, lengths, ended = open_cycles(sequences)
    if cycles.shape[1] < len(cities):
        return cities.expand(len(points), -1), torch.zeros_like(ended)
    tours = cycles[:, : len(cities)]
    valid = ended & (lengths == len(cities)) & (tours.sort(1).values == cities).all(1)
    return torch.where(valid[:, None], tours, cities), valid


def _lengths(points: Tensor, tours: Tensor) -> Tensor:
    stops = gather_points(points.double(), tours)
    return (stops - stops.roll(-1, 1)).norm(dim=2).sum(1)
