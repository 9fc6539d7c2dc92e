"""Convex hulls against scipy, integer arithmetic and the solved instances; polygon metrics against shapely and by hand."""

import math

import pytest
import shapely
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from common.errors import InputError
from papers.pointer_networks import examples
from papers.pointer_networks.convex_hull import (
    convex_hulls,
    convex_hulls_scipy,
    hull_scores,
    simple_polygons,
    with_random_order,
)
from papers.pointer_networks.examples import Examples, open_cycles
from papers.pointer_networks.generate import uniform_points

GRID = st.tuples(st.integers(0, 4), st.integers(0, 4))
# Corners 1 to 4 of a square, counter-clockwise, its middle 5, and the middle 6 of the edge from 1 to 2.
SQUARE = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0], [1.0, 1.0], [1.0, 0.0]]])
SQUARE_HULL = torch.tensor([[1, 2, 3, 4, 1, 0]])


def score(predicted, **keywords):
    return hull_scores(SQUARE, torch.tensor([predicted]), SQUARE_HULL, **keywords)


def monotone_chain(points):
    """The hull of integer points, from 0, by Andrew's algorithm in whole numbers: strict vertices, counter-clockwise."""

    def half(order):
        chain = []
        for i in order:
            while len(chain) > 1 and turn(chain[-2], chain[-1], i) <= 0:
                chain.pop()
            chain.append(i)
        return chain[:-1]

    def turn(a, b, c):
        (ax, ay), (bx, by), (cx, cy) = points[a], points[b], points[c]
        return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)

    order = sorted({points[i]: i for i in reversed(range(len(points)))}.values(), key=lambda i: points[i])
    return half(order) + half(order[::-1])


@pytest.mark.parametrize("method", [convex_hulls, convex_hulls_scipy])
@pytest.mark.parametrize("n", [5, 10, 50, 100, 200, 500])
def test_solved_instances(solved, method, n):
    points, expected = solved("convex_hull_test.npz", f"points_{n}"), solved("convex_hull_test.npz", f"hull_{n}")
    sequences = method(points)
    closed = torch.where(sequences > 0, sequences, -1)[:, :-1]
    assert torch.equal(closed, expected[:, : closed.shape[1]])
    assert bool((expected[:, closed.shape[1] :] == -1).all())
    Examples(points, sequences)


@pytest.mark.parametrize("n", [3, 4, 7, 33, 128])
def test_gift_wrapping_equals_scipy(n):
    points = uniform_points("test", "convex_hull", n, 300, 5)
    assert torch.equal(convex_hulls(points), convex_hulls_scipy(points))


def test_points_inside_and_on_an_edge_are_no_vertices():
    assert convex_hulls(SQUARE).tolist() == SQUARE_HULL.tolist()
    assert convex_hulls_scipy(SQUARE).tolist() == SQUARE_HULL.tolist()


@given(st.lists(GRID, min_size=3, max_size=12))
def test_collinear_and_equal_points_against_whole_numbers(points):
    hull = [i + 1 for i in monotone_chain(points)]
    tensor = torch.tensor([points], dtype=torch.float32)
    if len(hull) < 3:
        with pytest.raises(InputError, match="example 0 lie on one line"):
            convex_hulls(tensor)
        return
    first = hull.index(min(hull))
    expected = hull[first:] + hull[:first]
    assert convex_hulls(tensor).tolist() == [[*expected, expected[0], 0]]


@given(st.integers(0, 2**32), st.integers(3, 20), st.data())
def test_order_of_the_input_only_renames_the_vertices(seed, n, data):
    points = uniform_points("test", "convex_hull", n, 1, seed)
    permutation = torch.tensor(data.draw(st.permutations(range(n))))
    cycle, length, _ = open_cycles(convex_hulls(points))
    renamed, renamed_length, _ = open_cycles(convex_hulls(points[:, permutation]))
    assert length == renamed_length
    vertices = cycle[0, :length].tolist()
    back = [int(permutation[v - 1]) + 1 for v in renamed[0, :length]]
    start = back.index(vertices[0])
    assert back[start:] + back[:start] == vertices


def test_chunks_do_not_change_the_hulls(monkeypatch):
    points = uniform_points("test", "convex_hull", 20, 50, 0)
    whole = convex_hulls(points)
    monkeypatch.setitem(examples.MEMORY_BUDGET, "cpu", 7 * 96 * 20)
    assert torch.equal(convex_hulls(points), whole)


@pytest.mark.parametrize("method", [convex_hulls, convex_hulls_scipy])
def test_what_has_no_hull(method):
    points = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(0))
    line = torch.arange(5.0)[:, None].expand(5, 2)
    for bad, message in [
        (torch.stack([points[0], line, points[1]]), "example 1 lie on one line"),
        (torch.stack([points[0], points[1], points[2, :1].expand(5, 2)]), "example 2 lie on one line"),
        (points[:, :2], "at least 3"),
        (points[0], r"expected \[B, n, 2\]"),
        (points.long(), "floating-point"),
        (points * math.nan, "NaN"),
    ]:
        with pytest.raises(InputError, match=message):
            method(bad)


def test_the_example_is_named_across_chunks(monkeypatch):
    points = torch.rand(9, 5, 2, generator=torch.Generator().manual_seed(0))
    points[7] = 0
    monkeypatch.setitem(examples.MEMORY_BUDGET, "cpu", 2 * 96 * 5)
    with pytest.raises(InputError, match="example 7"):
        convex_hulls(points)


def test_random_order_is_the_same_hull_from_anywhere_in_both_directions():
    points = uniform_points("test", "convex_hull", 12, 2000, 1)
    expected = convex_hulls(points)
    turned = with_random_order(expected, torch.Generator().manual_seed(3))
    assert torch.equal(turned, with_random_order(expected, torch.Generator().manual_seed(3)))
    assert not torch.equal(turned, with_random_order(expected, torch.Generator().manual_seed(4)))
    Examples(points, turned)
    assert hull_scores(points, turned, expected, either_direction=True).accuracy == 1
    assert hull_scores(points, turned, expected).accuracy == pytest.approx(0.5, abs=0.05)
    cycles, lengths, _ = open_cycles(expected)
    starts = (turned[:, :1] == cycles).long().argmax(1)
    for length in (5, 6, 7):
        counts = torch.bincount(starts[lengths == length], minlength=length)
        total = int(counts.sum())
        four_sigma = 4 * math.sqrt(total * (1 - 1 / length) / length)
        assert total > 300
        assert counts.tolist() == pytest.approx([total / length] * length, abs=four_sigma)


@pytest.mark.parametrize(
    ("predicted", "correct", "simple", "coverage"),
    [
        ([1, 2, 3, 4, 1, 0], True, True, 1.0),
        ([3, 4, 1, 2, 3, 0], True, True, 1.0),  # from another vertex
        ([1, 2, 3, 4, 0, -1], True, True, 1.0),  # not closed
        ([1, 2, 3, 4, 1, 0, 5, 5], True, True, 1.0),  # what follows the end
        ([1, 4, 3, 2, 1, 0], False, True, 1.0),  # clockwise
        ([1, 2, 3, 1, 0], False, True, 0.5),
        ([1, 2, 5, 1, 0], False, True, 0.25),
        ([1, 2, 3, 5, 4, 1, 0], False, True, 0.75),
        ([1, 6, 2, 3, 4, 1, 0], False, True, 1.0),  # a point on an edge as a vertex
        ([1, 3, 2, 4, 1, 0], False, False, None),  # crosses itself
        ([1, 3, 5, 1, 0], False, False, None),  # no area
        ([1, 2, 6, 4, 1, 0], False, False, None),  # folds back
        ([1, 2, 3, 6, 2, 4, 1, 0], False, False, None),  # a vertex twice
        ([1, 2, 2, 3, 4, 1, 0], False, False, None),  # a vertex twice, one after the other
        ([1, 2, 3, 6, 4, 1, 0], False, False, None),  # touches an edge with a vertex
        ([1, 2, 1, 0], False, False, None),
        ([1, 0], False, False, None),
        ([0, 1], False, False, None),
        ([1, 2, 3, 4, 1], False, False, None),  # no end
        ([1, 2, 3, 4, 1, -1], False, False, None),
    ],
)
def test_scores_by_hand(predicted, correct, simple, coverage):
    scores = score(predicted)
    assert scores.correct.tolist() == [correct]
    assert scores.simple.tolist() == [simple]
    assert scores.failed is not simple
    if simple:
        assert scores.area_coverage == pytest.approx(coverage)
    else:
        assert math.isnan(scores.area_coverage)


def test_clockwise_counts_where_the_direction_is_free():
    assert score([3, 2, 1, 4, 3, 0], either_direction=True).accuracy == 1
    assert score([3, 1, 2, 4, 3, 0], either_direction=True).accuracy == 0


def test_equal_points_next_to_each_other_are_no_simple_polygon():
    points = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    assert simple_polygons(points, torch.tensor([[1, 2, 3, 4, 1, 0]])).tolist() == [False]


@pytest.mark.parametrize(("crossing", "failed"), [(0, False), (1, False), (2, True)])
def test_more_than_one_percent_is_a_fail(crossing, failed):
    predicted = torch.tensor([[1, 3, 2, 4, 1, 0]] * crossing + [[1, 2, 3, 1, 0, -1]] * (100 - crossing))
    scores = hull_scores(SQUARE.expand(100, -1, -1), predicted, SQUARE_HULL.expand(100, -1))
    assert scores.failed is failed
    assert scores.not_simple_share == pytest.approx(crossing / 100)
    assert scores.area_coverage == pytest.approx(0.5)
    assert scores.accuracy == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=8, unique=True), st.data())
def test_simplicity_equals_shapely_on_a_grid(points, data):
    order = data.draw(st.permutations(range(len(points))))
    ring = [points[i] for i in order]
    assume(shapely.Polygon(ring).area > 0)
    sequence = torch.tensor([[*[i + 1 for i in order], order[0] + 1, 0]])
    expected = shapely.LinearRing(ring).is_simple
    assert simple_polygons(torch.tensor([points], dtype=torch.float32), sequence).tolist() == [expected]


def test_simplicity_and_area_equal_shapely_on_a_batch_of_all_lengths():
    g = torch.Generator().manual_seed(0)
    points = torch.rand(400, 12, 2, generator=g)
    centre = points - 0.5
    by_angle = torch.atan2(centre[..., 1], centre[..., 0]).argsort(1) + 1  # a star: simple
    by_angle[::2, :2] = by_angle[::2, :2].flip(1)  # mostly not
    lengths = torch.randint(3, 13, (400,), generator=g)
    place = torch.arange(12)
    cycles = by_angle.masked_fill(place >= lengths[:, None], -1)
    sequences = examples.close_cycles(cycles, lengths)
    expected = convex_hulls(points)
    scores = hull_scores(points, sequences, expected)
    shapes = [shapely.Polygon(p[c[:k] - 1].double()) for p, c, k in zip(points, cycles, lengths.tolist(), strict=True)]
    assert scores.simple.tolist() == [shape.is_valid for shape in shapes]
    assert 100 < int(scores.simple.sum()) < 350
    hulls = [shapely.MultiPoint(p.double().numpy()).convex_hull.area for p in points]
    shares = [shape.area / hull for shape, hull in zip(shapes, hulls, strict=True) if shape.is_valid]
    assert scores.coverage[scores.simple].tolist() == pytest.approx(shares)


@given(st.integers(0, 2**32), st.integers(3, 12), st.data())
def test_the_start_does_not_matter(seed, n, data):
    points = uniform_points("test", "convex_hull", n, 1, seed)
    cycle = data.draw(st.permutations(range(1, n + 1)))[: data.draw(st.integers(3, n))]
    start = data.draw(st.integers(0, len(cycle) - 1))
    turned = cycle[start:] + cycle[:start]
    expected = convex_hulls(points)
    one = hull_scores(points, torch.tensor([[*cycle, cycle[0], 0]]), expected)
    other = hull_scores(points, torch.tensor([[*turned, 0]]), expected)
    assert torch.equal(one.correct, other.correct)
    assert torch.equal(one.simple, other.simple)
    assert torch.allclose(one.coverage, other.coverage, equal_nan=True)


@pytest.mark.parametrize("n", [5, 50])
def test_the_true_hull_scores_fully(n):
    points = uniform_points("test", "convex_hull", n, 500, 2)
    hulls = convex_hulls(points)
    scores = hull_scores(points, hulls, hulls)
    assert (scores.accuracy, scores.failed) == (1, False)
    assert scores.area_coverage == pytest.approx(1, abs=1e-12)


def test_what_the_metrics_refuse():
    for predicted, expected, message in [
        (SQUARE_HULL + 3, SQUARE_HULL, "predicted holds values from 3 to 7"),
        (SQUARE_HULL, SQUARE_HULL.float(), "expected has dtype torch.float32"),
        (SQUARE_HULL[0], SQUARE_HULL, "predicted has shape"),
        (SQUARE_HULL.to("meta"), SQUARE_HULL, "predicted is on meta"),
    ]:
        with pytest.raises(InputError, match=message):
            hull_scores(SQUARE, predicted, expected)


@pytest.mark.gpu
def test_hulls_and_scores_on_gpu_equal_the_cpu():
    points = uniform_points("test", "convex_hull", 50, 20_000, 0)
    hulls = convex_hulls(points)
    assert torch.equal(convex_hulls(points.cuda()).cpu(), hulls)
    turned = with_random_order(hulls.cuda(), torch.Generator("cuda").manual_seed(0))
    assert hull_scores(points.cuda(), turned, hulls.cuda(), either_direction=True).accuracy == 1
    shuffled = turned[torch.randperm(len(turned), generator=torch.Generator().manual_seed(0)).cuda()]
    on_gpu, on_cpu = hull_scores(points.cuda(), shuffled, hulls.cuda()), hull_scores(points, shuffled.cpu(), hulls)
    assert torch.equal(on_gpu.simple.cpu(), on_cpu.simple)
    torch.testing.assert_close(on_gpu.coverage.cpu(), on_cpu.coverage, equal_nan=True)
