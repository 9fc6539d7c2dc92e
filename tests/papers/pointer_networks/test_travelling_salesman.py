"""Tours: canonical form, validity, lengths."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from papers.pointer_networks.examples import Examples
from papers.pointer_networks.travelling_salesman import (
    canonical_tours,
    tour_lengths,
    tour_scores,
    tour_sequences,
    valid_tours,
)

SQUARE = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]])


@pytest.mark.parametrize(
    ("tour", "canonical"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ([1, 4, 3, 2], [1, 2, 3, 4]),
        ([3, 1, 4, 2], [1, 3, 2, 4]),
        ([2, 4, 1, 3], [1, 3, 2, 4]),
    ],
)
def test_canonical_form_by_hand(tour, canonical):
    assert canonical_tours(torch.tensor([tour])).tolist() == [canonical]
    assert tour_sequences(torch.tensor([tour])).tolist() == [[*canonical, 1, 0]]


@given(st.permutations(range(1, 9)), st.integers(0, 7), st.booleans())
def test_start_and_direction_do_not_matter(tour, start, backwards):
    other = list(tour[start:]) + list(tour[:start])
    other = other[::-1] if backwards else other
    one, two = canonical_tours(torch.tensor([list(tour), other])).tolist()
    assert one == two
    assert (one[0], one[1] < one[-1]) == (1, True)
    points = torch.rand(1, 8, 2, generator=torch.Generator().manual_seed(0))
    lengths = [tour_lengths(points, torch.tensor([each])).item() for each in (list(tour), one)]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-14)
    assert canonical_tours(torch.tensor([one])).tolist() == [one]


def test_lengths_by_hand():
    tours = torch.tensor([[1, 3, 2, 4], [1, 2, 3, 4]])
    lengths = tour_lengths(SQUARE.expand(2, -1, -1), tours)
    assert lengths.dtype == torch.float64
    assert lengths.tolist() == pytest.approx([4.0, 2 + 2 * math.sqrt(2)])


@pytest.mark.parametrize(
    ("sequence", "valid"),
    [
        ([1, 3, 2, 4, 1, 0], True),
        ([1, 3, 2, 4, 0], True),  # not closed
        ([2, 4, 1, 3, 2, 0], True),  # from another city
        ([1, 3, 2, 4, 1, 0, 3, 3], True),  # what follows the end
        ([1, 3, 2, 4, 2, 0], False),  # closed at another city
        ([1, 3, 2, 4, 1, 1, 0], False),
        ([1, 3, 2, 1, 0], False),  # a city missing
        ([1, 3, 3, 4, 1, 0], False),  # a city twice
        ([1, 3, 2, 0], False),
        ([0], False),
        ([1, 3, 2, 4, 1], False),  # no end
        ([1, 3, 2, 4, 1, -1], False),
    ],
)
def test_validity_by_hand(sequence, valid):
    sequences = torch.tensor([sequence])
    assert valid_tours(SQUARE, sequences).tolist() == [valid]
    scores = tour_scores(SQUARE, sequences)
    assert scores.valid.tolist() == [valid]
    assert scores.mean_length == pytest.approx(4) if valid else math.isnan(scores.mean_length)
    assert scores.invalid_share == 1 - valid


def test_invalid_outputs_do_not_count_for_the_length():
    predicted = torch.tensor([[1, 3, 2, 4, 1, 0], [1, 2, 3, 4, 1, 0], [1, 3, 3, 4, 1, 0], [1, 0, 0, 0, 0, 0]])
    scores = tour_scores(SQUARE.expand(4, -1, -1), predicted)
    assert scores.invalid_share == 0.5
    assert scores.mean_length == pytest.approx(3 + math.sqrt(2))
    assert scores.lengths.isnan().tolist() == [False, False, True, True]


@pytest.mark.parametrize(("n", "mean"), [(5, 2.128), (10, 2.871), (20, 3.821), (50, 5.691)])
def test_solved_instances(solved, n, mean):
    points, tours = solved("tsp_test.npz", f"points_{n}"), solved("tsp_test.npz", f"tour_{n}")
    assert torch.equal(canonical_tours(tours), tours)
    assert tour_lengths(points, tours).mean().item() == pytest.approx(mean, abs=5e-4)
    sequences = tour_sequences(tours)
    Examples(points, sequences)
    scores = tour_scores(points, sequences)
    assert scores.invalid_share == 0
    torch.testing.assert_close(scores.lengths, tour_lengths(points, tours), rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("tours", "message"),
    [
        ([[1, 2, 3, 3]], r"row 0 is \[1, 2, 3, 3\]; expected every city of 1\.\.4 once"),
        ([[0, 1, 2, 3]], "row 0"),
        ([[1, 2, 3]], "row 0"),
        ([[1, 2, 3, 5]], "from 1 to 5"),
    ],
)
def test_what_is_no_tour(tours, message):
    with pytest.raises(InputError, match=message):
        tour_lengths(SQUARE, torch.tensor(tours))


def test_what_is_refused():
    with pytest.raises(InputError, match="at least 3"):
        tour_lengths(SQUARE[:, :2], torch.tensor([[1, 2]]))
    with pytest.raises(InputError, match="predicted has dtype"):
        tour_scores(SQUARE, torch.tensor([[1.0, 0.0]]))
    with pytest.raises(InputError, match="sequences has shape"):
        valid_tours(SQUARE, torch.tensor([1, 0]))
