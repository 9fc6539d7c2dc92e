"""Random numbers from a counter: against splitmix64 written with Python's integers, and as a distribution."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from common.training.counter_random import mixed_seed, uniform

ALL = (1 << 64) - 1


def mixed(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & ALL
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & ALL
    return x ^ (x >> 31)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_numbers_are_those_of_splitmix64(seed):
    state, expected = seed & ALL, []
    for _ in range(5):
        state = (state + 0x9E3779B97F4A7C15) & ALL
        expected.append((mixed(state) >> 40) / (1 << 24))
    assert uniform(torch.tensor(seed), 5).tolist() == expected


def test_seeds_for_purposes_differ_and_integers_count_as_tensors():
    seed = torch.tensor(3)
    seeds = {int(mixed_seed(seed, a, b)) for a in range(20) for b in range(20)}
    assert len(seeds) == 400
    assert int(mixed_seed(seed, 7)) == int(mixed_seed(seed, torch.tensor(7)))


def test_uniform_and_independent_over_counters_and_seeds():
    seeds = mixed_seed(torch.arange(200), 0)
    numbers = torch.vmap(lambda seed: uniform(seed, 10, 10))(seeds)
    assert numbers.shape == (200, 10, 10)
    torch.testing.assert_close(numbers[5], uniform(seeds[5], 10, 10))
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 1e-3
    correlations = torch.corrcoef(numbers.flatten(1).T)
    assert float((correlations - torch.eye(100)).abs().max()) < 0.4  # of 4,950 pairs of 200 numbers
