"""The shortest prefix against a sorted loop in Python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.kernels.block_selection import shortest_prefix


def naive_prefix(scores: list[float], tau: float, allowed: list[bool]) -> list[bool]:
    kept = [False] * len(scores)
    total = 0.0
    for column in sorted((c for c in range(len(scores)) if allowed[c]), key=lambda c: (-scores[c], c)):
        kept[column] = True
        total += scores[column]
        if total >= tau:
            break
    return kept


@st.composite
def rows(draw):
    # Integer weights make exact ties likely; a multiple of 1/7 as tau stays clear of rounding at 1e-6.
    weights = draw(st.lists(st.integers(0, 5), min_size=1, max_size=12))
    allowed = draw(st.lists(st.booleans(), min_size=len(weights), max_size=len(weights)))
    total = sum(w for w, a in zip(weights, allowed, strict=True) if a)
    return [w / total if a and total else 0.0 for w, a in zip(weights, allowed, strict=True)], allowed


@settings(max_examples=200, deadline=None)
@given(rows(), st.sampled_from([0.05, 0.137, 0.333, 0.512, 0.777, 0.903, 0.989]))
def test_equals_the_loop(row, tau):
    scores, allowed = row
    kept = shortest_prefix(torch.tensor([scores]), tau, torch.tensor([allowed]))
    # A prefix that reaches tau exactly may round either way in float32, but then the loop in float64 differs by the same rule:
    # stop.
    assert kept[0].tolist() == naive_prefix([round(s, 12) for s in scores], tau - 1e-6, allowed)


def test_hand_worked_example():
    scores = torch.tensor([[0.1, 0.5, 0.1, 0.3]])
    everything = torch.ones(4, dtype=torch.bool)
    assert shortest_prefix(scores, 0.5, everything).tolist() == [[False, True, False, False]]
    assert shortest_prefix(scores, 0.8, everything).tolist() == [[False, True, False, True]]
    assert shortest_prefix(scores, 0.9, everything).tolist() == [[True, True, False, True]]  # tie: lower column first
    assert shortest_prefix(scores, 0.95, everything).tolist() == [[True, True, True, True]]


def test_one_keeps_all_allowed_even_where_scores_vanish():
    allowed = torch.tensor([[True, True, False, True]])
    assert torch.equal(shortest_prefix(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), 1.0, allowed), allowed)


def test_sum_that_never_reaches_tau_keeps_all_allowed():
    scores = torch.full((1, 1000), 0.999 / 1000)  # a row whose sum falls short
    assert shortest_prefix(scores, 0.9999, torch.ones_like(scores, dtype=torch.bool)).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_grows_with_tau_and_never_selects_nothing(seed, width, one, other):
    scores = torch.randn(5, width, generator=torch.Generator().manual_seed(seed)).mul(3).softmax(-1)
    allowed = torch.ones_like(scores, dtype=torch.bool)
    less, more = (shortest_prefix(scores, tau, allowed) for tau in sorted((one, other)))
    assert (less <= more).all()
    assert less.any(-1).all()


def test_rows_with_nothing_allowed_select_nothing():
    assert not shortest_prefix(torch.zeros(2, 3), 0.9, torch.zeros(2, 3, dtype=torch.bool)).any()


def test_nan_keeps_its_row_and_no_other():
    scores = torch.tensor([[float("nan")] * 3, [0.2, 0.7, 0.1]])
    kept = shortest_prefix(scores, 0.5, torch.tensor([[True, True, False]]))
    assert kept.tolist() == [[True, True, False], [False, True, False]]


@pytest.mark.parametrize("tau", [0.0, -0.1, 1.1, float("nan")])
def test_share_outside_its_range_is_an_error(tau):
    with pytest.raises(InputError, match="tau is"):
        shortest_prefix(torch.ones(1, 1), tau, torch.ones(1, 1, dtype=torch.bool))
