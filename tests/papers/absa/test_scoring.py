"""Metrics against scikit-learn, selection of epochs, and the paired test."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from common.errors import InputError
from papers.absa.scoring import _weighted_f1, accuracy, best_epoch, chosen_epoch, macro_f1, paired_bootstrap

CLASSES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30)


@given(CLASSES)
def test_metrics_are_scikit_learns(pairs):
    labels, predicted = np.array(pairs).T
    assert accuracy(labels, predicted) == pytest.approx(100 * accuracy_score(labels, predicted))
    per_class = precision_recall_fscore_support(labels, predicted, labels=[0, 1, 2], zero_division=0)[2]  # pyright: ignore[reportArgumentType]
    assert macro_f1(labels, predicted) == pytest.approx(100 * np.mean(np.asarray(per_class)))


def test_macro_f1_by_hand():
    # Class 0: precision 1/2, recall 1; class 1: 1, 1/2; class 2: nowhere, counted as 0.
    assert macro_f1(np.array([0, 1, 1]), np.array([0, 0, 1])) == pytest.approx(100 * (2 / 3 + 2 / 3 + 0) / 3)


@given(CLASSES, st.integers(0, 1000))
def test_weighted_f1_is_that_of_repeated_sentences(pairs, seed):
    labels, predicted = np.array(pairs).T
    weights = np.random.default_rng(seed).integers(0, 3, labels.size)
    weights[0] += 1
    found = _weighted_f1(labels, predicted[None], weights[None].astype(float))
    expected = f1_score(
        labels.repeat(weights), predicted.repeat(weights), labels=[0, 1, 2], average="macro",
        zero_division=0,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    assert found[0] == pytest.approx(100 * float(expected))


def test_nothing_to_score():
    with pytest.raises(InputError, match="two vectors alike"):
        accuracy(np.array([]), np.array([]))
    with pytest.raises(InputError, match="two vectors alike"):
        macro_f1(np.array([0, 1]), np.array([0]))


def test_epochs_are_chosen_by_accuracy_then_f1_then_age():
    labels = np.array([0, 0, 1, 2])
    wrong, half, better = [2, 2, 2, 0], [0, 0, 0, 0], [0, 1, 1, 0]
    assert best_epoch(labels, np.array([wrong, half, better, better])) == 2
    validation = (labels, np.array([better, half, wrong]))
    test = (labels, np.array([wrong, better, half]))
    assert chosen_epoch("validation", validation, test) == 0
    assert chosen_epoch("test", validation, test) == 1
    assert chosen_epoch("last", validation, test) == 2


def test_the_test_set_has_no_part_in_choosing_on_validation():
    generator = np.random.default_rng(0)
    validation = (generator.integers(0, 3, 20), generator.integers(0, 3, (5, 20)))
    chosen = {
        chosen_epoch("validation", validation, (generator.integers(0, 3, 9), generator.integers(0, 3, (5, 9))))
        for _ in range(20)
    }
    assert len(chosen) == 1


def test_paired_bootstrap():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200)
    flawed = np.where(generator.random((3, 200)) < 0.4, generator.integers(0, 3, (3, 200)), labels)
    perfect = np.tile(labels, (3, 1))
    found = paired_bootstrap(labels, perfect, flawed, resamples=200)
    by_hand = np.mean([100 - macro_f1(labels, row) for row in flawed])
    assert found.gain == pytest.approx(by_hand)
    assert found.low < found.gain < found.high
    assert found.p_value == pytest.approx(1 / 201)
    same = paired_bootstrap(labels, flawed, flawed, resamples=50)
    assert (same.gain, same.p_value) == (0, 1)
    assert paired_bootstrap(labels, flawed, perfect, resamples=50).p_value == 1
    with pytest.raises(InputError, match="shapes"):
        paired_bootstrap(labels, perfect, flawed[:2], resamples=10)
