"""Bags: checks, selection, joining, padding."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.data.bags import Bags, joined, padded
from common.errors import DataError, InputError


def bags_of(sizes, d=3, *, kinds=True):
    generator = np.random.default_rng(len(sizes))
    total = sum(sizes)
    return Bags(
        generator.normal(size=(total, d)).astype(np.float32),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.arange(len(sizes)) % 2,
        np.arange(total) % 3 if kinds else None,
        np.stack([np.arange(total)] * 2, axis=1),
        tuple(f"bag {number}" for number in range(len(sizes))),
    )


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 3))
def test_padding_keeps_every_instance_in_its_place(sizes, extra):
    bags = bags_of(sizes)
    found = padded(bags, length=max(sizes) + extra)
    assert found.instances.shape == (len(sizes), max(sizes) + extra, 3)
    for number, size in enumerate(sizes):
        assert found.mask[number].tolist() == [True] * size + [False] * (max(sizes) + extra - size)
        np.testing.assert_array_equal(found.instances[number, :size], bags.instances[bags.bag(number)])
        assert not found.instances[number, size:].any()
        assert bags.kinds is not None
        assert found.kinds[number].tolist() == [*bags.kinds[bags.bag(number)], *[0] * (max(sizes) + extra - size)]
    assert found.labels.tolist() == bags.labels.tolist()


def test_selecting_and_joining():
    bags = bags_of([2, 1, 3])
    chosen = bags.select([2, 0])
    np.testing.assert_array_equal(chosen.instances, np.concatenate([bags.instances[3:6], bags.instances[:2]]))
    assert chosen.names == ("bag 2", "bag 0")
    assert chosen.sizes.tolist() == [3, 2]
    assert bags.kinds is not None
    assert chosen.kinds is not None
    np.testing.assert_array_equal(chosen.kinds, np.concatenate([bags.kinds[3:6], bags.kinds[:2]]))
    both = joined([bags, chosen])
    assert len(both) == 5
    np.testing.assert_array_equal(both.instances[both.bag(3)], bags.instances[3:6])
    assert joined([bags, bags_of([1], kinds=False)]).kinds is None
    for wrong in ([], [3], [-1]):
        with pytest.raises(DataError, match="are asked for"):
            bags.select(wrong)
    with pytest.raises(DataError, match="cannot be joined"):
        joined([bags, bags_of([2], d=4)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": np.array([0, 2, 2])}, "at least one"),
        ({"offsets": np.array([0, 1, 3])}, "number of instances"),
        ({"offsets": np.array([0, 2])}, "one offset more"),
        ({"instances": np.full((2, 3), np.nan)}, "not finite"),
        ({"labels": np.array([-1, 0])}, "numbered from 0"),
        ({"kinds": np.zeros(5, dtype=np.int64)}, "kinds has 5 rows for 2"),
    ],
)
def test_bags_that_make_no_sense_are_refused(changes, message):
    content = {"instances": np.zeros((2, 3)), "offsets": np.array([0, 1, 2]), "labels": np.array([0, 1])}
    with pytest.raises(DataError, match=message):
        Bags(**{**content, **changes})


def test_a_length_that_is_too_short_is_refused():
    with pytest.raises(InputError, match="largest bag has 3"):
        padded(bags_of([1, 3]), length=2)
    assert padded(bags_of([1, 3]), dtype=torch.float16).instances.dtype == torch.float16
