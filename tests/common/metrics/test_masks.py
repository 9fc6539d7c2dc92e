"""Overlap of masks against scikit-learn and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from common.errors import InputError
from common.metrics.masks import cumulative_iou, iou_of_each, mean_iou, overlap


def masks(seed, n=4):
    generator = np.random.default_rng(seed)
    share = generator.uniform(0.1, 0.9, (3, n, 1, 1))
    predicted, target, valid = (torch.from_numpy(generator.random((n, 6, 7)) < x) for x in share)
    valid[:, 0, 0] = True  # scikit-learn refuses an image without pixels
    return predicted, target, valid


@given(st.integers(0, 10_000))
def test_both_conventions_are_scikit_learns(seed):
    predicted, target, valid = masks(seed)
    counts = overlap(predicted, target, valid)
    each = [
        jaccard_score(t[v].numpy(), p[v].numpy(), zero_division=1.0)  # pyright: ignore[reportArgumentType]
        for p, t, v in zip(predicted, target, valid, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(iou_of_each(counts), each)
    assert mean_iou(counts) == pytest.approx(np.mean(each))
    together = jaccard_score(target[valid].numpy(), predicted[valid].numpy(), zero_division=1.0)  # pyright: ignore[reportArgumentType]
    assert cumulative_iou(counts) == pytest.approx(together)


def test_by_hand():
    predicted = torch.tensor([[[1, 1, 0, 0]], [[0, 0, 0, 0]], [[1, 1, 1, 1]]]).bool()
    target = torch.tensor([[[0, 1, 1, 0]], [[0, 0, 0, 0]], [[1, 0, 0, 0]]]).bool()
    counts = overlap(predicted, target)
    assert iou_of_each(counts).tolist() == pytest.approx([1 / 3, 1, 1 / 4])
    assert mean_iou(counts) == pytest.approx((1 / 3 + 1 + 1 / 4) / 3)
    assert cumulative_iou(counts) == pytest.approx(2 / 7)
    assert cumulative_iou(overlap(predicted[1:2], target[1:2])) == 1.0


def test_padding_counts_nowhere():
    predicted, target, valid = masks(0)
    inside = overlap(predicted & valid, target & valid)
    left_out = overlap(predicted, target, valid)
    assert torch.equal(inside.intersection, left_out.intersection)
    assert torch.equal(inside.union, left_out.union)


@pytest.mark.parametrize(
    ("predicted", "target"),
    [(torch.zeros(2, 3, 3), torch.zeros(2, 3, 3).bool()), (torch.zeros(2, 3, 4).bool(), torch.zeros(2, 3, 3).bool())],
)
def test_wrong_masks_are_named(predicted, target):
    with pytest.raises(InputError, match="predicted is"):
        overlap(predicted, target)
