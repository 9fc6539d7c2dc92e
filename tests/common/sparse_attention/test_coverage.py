"""Coverage, density and the oracle's curve: loops, hand-worked numbers and brute force over all masks."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.sparse_attention import (
    block_attention_mass,
    coverage,
    density,
    density_at_coverage,
    oracle_curve,
    oracle_mask,
)


def causal_mass(seed: int, heads: int, T: int) -> torch.Tensor:
    logits = 2 * torch.randn(1, heads, T, T, generator=torch.Generator().manual_seed(seed))
    return logits.masked_fill(~torch.ones(T, T).tril().bool(), -torch.inf).softmax(-1)


def random_mask(seed: int, heads: int, T: int) -> torch.Tensor:
    return (torch.rand(1, heads, T, T, generator=torch.Generator().manual_seed(seed)) < 0.5).tril()


def test_coverage_by_hand():
    mass = torch.tensor([[[[1.0, 0.0], [0.75, 0.25]]]])
    mask = torch.tensor([[[[True, False], [True, False]]]])
    assert coverage(mask, mass).tolist() == [[0.875]]


def test_density_by_hand():
    mask = torch.tensor([[[[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 1]]]]).bool()
    assert density(mask, 32, 16).tolist() == [[7 / 10]]
    assert density(mask, 32, 16, counted="causal").tolist() == [[5 / 10]]
    everything = torch.tensor([[[[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]]]).bool()
    assert density(everything, 32, 16).tolist() == [[12 / 10]]
    assert density(everything, 32, 16, counted="causal").tolist() == [[1.0]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 3))
def test_coverage_and_density_equal_the_loops_and_stay_in_range(seed, T, heads):
    mass, mask = causal_mass(seed, heads, T), random_mask(seed + 1, heads, T)
    kept, read = coverage(mask, mass), density(mask, 8, 8)
    for h in range(heads):
        by_loop = sum(float(mass[0, h, i, j]) for i in range(T) for j in range(T) if mask[0, h, i, j]) / T
        assert float(kept[0, h]) == pytest.approx(by_loop, abs=1e-9)
        assert float(read[0, h]) == sum(map(sum, mask[0, h].tolist())) / (T * (T + 1) / 2)
    assert ((kept >= 0) & (kept <= 1 + 1e-6)).all()
    assert (coverage(mask | random_mask(seed + 2, heads, T), mass) >= kept).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_matrix_oracle_is_the_best_of_all_selections(seed, T):
    mass = causal_mass(seed, 1, T)
    entries = [float(mass[0, 0, i, j]) for i in range(T) for j in range(i + 1)]
    counts = range(len(entries) + 1)
    curve = oracle_curve(mass, torch.tensor([n / len(entries) for n in counts], dtype=torch.float64))
    for n in counts:
        best = max(sum(choice) for choice in itertools.combinations(entries, n)) / T
        assert float(curve.coverage[0, 0, n]) == pytest.approx(best, abs=1e-9)
        assert float(curve.density[n]) == n / len(entries)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 16), st.sampled_from(["matrix", "row"]))
def test_curve_is_monotone_and_ends_at_one(seed, T, scope):
    curve = oracle_curve(causal_mass(seed, 2, T), torch.linspace(0, 1, 23), scope=scope)
    assert (curve.density.diff() >= 0).all()
    assert (curve.coverage.diff(dim=-1) >= 0).all()
    assert float(curve.density[-1]) == 1
    assert (curve.coverage[..., 0] == 0).all()
    torch.testing.assert_close(curve.coverage[..., -1], torch.ones(1, 2, dtype=torch.float64), atol=1e-6, rtol=0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.sampled_from(["matrix", "row"]), st.sampled_from([0.1, 0.5, 0.9, 0.975]))
def test_density_at_coverage_is_the_smallest(seed, T, scope, target):
    mass = causal_mass(seed, 2, T)
    found = density_at_coverage(mass, target, scope=scope)
    for h in range(2):
        rows = [sorted(mass[0, h, i].tolist(), reverse=True) for i in range(T)]
        groups = rows if scope == "row" else [sorted(itertools.chain(*rows), reverse=True)]

        def least(wanted, groups=groups):
            return sum(next(n for n in range(1, len(group) + 1) if sum(group[:n]) >= wanted * sum(group)) for group in groups)

        # Masses are float32: where a sum meets the target to their precision, one block more or less is right.
        count = float(found[0, h]) * T * (T + 1) / 2
        assert least(target * (1 - 1e-6)) <= round(count) <= least(target * (1 + 1e-6))
        assert count == pytest.approx(round(count))


def test_forced_blocks_come_first_and_count():
    mass = torch.tensor([[[[1.0, 0.0, 0.0], [0.1, 0.9, 0.0], [0.05, 0.35, 0.6]]]])
    diagonal = torch.eye(3).bool()[None, None]
    corner = torch.zeros(1, 1, 3, 3).bool()
    corner[..., 2, 0] = True
    assert float(density_at_coverage(mass, 0.5)) == 2 / 6
    assert float(density_at_coverage(mass, 0.5, forced=diagonal)) == 3 / 6
    assert float(density_at_coverage(mass, 0.5, forced=corner)) == 3 / 6
    assert float(density_at_coverage(mass, 0.5, scope="row", forced=corner)) == 4 / 6


def test_permuting_keys_changes_density_but_not_total_mass():
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 2, 64, 8, generator=generator) for _ in range(2))
    order = (torch.rand(1, 2, 2, 32, generator=generator).argsort(-1) + torch.tensor([[0], [32]])).flatten(2).int()
    mass = block_attention_mass(q, k, 8, key_order=order)
    found = density_at_coverage(mass, 0.9)
    assert ((found > 0) & (found <= 1.5)).all()
    mask = oracle_mask(mass, 8, 32, coverage=1.0)
    torch.testing.assert_close(coverage(mask, mass), torch.ones(1, 2, dtype=torch.float64), atol=1e-6, rtol=0)
    assert mask[0, 0].sum() == sum((i // 4 + 1) * 4 for i in range(8))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 12), st.sampled_from(["matrix", "row"]), st.sampled_from([0.3, 0.7, 0.95]))
def test_oracle_masks_reach_what_they_are_asked_for(seed, T, scope, share):
    mass = causal_mass(seed, 2, T)
    by_coverage = oracle_mask(mass, 8, 8, coverage=share, scope=scope)
    assert (coverage(by_coverage, mass) >= share - 1e-5).all()
    assert not by_coverage.triu(1).any()
    if scope == "matrix":
        torch.testing.assert_close(density(by_coverage, 8, 8), density_at_coverage(mass, share))
    by_density = oracle_mask(mass, 8, 8, density=share, scope=scope)
    curve = oracle_curve(mass, torch.tensor([share], dtype=torch.float64), scope=scope)
    torch.testing.assert_close(density(by_density, 8, 8), curve.density.expand(1, 2))
    torch.testing.assert_close(coverage(by_density, mass), curve.coverage[..., 0])


def test_whole_curve_of_a_long_head_fits_the_exact_count():
    T = 64
    assert math.isclose(float(oracle_curve(causal_mass(0, 1, T), torch.tensor([0.5])).density[0]), 1040 / 2080)


MASS, MASK = causal_mass(0, 1, 4), random_mask(0, 1, 4)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("mask is torch.float32", lambda: coverage(MASS, MASS)),
        ("they must be equal", lambda: coverage(MASK[..., :3, :3], MASS)),
        ("mass is torch.bool", lambda: coverage(MASK, MASK)),
        ("later segment", lambda: density(torch.ones(1, 1, 4, 4).bool(), 16, 8)),
        ("counted is 'all'", lambda: density(MASK, 8, 8, counted="all")),  # pyright: ignore[reportArgumentType]
        ("not a multiple", lambda: density(MASK, 12, 8)),
        ("densities are", lambda: oracle_curve(MASS, torch.tensor([1.5]))),
        ("scope is 'column'", lambda: oracle_curve(MASS, torch.tensor([0.5]), scope="column")),  # pyright: ignore[reportArgumentType]
        ("target is 0", lambda: density_at_coverage(MASS, 0.0)),
        ("forced has shape", lambda: density_at_coverage(MASS, 0.5, forced=MASK[..., :3, :3])),
        ("exactly one", lambda: oracle_mask(MASS, 8, 8)),
        ("exactly one", lambda: oracle_mask(MASS, 8, 8, coverage=0.5, density=0.5)),
        ("coverage is 1.5", lambda: oracle_mask(MASS, 8, 8, coverage=1.5).any()),
    ],
)
def test_bad_input_is_named(message, call):
    with pytest.raises(InputError, match=message):
        call()
