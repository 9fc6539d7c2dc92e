"""Metrics of probabilities against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import auc, brier_score_loss, precision_recall_curve, roc_auc_score

from common.errors import InputError
from common.metrics.classification import bootstrapped_aurocs, calibration, discrimination, reliability


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=2, max_size=60))
def test_areas_equal_scikit_learn_with_ties(pairs):
    labels, scores = np.array([int(a) for a, _ in pairs]), np.array([b / 10 for _, b in pairs])
    if len(set(labels)) < 2:
        with pytest.raises(InputError, match="each at least once"):
            discrimination(labels, scores)
        return
    found = discrimination(labels, scores)
    wins = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
    assert found.auroc == pytest.approx(np.mean(wins))
    precision, recall, _ = precision_recall_curve(labels, scores)
    assert found.auprc == pytest.approx(auc(recall, precision))


def drawn(n=2000, slope=2.0):
    rng = np.random.default_rng(0)
    logit = rng.normal(-1, 1.5, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int)
    return labels, 1 / (1 + np.exp(-slope * logit))


def test_calibration_equals_scikit_learn():
    labels, probabilities = drawn()
    found = calibration(labels, probabilities)
    assert found.brier == pytest.approx(brier_score_loss(labels, probabilities))
    share, mean = calibration_curve(labels, probabilities, n_bins=10, strategy="quantile")
    assert found.expected_error == pytest.approx(np.abs(share - mean).mean(), abs=1e-3)
    logit = np.log(probabilities / (1 - probabilities))[:, None]
    reference = LogisticRegression(C=np.inf).fit(logit, labels)
    assert found.slope == pytest.approx(reference.coef_[0, 0], abs=1e-3)
    assert found.intercept == pytest.approx(reference.intercept_[0], abs=1e-3)
    assert found.slope == pytest.approx(0.5, abs=0.1)  # twice the true logit
    _, counts, _, _ = reliability(labels, probabilities)
    assert counts.sum() == len(labels)


def test_resampled_areas_equal_scikit_learn_on_the_same_cases_and_lie_around_the_whole():
    labels, probabilities = drawn(300)
    scores = np.stack([probabilities, probabilities.round(1), np.zeros(300)])
    found = bootstrapped_aurocs(labels, scores, resamples=200, seed=3)
    rng = np.random.default_rng(3)
    cases, controls = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    for row in found[:5]:
        rows = np.concatenate([rng.choice(cases, len(cases)), rng.choice(controls, len(controls))])
        np.testing.assert_allclose(row, [float(roc_auc_score(labels[rows], score[rows])) for score in scores])
    assert found[:, 0].mean() == pytest.approx(roc_auc_score(labels, probabilities), abs=0.01)
    assert (found[:, 2] == 0.5).all()


def test_bad_input_is_refused():
    labels = np.array([0, 1])
    with pytest.raises(InputError, match="vectors of one length"):
        discrimination(labels, np.ones(3))
    with pytest.raises(InputError, match="finite"):
        discrimination(labels, np.array([0.1, np.nan]))
    with pytest.raises(InputError, match="must lie in"):
        calibration(labels, np.array([0.1, 1.5]))
    with pytest.raises(InputError, match="one row of scores"):
        bootstrapped_aurocs(labels, np.ones(2), resamples=1, seed=0)
