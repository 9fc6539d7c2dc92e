"""The order of data: every example once an epoch, buckets uniformly, the same again from a saved state."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.training import Batches, order_of_data


def buckets(counts):
    return {key: (torch.zeros(count, key), torch.zeros(count)) for key, count in counts.items()}


def drawn(batches, count):
    return [(key, rows.tolist()) for key, rows in (batches.draw() for _ in range(count))]


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.integers(2, 9), st.integers(4, 30), min_size=1, max_size=3), st.integers(1, 4), st.integers(0, 2**40))
def test_an_epoch_of_a_bucket_takes_no_example_twice(counts, batch_size, seed):
    rows = {key: [] for key in counts}
    for key, taken in drawn(Batches(buckets(counts), batch_size, seed), 60):
        assert len(taken) == batch_size
        rows[key] += taken
    for key, taken in rows.items():
        epoch = counts[key] // batch_size * batch_size
        for start in range(0, len(taken), epoch):
            part = taken[start : start + epoch]
            assert len(set(part)) == len(part)
            assert set(part) <= set(range(counts[key]))


def test_epochs_differ_and_are_shuffled():
    taken = [row for _, rows in drawn(Batches(buckets({3: 40}), 4, 0), 20) for row in rows]
    assert sorted(taken[:40]) == sorted(taken[40:]) == list(range(40))
    assert taken[:40] != taken[40:]
    assert list(range(40)) not in (taken[:40], taken[40:])


def test_buckets_are_drawn_uniformly_whatever_their_size():
    counts = Counter(key for key, _ in drawn(Batches(buckets({5: 10, 6: 1000, 7: 50}), 10, 3), 3000))
    assert all(abs(counts[key] - 1000) < 5 * (3000 * 2 / 9) ** 0.5 for key in (5, 6, 7))


def test_the_seed_alone_decides():
    data = buckets({5: 20, 6: 30})
    torch.manual_seed(1)
    first = drawn(Batches(data, 4, 7), 30)
    torch.manual_seed(2)
    assert drawn(Batches(data, 4, 7), 30) == first
    assert drawn(Batches(data, 4, 8), 30) != first


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_a_saved_order_goes_on(before, after):
    data = buckets({5: 20, 6: 9, 7: 4})
    batches = Batches(data, 4, 11)
    drawn(batches, before)
    state = batches.state()
    expected = drawn(batches, after)
    resumed = Batches(data, 4, 11)
    resumed.load_state(state)
    assert drawn(resumed, after) == expected


def test_bad_input():
    for call, message in [
        (lambda: Batches({}, 2, 0), "buckets is empty"),
        (lambda: Batches({5: ()}, 2, 0), "a bucket has no tensors"),
        (lambda: Batches({5: (torch.zeros(3), torch.zeros(4))}, 2, 0), r"bucket 5 has tensors of \[3, 4\] examples"),
        (lambda: Batches(buckets({5: 3, 6: 2}), 3, 0), "bucket 6 has 2 examples and a batch takes 3"),
        (lambda: Batches(buckets({5: 3}), 0, 0), "batch_size is 0"),
        (lambda: Batches({5: (torch.zeros(3), torch.zeros(3, device="meta"))}, 2, 0), "tensors on cpu, meta"),
        (lambda: Batches(buckets({5: 4}), 2, 0).load_state(Batches(buckets({5: 4}), 2, 1).state()), "saved order has seed 1"),
        (lambda: Batches(buckets({5: 4}), 2, 0).load_state(Batches(buckets({6: 4}), 2, 0).state()), "saved order has seed 0"),
    ]:
        with pytest.raises(InputError, match=message):
            call()


def test_the_recorded_order_is_what_a_training_takes():
    from tests.common.training.small_problem import SGD, buckets, replica

    numbered = {key: (torch.arange(len(x)), *tensors) for key, (x, *tensors) in buckets().items()}
    order = order_of_data(numbered, SGD.batch_size, 3, 25)
    assert order.shape == (25, 5)
    batches = Batches(numbered, SGD.batch_size, 3)
    assert [(key, rows) for key, *rows in order.tolist()] == drawn(batches, 25)
    trained = replica(order_seed=3)
    for _, *rows in order.tolist():
        trained.advance()
        assert trained._rows.tolist() == rows
    with pytest.raises(InputError, match="steps is 0"):
        order_of_data(numbered, 4, 3, 0)
