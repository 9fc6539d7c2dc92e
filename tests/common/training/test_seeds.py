"""Derived seeds: the same everywhere, different for every purpose."""

from hypothesis import given
from hypothesis import strategies as st

from common.training import derived_seed

PURPOSE = st.lists(st.one_of(st.integers(0, 100), st.text(max_size=5)), max_size=3)


def test_a_known_value():
    assert derived_seed(0, "order", 5, 1) == 6104183784955302586  # sha256sum of (0, 'order', 5, 1), first 16 digits, halved


@given(st.integers(0, 2**63 - 1), PURPOSE, st.integers(0, 2**63 - 1), PURPOSE)
def test_different_purposes_give_different_seeds(seed, purpose, other_seed, other_purpose):
    first, second = derived_seed(seed, *purpose), derived_seed(other_seed, *other_purpose)
    assert 0 <= first < 2**63
    assert (first == second) == ((seed, purpose) == (other_seed, other_purpose))
