"""Scores against scikit-learn and loops; what is said of heat maps, worked by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import confusion_matrix, roc_auc_score

from common.errors import InputError
from papers.acmil.evaluation import attention_entropy, attention_recall, classification_scores, cumulative_attention


@given(st.integers(2, 4), st.integers(0, 1000))
def test_classification_scores(classes, seed):
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(classes, size=12)])
    probabilities = generator.dirichlet(np.ones(classes), len(labels))
    found = classification_scores(labels, probabilities)
    auc = []
    for k in range(classes):  # pairs of a bag of the class and one of another
        own, other = probabilities[labels == k, k], probabilities[labels != k, k]
        auc.append(np.mean([(a > b) + 0.5 * (a == b) for a in own for b in other]))
    assert found["auc"] == pytest.approx(np.mean(auc))
    if classes == 2:
        assert found["auc"] == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))
    matrix = confusion_matrix(labels, probabilities.argmax(1), labels=range(classes))
    f1 = 2 * np.diag(matrix) / np.maximum(matrix.sum(0) + matrix.sum(1), 1)
    assert found["f1_macro"] == pytest.approx(f1.mean())
    assert found["accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())


def test_a_class_without_bags_has_no_auc():
    with pytest.raises(InputError, match="has class 1"):
        classification_scores(np.zeros(3, dtype=np.int64), np.full((3, 2), 0.5))


def test_heat_maps():
    a = torch.tensor([[0.1, 0.6, 0.3, 0.0], [0.25, 0.25, 0.25, 0.25]])
    torch.testing.assert_close(cumulative_attention(a, 2), torch.tensor([[0.6, 0.9], [0.25, 0.5]]))
    torch.testing.assert_close(cumulative_attention(a, 6)[0], torch.tensor([0.6, 0.9, 1, 1, 1, 1]))
    torch.testing.assert_close(attention_entropy(a)[0].item(), float(entropy([0.1, 0.6, 0.3])), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(attention_entropy(a)[1].item(), math.log(4), atol=1e-6, rtol=1e-6)


def test_recall():
    a = torch.tensor([[0.4, 0.3, 0.2, 0.1, 0.0]])
    kinds = torch.tensor([[0, 2, 1, 0, 2]])  # three witnesses, so that the first three instances count
    assert attention_recall(a, kinds, 1).tolist() == [1.0]
    assert attention_recall(a, kinds, 2).tolist() == [0.5]
    assert math.isnan(attention_recall(a, torch.zeros_like(kinds), 1).item())
