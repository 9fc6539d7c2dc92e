"""The interval of a mean against hand-worked bootstraps and the normal approximation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.errors import InputError
from common.statistics import mean_interval

# The resampled mean of n values of which one is 1 and the others 0 is Binomial(n, 1/n) / n: its quantiles are known exactly.


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_equals_the_quantiles_of_the_exact_bootstrap_distribution(n, confidence):
    values = np.zeros(n)
    values[0] = 1
    found = mean_interval(values, confidence)
    tails = (1 - confidence) / 2
    exact = stats.binom(n, 1 / n)
    assert found.low == exact.ppf(tails) / n
    assert found.high == exact.ppf(1 - tails) / n
    assert (found.mean, found.n) == (1 / n, n)


def test_a_hand_worked_case():
    # {0, 0, 3}: the mean is 3 with probability 1/27 > 2.5% and 0 with probability 8/27.
    assert mean_interval(np.array([0.0, 0.0, 3.0])) == (1.0, 0.0, 3.0, 3)


def test_approaches_the_normal_interval_for_many_values():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = mean_interval(values)
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_one_value_has_no_interval_and_equal_values_a_point():
    assert mean_interval(np.array([2.5])) == (2.5, None, None, 1)
    assert mean_interval(np.full(4, 2.5)) == (2.5, 2.5, 2.5, 4)


@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(st.integers(-100, 100), min_size=2, max_size=12),
    shift=st.integers(-1000, 1000),
    scale=st.integers(1, 10),
)
def test_moves_and_scales_with_the_values_and_holds_the_mean(values, shift, scale):
    before, after = (mean_interval(np.array(x, dtype=float)) for x in (values, [scale * v + shift for v in values]))
    assert before.low is not None
    assert before.high is not None
    assert before.low <= before.mean <= before.high
    assert after[:3] == pytest.approx([scale * x + shift for x in (before.mean, before.low, before.high)], abs=1e-6)
    assert mean_interval(np.array(values, dtype=float)) == before


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, np.nan], [np.inf, 1.0], 3.0])
def test_what_is_no_vector_of_finite_numbers_is_refused(values):
    with pytest.raises(InputError, match="non-empty vector of finite numbers"):
        mean_interval(np.array(values))
