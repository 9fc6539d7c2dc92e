"""SAPS-I and SOFA as they come with the data: one number a stay, turned into a probability by a regression on that number."""

import numpy as np

from papers.tscan.logistic_regression import fit, standardised


def probabilities(score: np.ndarray, labels: np.ndarray, training: np.ndarray, test: np.ndarray) -> np.ndarray:
    """P(label 1) of the test stays.

    Args:
        score: [stays]; an unknown score (NaN) counts as the training mean.
        labels: [stays], 0 or 1.
        training: rows to fit on.
        test: rows to predict.
    """
    column = standardised(score[:, None], training)
    return fit(column[training], labels[training], C=1.0).predict_proba(column[test])[:, 1]
