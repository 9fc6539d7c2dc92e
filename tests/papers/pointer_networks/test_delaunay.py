"""Delaunay triangulations against scipy, a loop in whole numbers and the solved instances; the metrics by hand."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from papers.pointer_networks import examples
from papers.pointer_networks.convex_hull import convex_hulls
from papers.pointer_networks.delaunay import (
    delaunay_triangulations,
    delaunay_triangulations_scipy,
    incenters,
    triangulation_scores,
    with_random_order,
)
from papers.pointer_networks.examples import Examples, output_lengths
from papers.pointer_networks.generate import uniform_points

# A point 4 inside a triangle 1, 2, 3: incenters ordered by hand below.
INSIDE = torch.tensor([[[0.0, 0.0], [4.0, 0.0], [2.0, 3.0], [2.0, 1.0]]])
INSIDE_TRIANGLES = torch.tensor([[1, 3, 4, 1, 2, 4, 2, 3, 4, 0]])  # centres at x < 2, x = 2, x > 2


def triangles_of(sequence):
    length = (sequence > 0).sum()
    return [tuple(triangle) for triangle in sequence[:length].view(-1, 3).tolist()]


def empty_circles(points):
    """All triples, from 1, whose circle holds no other point, in whole numbers; None if one has a fourth point on it."""
    found = set()
    for a, b, c in itertools.combinations(range(len(points)), 3):
        (ax, ay), (bx, by), (cx, cy) = points[a], points[b], points[c]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0:
            continue
        inside, on = False, False
        for p in set(range(len(points))) - {a, b, c}:
            (x1, y1), (x2, y2), (x3, y3) = (
                (q[0] - points[p][0], q[1] - points[p][1]) for q in (points[a], points[b], points[c])
            )
            z1, z2, z3 = x1 * x1 + y1 * y1, x2 * x2 + y2 * y2, x3 * x3 + y3 * y3
            determinant = x1 * (y2 * z3 - y3 * z2) - y1 * (x2 * z3 - x3 * z2) + z1 * (x2 * y3 - x3 * y2)
            inside |= determinant * area > 0
            on |= determinant == 0
        if not inside and on:
            return None
        if not inside:
            found.add((a + 1, b + 1, c + 1))
    return found or None


@pytest.mark.parametrize(
    ("method", "n", "count"),
    [
        (delaunay_triangulations, 5, 1000),
        (delaunay_triangulations, 10, 1000),
        (delaunay_triangulations, 50, 20),
        (delaunay_triangulations_scipy, 5, 1000),
        (delaunay_triangulations_scipy, 10, 1000),
        (delaunay_triangulations_scipy, 50, 500),
    ],
)
def test_solved_instances(solved, method, n, count):
    points = solved("delaunay_test.npz", f"points_{n}")[:count]
    expected = solved("delaunay_test.npz", f"tri_{n}")[:count]
    sequences = method(points)
    flat = torch.where(sequences > 0, sequences, -1)[:, :-1]
    assert torch.equal(flat, expected[:, : flat.shape[1]])
    assert bool((expected[:, flat.shape[1] :] == -1).all())
    Examples(points, sequences)


@pytest.mark.parametrize(("n", "count"), [(3, 200), (4, 200), (8, 200), (20, 50)])
def test_both_methods_agree(n, count):
    points = uniform_points("test", "delaunay", n, count, 9)
    assert torch.equal(delaunay_triangulations(points), delaunay_triangulations_scipy(points))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=7))
def test_whole_numbers_with_points_on_lines_and_circles(points):
    expected = empty_circles(points)
    tensor = torch.tensor([points], dtype=torch.float32)
    if expected is None:
        with pytest.raises(InputError, match="example 0 have no unique triangulation"):
            delaunay_triangulations(tensor)
    else:
        assert set(triangles_of(delaunay_triangulations(tensor)[0])) == expected


def test_an_interior_point_by_hand():
    assert delaunay_triangulations(INSIDE).tolist() == INSIDE_TRIANGLES.tolist()
    assert delaunay_triangulations_scipy(INSIDE).tolist() == INSIDE_TRIANGLES.tolist()


def test_incenter_by_hand():
    right = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]])
    assert incenters(right).tolist() == pytest.approx([1.0, 1.0])
    assert incenters(right[[2, 0, 1]] + 5).tolist() == pytest.approx([6.0, 6.0])


def test_triangles_ascend_inside_and_by_incenter():
    points = uniform_points("test", "delaunay", 12, 100, 3)
    for example, sequence in zip(points.double(), delaunay_triangulations(points), strict=True):
        triangles = triangles_of(sequence)
        assert all(a < b < c for a, b, c in triangles)
        centres = []
        for triangle in triangles:
            corners = [example[i - 1].tolist() for i in triangle]
            sides = [math.dist(corners[1], corners[2]), math.dist(corners[0], corners[2]), math.dist(corners[0], corners[1])]
            centres.append(tuple(sum(s * p[k] for s, p in zip(sides, corners, strict=True)) / sum(sides) for k in (0, 1)))
        assert centres == sorted(centres)


def test_the_number_of_triangles_is_eulers():
    points = uniform_points("test", "delaunay", 15, 200, 4)
    triangles = output_lengths(delaunay_triangulations(points))[0] // 3
    hull_vertices = output_lengths(convex_hulls(points))[0] - 1
    assert torch.equal(triangles, 2 * 15 - 2 - hull_vertices)


@given(st.integers(0, 2**32), st.integers(4, 9), st.data())
def test_order_of_the_input_only_renames_the_corners(seed, n, data):
    points = uniform_points("test", "delaunay", n, 1, seed)
    permutation = data.draw(st.permutations(range(n)))
    triangles = triangles_of(delaunay_triangulations(points)[0])
    renamed = triangles_of(delaunay_triangulations(points[:, permutation])[0])
    assert [tuple(sorted(permutation[i - 1] + 1 for i in triangle)) for triangle in renamed] == triangles


def test_moving_and_scaling_do_not_matter():
    points = uniform_points("test", "delaunay", 9, 100, 6).double()
    expected = delaunay_triangulations(points)
    assert torch.equal(delaunay_triangulations(points * 1000 + 7), expected)
    assert torch.equal(delaunay_triangulations(points * 1e-9), expected)


def test_points_on_a_slanted_line_or_circle_up_to_rounding():
    angle = torch.tensor([0.1, 0.9, 2.3, 4.4, 5.0], dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], 1) * 0.37
    steps = torch.tensor([0.0, 0.1, 0.2, 0.7, 0.9], dtype=torch.float64)[:, None]
    line = 0.3 + steps * torch.tensor([0.3, 0.7], dtype=torch.float64)
    for points in (circle, line):
        with pytest.raises(InputError, match="no unique triangulation"):
            delaunay_triangulations(points[None])


def test_chunks_do_not_change_the_triangulations(monkeypatch):
    points = uniform_points("test", "delaunay", 8, 30, 0)
    whole = delaunay_triangulations(points)
    monkeypatch.setitem(examples.MEMORY_BUDGET, "cpu", 4 * 24 * math.comb(8, 3) * 16)
    assert torch.equal(delaunay_triangulations(points), whole)
    points[17, 1] = points[17, 0]
    with pytest.raises(InputError, match="example 17"):
        delaunay_triangulations(points)


def test_what_has_no_triangulation():
    points = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(0))
    line, twice = points.clone(), points.clone()
    line[1] = torch.arange(5.0)[:, None]
    twice[1, 3] = twice[1, 2]
    for method in (delaunay_triangulations, delaunay_triangulations_scipy):
        for bad, message in [
            (line, "example 1.*line"),
            (twice, "example 1.*coincide"),
            (points[:, :2], "at least 3"),
            (points / 0, "NaN or infinite"),
        ]:
            with pytest.raises(InputError, match=message):
                method(bad)


def test_random_order_is_the_same_set():
    points = uniform_points("test", "delaunay", 7, 500, 1)
    expected = delaunay_triangulations(points)
    shuffled = with_random_order(expected, torch.Generator().manual_seed(2))
    assert torch.equal(shuffled, with_random_order(expected, torch.Generator().manual_seed(2)))
    Examples(points, shuffled)
    same = 0
    for one, other in zip(expected, shuffled, strict=True):
        assert sorted(triangles_of(one)) == sorted(triangles_of(other))
        same += triangles_of(one) == triangles_of(other)
    assert same < 10  # of 500; the chance of 6 triangles and more staying in order is 1 in 720
    padded = torch.cat([expected, torch.full((500, 2), -1)], 1)
    Examples(points, with_random_order(padded, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize(
    ("predicted", "correct", "covered", "different"),
    [
        ([1, 3, 4, 1, 2, 4, 2, 3, 4, 0], True, 3, 3),
        ([4, 3, 2, 1, 4, 2, 3, 1, 4, 0], True, 3, 3),  # another order, of triangles and inside them
        ([1, 3, 4, 1, 2, 4, 2, 3, 4, 4, 3, 2, 0], True, 3, 3),  # one twice
        ([1, 3, 4, 1, 2, 4, 0, 2, 3, 4], False, 2, 2),  # one missing; what follows the end
        ([1, 3, 4, 1, 2, 4, 2, 3, 4, 1, 2, 3, 0], False, 3, 4),  # one too many
        ([1, 3, 4, 1, 2, 4, 2, 3, 4, 1, 0], False, 3, 4),  # cut off
        ([1, 3, 4, 1, 2, 4, 2, 3, 0], False, 2, 3),  # cut off
        ([1, 3, 3, 1, 2, 4, 0], False, 1, 2),  # a corner twice
        ([1, 3, 4, 1, 2, 4, 2, 3, 4], False, 3, 3),  # no end
        ([0], False, 0, 0),
    ],
)
def test_scores_by_hand(predicted, correct, covered, different):
    scores = triangulation_scores(INSIDE, torch.tensor([predicted]), INSIDE_TRIANGLES)
    assert scores.correct.tolist() == [correct]
    assert (scores.covered.item(), scores.expected.item(), scores.predicted.item()) == (covered, 3, different)
    assert scores.triangle_coverage == pytest.approx(covered / 3)
    assert (
        math.isnan(scores.triangle_precision)
        if not different
        else scores.triangle_precision == pytest.approx(covered / different)
    )


def test_shares_are_of_all_triangles_together():
    predicted = torch.tensor([[1, 3, 4, 1, 2, 4, 2, 3, 4, 0], [1, 2, 4, 1, 2, 3, 0, -1, -1, -1]])
    scores = triangulation_scores(INSIDE.expand(2, -1, -1), predicted, INSIDE_TRIANGLES.expand(2, -1))
    assert scores.accuracy == 0.5
    assert scores.triangle_coverage == pytest.approx(4 / 6)
    assert scores.triangle_precision == pytest.approx(4 / 5)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20))
def test_scores_equal_sets(tokens):
    points = uniform_points("test", "delaunay", 6, 1, 0)
    expected = delaunay_triangulations(points)
    body = tokens[: tokens.index(0)] if 0 in tokens else tokens
    guess = {tuple(sorted(body[i : i + 3])) for i in range(0, len(body), 3)}
    truth = set(triangles_of(expected[0]))
    scores = triangulation_scores(points, torch.tensor([tokens]), expected)
    assert scores.covered.item() == len(guess & truth)
    assert scores.predicted.item() == len(guess)


def test_what_the_metrics_refuse():
    with pytest.raises(InputError, match="predicted holds values from 3 to 7"):
        triangulation_scores(INSIDE, INSIDE_TRIANGLES + 3, INSIDE_TRIANGLES)
    with pytest.raises(InputError, match="expected has dtype"):
        triangulation_scores(INSIDE, INSIDE_TRIANGLES, INSIDE_TRIANGLES.int())


@pytest.mark.gpu
@pytest.mark.parametrize(("n", "count"), [(5, 20_000), (10, 5_000), (50, 500)])
def test_triangulations_on_gpu_equal_scipy(n, count):
    points = uniform_points("test", "delaunay", n, count, 0)
    expected = delaunay_triangulations_scipy(points)
    assert torch.equal(delaunay_triangulations(points.cuda()).cpu(), expected)
    shuffled = with_random_order(expected.cuda(), torch.Generator("cuda").manual_seed(0))
    assert triangulation_scores(points.cuda(), shuffled, expected.cuda()).accuracy == 1
