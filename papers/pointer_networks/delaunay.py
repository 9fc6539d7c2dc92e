"""Delaunay triangulation (arXiv 1506.03134, Sections 3.2 and 4.3): labels, canonical order, metrics.

The output is three positions for every triangle, one after another in a flat sequence: [1, 2, 4, 2, 3, 4, 0]. The positions
inside a triangle ascend; triangles are ordered by their incenters, by x and then y.

The paper's metrics: *accuracy*, the share of outputs that are the true set of triangles, and *triangle coverage*, "the
percentage of triangles predicted correctly". Of which total is not said: we take the true triangles, and give the share of the
predicted triangles that are true beside it.
"""

from dataclasses import dataclass

import numpy as np
import scipy.spatial
import torch
from torch import Tensor
from torch.nn.functional import pad

from common.errors import InputError
from papers.pointer_networks.examples import (
    END,
    PADDING,
    check_points,
    check_sequences,
    join_sequences,
    memory_chunks,
    output_lengths,
)

ROUNDING = 1e-15
"""Determinants of points in the unit square that are rounding: of three points, on one line; of four, on one circle."""


def delaunay_triangulations(points: Tensor) -> Tensor:
    """Delaunay triangulations by definition: all triples of points whose circumcircle holds no other point.

    All C(n, 3) triples are tested against all n points in float64, as one matrix product an example, on the device of the
    points. At n = 50 that is 8 MB an example: fast on a GPU, slower than `delaunay_triangulations_scipy` on a CPU.

    Args:
        points: floating point [B, n, 2], n >= 3.

    Returns:
        Sequences, int64 [B, 3 * most triangles + 1].

    Raises:
        InputError: the shape or dtype does not fit, a coordinate is not finite, or the triangulation of an example is not
        unique:
            points lie on one line, coincide, or four lie on a circle with no other inside.
    """
    check_points(points)
    n = points.shape[1]
    triples = torch.combinations(torch.arange(n, device=points.device), 3)
    bytes_each = 24 * len(triples) * (n + 8)  # the in-circle determinants, their temporaries, the planes
    parts, done = [], 0
    for chunk in memory_chunks(points, bytes_each):
        example, triangles = _empty_circles(chunk.double(), triples, done)
        parts.append(_serialise(chunk.double(), example, triangles))
        done += len(chunk)
    return join_sequences(parts)


def delaunay_triangulations_scipy(points: Tensor) -> Tensor:
    """As `delaunay_triangulations`, by Qhull through scipy, one example after another; independent of our own code.

    Of several triangulations of points on one circle it takes one.

    Raises:
        InputError: as `delaunay_triangulations`, except for points on one circle.
    """
    check_points(points)
    coordinates = points.double().cpu()
    triangles = []
    for number, example in enumerate(coordinates.numpy()):
        try:
            found = scipy.spatial.Delaunay(example)
        except scipy.spatial.QhullError as error:
            raise InputError(f"points of example {number} lie on one line; they have no triangulation.") from error
        if len(found.coplanar):
            raise InputError(f"point {found.coplanar[0][0] + 1} of example {number} coincides with another; move or drop it.")
        triangles.append(np.sort(found.simplices, 1))
    example = torch.arange(len(triangles)).repeat_interleave(torch.tensor([len(found) for found in triangles]))
    return _serialise(coordinates, example, torch.from_numpy(np.concatenate(triangles)).long()).to(points.device)


def incenters(corners: Tensor) -> Tensor:
    """Centres of inscribed circles, (aA + bB + cC) / (a + b + c) with a, b, c the sides opposite to A, B, C.

    Args:
        corners: floating point [..., 3, 2].

    Returns:
        [..., 2].
    """
    opposite = (corners.roll(-1, -2) - corners.roll(-2, -2)).norm(dim=-1, keepdim=True)
    return (opposite * corners).sum(-2) / opposite.sum(-2)


def with_random_order(sequences: Tensor, generator: torch.Generator) -> Tensor:
    """The same triangulations with the triangles in random order: what the paper's canonical order is compared with.

    Args:
        sequences: int64 [B, 3 T + 1] as of `delaunay_triangulations`.
        generator: on the device of the sequences.

    Returns:
        int64 [B, 3 T + 1].
    """
    m = sequences.shape[1]
    triangles = pad(sequences, (0, -m % 3), value=PADDING).unflatten(1, (-1, 3))
    counts = output_lengths(sequences)[0] // 3
    key = torch.rand(triangles.shape[:2], generator=generator, device=sequences.device, dtype=torch.float64)
    place = torch.arange(triangles.shape[1], device=sequences.device)
    order = key.masked_fill(place >= counts[:, None], 1.0).argsort(1)
    shuffled = triangles.gather(1, order[..., None].expand_as(triangles)).flatten(1)[:, :m]
    return torch.where(sequences > END, shuffled, sequences)


@dataclass(frozen=True)
class TriangulationScores:
    """Metrics of predicted triangulations.

    Attributes:
        correct: bool [B], the output ended and its set of triangles is the true one.
        covered: int64 [B], true triangles that were predicted.
        expected: int64 [B], true triangles.
        predicted: int64 [B], different triangles predicted; one with a corner twice, or cut off at the end, counts.
    """

    correct: Tensor
    covered: Tensor
    expected: Tensor
    predicted: Tensor

    @property
    def accuracy(self) -> float:
        """Share of outputs that are the true set of triangles."""
        return self.correct.double().mean().item()

    @property
    def triangle_coverage(self) -> float:
        """Share of all true triangles that were predicted."""
        return (self.covered.sum() / self.expected.sum()).item()

    @property
    def triangle_precision(self) -> float:
        """Share of all predicted triangles that are true; NaN where none was predicted."""
        return (self.covered.sum() / self.predicted.sum()).item()


def triangulation_scores(points: Tensor, predicted: Tensor, expected: Tensor) -> TriangulationScores:
    """Compare predicted triangulations with the true ones (arXiv 1506.03134, Section 4.3).

    Sets are compared: neither the order of the triangles, nor that of the positions inside one, nor repetitions count.

    Args:
        points: floating point [B, n, 2].
        predicted: int64 [B, m], every value in -1..n; what follows the first 0 is ignored.
        expected: int64 [B, m'], as of `delaunay_triangulations`.

    Raises:
        InputError: a shape, dtype, device or value does not fit.
    """
    check_points(points)
    check_sequences("predicted", predicted, points)
    check_sequences("expected", expected, points)
    guess, guess_counts = _triangle_sets(predicted, points.shape[1])
    truth, truth_counts = _triangle_sets(expected, points.shape[1])
    found = torch.searchsorted(truth, guess).clamp_max(truth.shape[1] - 1)
    covered = ((truth.gather(1, found) == guess) & (guess != _NO_TRIANGLE)).sum(1)
    correct = output_lengths(predicted)[1] & (covered == truth_counts) & (guess_counts == truth_counts)
    return TriangulationScores(correct, covered, truth_counts, guess_counts)


_NO_TRIANGLE = torch.iinfo(torch.int64).max


def _triangle_sets(sequences: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Every row's different triangles as ascending numbers [B, T], `_NO_TRIANGLE` behind them, and how many there are [B].

    The missing corners of a triangle that is cut off are 0, so that it equals no true one.
    """
    lengths, _ = output_lengths(sequences)
    short = -sequences.shape[1] % 3
    tokens = pad(sequences, (0, short), value=END)
    place = torch.arange(tokens.shape[1], device=sequences.device)
    corners = tokens.masked_fill(place >= lengths[:, None], END).unflatten(1, (-1, 3)).sort(2).values
    code = (corners[..., 0] * (n + 1) + corners[..., 1]) * (n + 1) + corners[..., 2]
    code = code.masked_fill(code == 0, _NO_TRIANGLE).sort(1).values
    repeated = torch.zeros_like(code, dtype=torch.bool)
    repeated[:, 1:] = code[:, 1:] == code[:, :-1]
    code = code.masked_fill(repeated, _NO_TRIANGLE).sort(1).values
    return code, (code != _NO_TRIANGLE).sum(1)


def _empty_circles(points: Tensor, triples: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Triples with an empty circumcircle: their example [T], and their corners, from 0, ascending [T, 3]; sorted by example.

    Lifted to the paraboloid z = x² + y², a point is inside the circle through A, B, C exactly if it lies below the plane
    through their lifted places. So one plane for every triple, and a product of planes and lifted points.
    """
    moved = points - points.amin(1, keepdim=True)
    centred = torch.ldexp(moved, -torch.frexp(moved.amax((1, 2), keepdim=True)).exponent) - 0.5  # a power of two: exact
    lifted = torch.cat([centred, centred.square().sum(2, keepdim=True), torch.ones_like(centred[..., :1])], 2)

    A, B, C = (lifted[:, triples[:, corner], :3] for corner in range(3))
    normal = torch.linalg.cross(B - A, C - A)
    normal = normal * torch.where(normal[..., 2:] < 0, -1.0, 1.0)  # upwards
    planes = torch.cat([normal, -(normal * A).sum(2, keepdim=True)], 2)
    below = -(planes @ lifted.mT)  # [B, triples, n]

    empty = (below.amax(2) <= ROUNDING) & (normal[..., 2] > ROUNDING)
    example, triple = empty.nonzero(as_tuple=True)
    on_the_circle = (below[example, triple] >= -ROUNDING).sum(1)
    ambiguous = torch.zeros_like(points[:, 0, 0], dtype=torch.bool)
    ambiguous[example[on_the_circle > 3]] = True
    ambiguous |= ~empty.any(1)
    if bool(ambiguous.any()):
        raise InputError(
            f"points of example {first + int(ambiguous.nonzero()[0])} have no unique triangulation: they lie on one line, "
            "two coincide, or four lie on one circle. Move the points a little."
        )
    return example, triples[triple]


def _serialise(points: Tensor, example: Tensor, triangles: Tensor) -> Tensor:
    """Canonical sequences int64 [B, 3 T + 1] from triangles [all, 3], from 0 and ascending, and their examples [all]."""
    x, y = incenters(points[example[:, None], triangles]).unbind(1)
    order = y.argsort(stable=True)
    order = order[x[order].argsort(stable=True)]
    order = order[example[order].argsort(stable=True)]
    example, triangles = example[order], triangles[order]

    counts = torch.bincount(example, minlength=len(points))
    place = torch.arange(len(example), device=points.device) - (counts.cumsum(0) - counts)[example]
    most = int(counts.max())
    sequences = torch.full((len(points), most, 3), PADDING, device=points.device)
    sequences[example, place] = triangles + 1
    sequences = pad(sequences.flatten(1), (0, 1), value=PADDING)
    return sequences.scatter(1, 3 * counts[:, None], END)
