"""Metrics of scanpaths, against plain tables of dynamic programming, hand-worked pairs and the package multimatch-gaze."""

import multimatch_gaze
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from common.metrics.scanpaths import (
    Paths,
    behaviour,
    behaviour_difference,
    distance_likeness,
    edit_distance,
    multi_match,
    paths_of,
    scan_match,
    sequence_score,
)

PATH = st.lists(st.integers(0, 4), min_size=1, max_size=7)
PAIRS = st.lists(st.tuples(PATH, PATH), min_size=1, max_size=4)


def table(a, b, score, gap):
    """Needleman and Wunsch, cell by cell."""
    best = [[gap * (i + j) for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            best[i][j] = max(
                best[i - 1][j - 1] + score(a[i - 1], b[j - 1]), best[i - 1][j] + gap, best[i][j - 1] + gap
            )  # fmt: skip
    return best[-1][-1]


@given(PAIRS)
def test_alignments_are_those_of_the_plain_table(pairs):
    a, b = paths_of([one for one, _ in pairs]), paths_of([other for _, other in pairs])
    positions = torch.tensor([[0.0, 0], [0, 1], [0, 2], [3, 0], [3, 4]])
    likeness = distance_likeness(positions, threshold=2.5)
    lengths = [max(len(one), len(other)) for one, other in pairs]
    expected = [table(one, other, lambda x, y: float(x == y), 0) for one, other in pairs]
    assert sequence_score(a, b).tolist() == pytest.approx([e / n for e, n in zip(expected, lengths, strict=True)])
    expected = [-table(one, other, lambda x, y: -float(x != y), -1) for one, other in pairs]
    assert edit_distance(a, b).tolist() == pytest.approx(expected)
    expected = [table(one, other, lambda x, y: float(likeness[x, y]), 0) for one, other in pairs]
    assert scan_match(a, b, likeness).tolist() == pytest.approx([e / n for e, n in zip(expected, lengths, strict=True)])


@given(PATH, PATH)
def test_properties(one, other):
    a, b = paths_of([one]), paths_of([other])
    assert sequence_score(a, a).item() == 1
    assert edit_distance(a, a).item() == 0
    assert 0 <= sequence_score(a, b).item() == sequence_score(b, a).item() <= 1
    assert abs(len(one) - len(other)) <= edit_distance(a, b).item() <= max(len(one), len(other))


def test_by_hand():
    a, b = paths_of([[3, 1, 4, 1, 5], [1, 2]]), paths_of([[1, 4, 4, 5], [2, 1]])
    assert sequence_score(a, b).tolist() == [3 / 5, 1 / 2]  # 1 4 5; 1
    assert edit_distance(a, b).tolist() == [2, 2]  # without the 3, a 4 for the second 1


def test_likeness_by_hand():
    likeness = distance_likeness(torch.tensor([[0.0, 0], [3, 4], [0, 20]]), threshold=10)
    far = 1 - 265**0.5 / 10
    expected = torch.tensor([[1, 0.5, -1], [0.5, 1, far], [-1, far, 1]], dtype=torch.float64)
    torch.testing.assert_close(likeness, expected)
    assert scan_match(paths_of([[0, 2]]), paths_of([[1, 0]]), likeness).item() == pytest.approx(0.5)  # 2 and 0 stay alone


def test_behaviour_by_hand():
    paths = paths_of([[7, 7, 2, 7, 9], [1]])
    # 7 and 2 and 9 are new, the second 7 stays, the third comes back
    assert behaviour(paths, torch.tensor([9, 0])).tolist() == [[1, 5, 3 / 5, 1 / 5, 1 / 5], [0, 1, 1, 0, 0]]


@given(st.lists(PATH, min_size=1, max_size=5))
def test_shares_of_behaviour_sum_to_one(lists):
    found = behaviour(paths_of(lists), torch.zeros(len(lists), dtype=torch.int64))
    assert found[:, 2:].sum(1).tolist() == pytest.approx([1.0] * len(lists))


def test_behaviour_difference_by_hand():
    human = torch.tensor([[1, 10, 0.5, 0.25, 0.25], [0, 10, 0.5, 0.25, 0.25]], dtype=torch.float64)
    model = torch.tensor([[1, 5, 0.5, 0.5, 0]], dtype=torch.float64)
    assert behaviour_difference(model, human) == pytest.approx((1 + 0.5 + 0 + 1 + 1) / 5)
    assert behaviour_difference(human, human) == 0
    with pytest.raises(InputError, match="The human mean of refix is 0"):
        behaviour_difference(model, human * torch.tensor([1, 1, 1, 0, 1]))


@pytest.mark.parametrize("seed", range(5))
def test_multi_match_is_that_of_the_package(seed):
    generator = np.random.default_rng(seed)
    a, b = (generator.uniform(0, 1000, size=(generator.integers(3, 12), 2)) for _ in range(2))

    def fields(points):
        rows = [(x, y, 0.3) for x, y in points]
        return np.array(rows, dtype=[("start_x", float), ("start_y", float), ("duration", float)])

    theirs = multimatch_gaze.docomparison(fields(a), fields(b), screensize=[1280, 720])
    assert multi_match(a, b, (1280, 720)).tolist() == pytest.approx(list(theirs)[:4])


def test_multi_match_of_equal_scanpaths_is_one():
    points = np.array([[1.0, 1], [500, 40], [30, 700], [2, 2]])
    assert multi_match(points, points, (1280, 720)).tolist() == [1, 1, 1, 1]


def test_what_is_wrong_is_named():
    with pytest.raises(InputError, match="at least 3 fixations; got 2 and 3"):
        multi_match(np.zeros((2, 2)), np.zeros((3, 2)), (10, 10))
    with pytest.raises(InputError, match="2 scanpaths are compared with 1"):
        sequence_score(paths_of([[1], [2]]), paths_of([[1]]))
    with pytest.raises(InputError, match="Lengths go from 0 to 2"):
        paths_of([[1, 2], []])
    with pytest.raises(InputError, match="An object of a scanpath is -1"):
        paths_of([[1, -1]])
    with pytest.raises(InputError, match=r"objects \[3\]"):
        Paths(torch.zeros(3, dtype=torch.int64), torch.ones(3))
    with pytest.raises(InputError, match="with 1 on the diagonal"):
        scan_match(paths_of([[0]]), paths_of([[0]]), torch.zeros(2, 2))
