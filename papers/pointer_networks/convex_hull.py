"""Planar convex hull (arXiv 1506.03134, Sections 3.1 and 4.2, Table 1): labels, canonical order, metrics.

The output is the hull's vertices in counter-clockwise order from the lowest input position, closed: [2, 4, 3, 2, 0]. Points on
an edge of the hull are not vertices; of equal points the first counts.

The paper's metrics: *accuracy*, the share of outputs that are the true polygon, wherever they start; and *area*, the mean share
of the true hull's area that the output covers, over the outputs that are simple polygons, replaced by FAIL where more than 1%
are not.
"""

from dataclasses import dataclass

import torch
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from common.errors import InputError
from papers.pointer_networks.examples import (
    PADDING,
    canonical_cycles,
    check_points,
    check_sequences,
    close_cycles,
    gather_points,
    join_sequences,
    memory_chunks,
    open_cycles,
    turn_cycles,
)

FAIL_SHARE = 0.01
"""Of outputs that are not simple polygons: above it the paper prints FAIL for the area."""


def convex_hulls(points: Tensor) -> Tensor:
    """Convex hulls by gift wrapping, all examples at once, in float64 on the device of the points.

    Turns are decided by the sign of a cross product, which is exact for the coordinates that `generate` draws (multiples of
    2^-24 in [0, 1)). One host synchronisation for every step of the wrapping and chunk.

    Args:
        points: floating point [B, n, 2], n >= 3.

    Returns:
        Sequences, int64 [B, most vertices + 2].

    Raises:
        InputError: the shape or dtype does not fit, a coordinate is not finite, or all points of an example lie on one line.
    """
    check_points(points)
    bytes_each = 96 * points.shape[1]  # a dozen float64 values a point
    parts = []
    for chunk in memory_chunks(points, bytes_each):
        cycles, lengths = _wrap(chunk.double())
        _check_not_on_a_line(lengths, sum(map(len, parts)))
        parts.append(close_cycles(canonical_cycles(cycles, lengths, either_direction=False), lengths))
    return join_sequences(parts)


def convex_hulls_scipy(points: Tensor) -> Tensor:
    """As `convex_hulls`, by Qhull through scipy, one example after another; independent of our own code.

    Qhull drops vertices that stick out by less than its rounding tolerance (about 1e-15).

    Raises:
        InputError: as `convex_hulls`.
    """
    check_points(points)
    hulls = []
    for number, example in enumerate(points.double().cpu().numpy()):
        try:
            hulls.append(torch.from_numpy(ConvexHull(example).vertices).long() + 1)
        except QhullError as error:
            raise InputError(f"points of example {number} lie on one line; they have no hull with an area.") from error
    lengths = torch.tensor([len(hull) for hull in hulls])
    cycles = torch.nn.utils.rnn.pad_sequence(hulls, batch_first=True, padding_value=PADDING)
    return close_cycles(canonical_cycles(cycles, lengths, either_direction=False), lengths).to(points.device)


def with_random_order(sequences: Tensor, generator: torch.Generator) -> Tensor:
    """The same hulls from a random vertex in a random direction: what the paper's canonical order is compared with.

    Args:
        sequences: int64 [B, m] as of `convex_hulls`.
        generator: on the device of the sequences.

    Returns:
        int64 [B, m].
    """
    cycles, lengths, _ = open_cycles(sequences)
    uniform = torch.rand(2, len(sequences), generator=generator, device=sequences.device, dtype=torch.float64)
    return close_cycles(turn_cycles(cycles, lengths, (uniform[0] * lengths).long(), uniform[1] < 0.5), lengths)


@dataclass(frozen=True)
class HullScores:
    """Metrics of predicted hulls.

    Attributes:
        correct: bool [B], the polygon is the true one.
        simple: bool [B], the output ended and is a simple polygon.
        coverage: float64 [B], its area over that of the true hull; NaN where it is not simple.
    """

    correct: Tensor
    simple: Tensor
    coverage: Tensor

    @property
    def accuracy(self) -> float:
        """Share of outputs that are the true polygon."""
        return self.correct.double().mean().item()

    @property
    def area_coverage(self) -> float:
        """Mean area over that of the true hull, over the simple outputs; NaN without any."""
        return self.coverage[self.simple].mean().item()

    @property
    def not_simple_share(self) -> float:
        """Share of outputs that are not simple polygons."""
        return 1 - self.simple.double().mean().item()

    @property
    def failed(self) -> bool:
        """Whether the paper prints FAIL for the area: more than 1% of the outputs are not simple polygons."""
        return int((~self.simple).sum()) > FAIL_SHARE * len(self.simple)


def hull_scores(points: Tensor, predicted: Tensor, expected: Tensor, *, either_direction: bool = False) -> HullScores:
    """Compare predicted hulls with the true ones (arXiv 1506.03134, Section 4.2).

    The closing position is ignored. An output that did not end within its m positions is neither correct nor simple. A polygon
    is simple if it has three vertices or more, none twice, and its edges meet nowhere but at the vertex that neighbours share.

    Args:
        points: floating point [B, n, 2].
        predicted: int64 [B, m], every value in -1..n; what follows the first 0 is ignored.
        expected: int64 [B, m'], as of `convex_hulls`.
        either_direction: whether the polygon run through clockwise is correct too; for hulls learned `with_random_order`.

    Raises:
        InputError: a shape, dtype, device or value does not fit.
    """
    check_points(points)
    check_sequences("predicted", predicted, points)
    check_sequences("expected", expected, points)
    coordinates = points.double()
    cycles, lengths, ended = open_cycles(predicted)
    true_cycles, true_lengths, _ = open_cycles(expected)

    width = max(cycles.shape[1], true_cycles.shape[1])
    placeholder = cycles.new_full((1, width), PADDING)
    both = join_sequences([placeholder, cycles, true_cycles])[1:]
    both = canonical_cycles(both, torch.cat([lengths, true_lengths]), either_direction=either_direction)
    correct = ended & (both[: len(points)] == both[len(points) :]).all(1)

    simple = ended & _simple(coordinates, cycles, lengths)
    area = _areas(coordinates, cycles, lengths) / _areas(coordinates, true_cycles, true_lengths)
    return HullScores(correct, simple, area.masked_fill(~simple, float("nan")))


def simple_polygons(points: Tensor, sequences: Tensor) -> Tensor:
    """Whether sequences are simple polygons, as in `hull_scores`: bool [B] from points [B, n, 2] and int64 [B, m].

    Raises:
        InputError: a shape, dtype, device or value does not fit.
    """
    check_points(points)
    check_sequences("sequences", sequences, points)
    cycles, lengths, ended = open_cycles(sequences)
    return ended & _simple(points.double(), cycles, lengths)


def _check_not_on_a_line(lengths: Tensor, first: int) -> None:
    flat = lengths < 3
    if bool(flat.any()):
        raise InputError(f"points of example {first + int(flat.nonzero()[0])} lie on one line; they have no hull with an area.")


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """The z component of a x b: positive where b is to the left of a; [...] from [..., 2]."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _wrap(points: Tensor) -> tuple[Tensor, Tensor]:
    """Counter-clockwise hulls as cycles from the lowest point: int64 [B, k] and lengths [B]."""
    x, y = points.unbind(2)
    lowest = y == y.amin(1, keepdim=True)
    start = x.masked_fill(~lowest, float("inf")).argmin(1)
    current, vertices = start, [start]
    lengths = torch.ones_like(start)
    unfinished = torch.ones_like(start, dtype=torch.bool)
    for _ in range(points.shape[1]):
        here = current[:, None]
        current = _rightmost(x - x.gather(1, here), y - y.gather(1, here))
        unfinished = unfinished & (current != start)
        if not bool(unfinished.any()):
            break
        vertices.append(current)
        lengths = lengths + unfinished.long()
    cycles = torch.stack(vertices, 1) + 1
    place = torch.arange(len(vertices), device=points.device)
    return cycles.masked_fill(place >= lengths[:, None], PADDING), lengths


def _rightmost(x: Tensor, y: Tensor) -> Tensor:
    """The vector [B, n] with no other to its right, of such the longest, of such the first: a knock-out, pair by pair.

    Seen from a vertex of the hull all points lie within less than half a turn, so that 'to the right of' is an order.
    """
    winner = torch.arange(x.shape[1], device=x.device).expand_as(x)
    while x.shape[1] > 1:
        pairs = x.shape[1] // 2 * 2
        ax, bx, ay, by = x[:, 0:pairs:2], x[:, 1:pairs:2], y[:, 0:pairs:2], y[:, 1:pairs:2]
        turn = ax * by - ay * bx
        second = (turn < 0) | ((turn == 0) & (bx * bx + by * by > ax * ax + ay * ay))
        x = torch.cat([torch.where(second, bx, ax), x[:, pairs:]], 1)
        y = torch.cat([torch.where(second, by, ay), y[:, pairs:]], 1)
        winner = torch.cat([torch.where(second, winner[:, 1:pairs:2], winner[:, 0:pairs:2]), winner[:, pairs:]], 1)
    return winner[:, 0]


def _areas(points: Tensor, cycles: Tensor, lengths: Tensor) -> Tensor:
    """Area inside polygons [B], by the shoelace formula around the first vertex."""
    corners = gather_points(points, cycles)
    corners = corners - corners[:, :1]
    inside = torch.arange(1, corners.shape[1], device=points.device) < lengths[:, None]
    return (_cross(corners[:, :-1], corners[:, 1:]) * inside).sum(1).abs() / 2


def _simple(points: Tensor, cycles: Tensor, lengths: Tensor) -> Tensor:
    """Whether cycles are simple polygons [B]. Those of like length are tested together, so that a few long ones cost little."""
    ordered = cycles.sort(1).values
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != PADDING)).any(1)
    simple = torch.zeros_like(twice)
    candidates = ((lengths >= 3) & ~twice).nonzero()[:, 0]
    if len(candidates) == 0:
        return simple
    candidates = candidates[lengths[candidates].argsort(descending=True)]
    while len(candidates):
        m = int(lengths[candidates[0]])
        bytes_each = 160 * m * m  # about twenty float64 values for every two edges
        rows = next(memory_chunks(candidates, bytes_each))
        rows = rows[lengths[rows] > m // 2]
        candidates = candidates[len(rows) :]
        simple[rows] = ~_edges_meet(gather_points(points[rows], cycles[rows, :m]), lengths[rows])
    return simple


def _edges_meet(corners: Tensor, lengths: Tensor) -> Tensor:
    """Whether polygons [B, m, 2] with `lengths` [B] corners have edges that meet elsewhere than in their common corner [B]."""
    m = corners.shape[1]
    place = torch.arange(m, device=corners.device)
    following = (place + 1) % lengths[:, None]
    a, b = corners, corners.gather(1, following[..., None].expand_as(corners))
    exists = place < lengths[:, None]
    no_length = (a == b).all(2) & exists

    first, second = torch.triu_indices(m, m, 1, device=corners.device)
    both_exist = exists[:, second]  # first < second
    neighbours = (following[:, first] == second) | (following[:, second] == first)
    a1, b1, a2, b2 = a[:, first], b[:, first], a[:, second], b[:, second]
    d1, d2 = b1 - a1, b2 - a2

    folded_back = (_cross(d1, d2) == 0) & ((d1 * d2).sum(2) < 0)
    straddles = (_cross(d1, a2 - a1).sign() * _cross(d1, b2 - a1).sign() <= 0) & (
        _cross(d2, a1 - a2).sign() * _cross(d2, b1 - a2).sign() <= 0
    )
    boxes_overlap = ((torch.minimum(a1, b1) <= torch.maximum(a2, b2)) & (torch.minimum(a2, b2) <= torch.maximum(a1, b1))).all(2)
    meet = torch.where(neighbours, folded_back, straddles & boxes_overlap) & both_exist
    return meet.any(1) | no_length.any(1)
