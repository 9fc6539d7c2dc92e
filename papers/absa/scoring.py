"""Accuracy and macro-F1 of classes, which epoch counts, and a paired test over test sentences."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.metrics import f1_score

from common.data.aspects import POLARITIES
from common.errors import InputError

Selection = Literal["validation", "last", "test"]
"""Which epoch counts: the best on validation sentences, the last, or, as in the official scripts, the best on the test set."""

CLASSES = range(len(POLARITIES))


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Percentage of sentences that are classified correctly.

    Args:
        labels: int [N], N >= 1.
        predicted: int [N].

    Raises:
        InputError: there are no sentences, or shapes differ.
    """
    _check(labels, predicted)
    return 100 * float(np.mean(labels == predicted))


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over negative, neutral and positive of F1, in percent; a class that is neither there nor predicted has 0.

    Args:
        labels: int [N], N >= 1.
        predicted: int [N].

    Raises:
        InputError: there are no sentences, or shapes differ.
    """
    _check(labels, predicted)
    score = f1_score(
        labels,
        predicted,
        labels=list(CLASSES),
        average="macro",
        zero_division=0,  # pyright: ignore[reportArgumentType]
    )
    return 100 * float(score)


def _check(labels: np.ndarray, predicted: np.ndarray) -> None:
    if labels.ndim != 1 or labels.shape != predicted.shape or not labels.size:
        raise InputError(f"labels and predicted have shapes {labels.shape} and {predicted.shape}; give two vectors alike.")


def best_epoch(labels: np.ndarray, predicted: np.ndarray) -> int:
    """The epoch with the greatest accuracy, of such the greatest macro-F1, of such the first.

    Args:
        labels: int [N].
        predicted: int [epochs, N].
    """
    scores = [(accuracy(labels, row), macro_f1(labels, row)) for row in predicted]
    return max(range(len(scores)), key=lambda epoch: (*scores[epoch], -epoch))


def chosen_epoch(selection: Selection, validation: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> int:
    """The epoch that counts.

    Args:
        selection: how it is chosen.
        validation: labels [N] and predictions [epochs, N].
        test: the same of the test set; used for nothing but the selection `test`.
    """
    if selection == "last":
        return len(validation[1]) - 1
    return best_epoch(*(validation if selection == "validation" else test))


@dataclass(frozen=True)
class PairedTest:
    """The gain of one method over another on resampled test sentences.

    Attributes:
        gain: of macro-F1, percentage points, mean over seeds.
        low: of its 95% interval.
        high: of its 95% interval.
        p_value: share of resamples in which the gain is not positive, at least 1/(resamples + 1).
    """

    gain: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(labels: np.ndarray, better: np.ndarray, than: np.ndarray, *, resamples: int, seed: int = 0) -> PairedTest:
    """Paired bootstrap over test sentences: every resample draws sentences, and takes all seeds' predictions for them.

    Args:
        labels: int [N].
        better: predictions of the method said to be better, int [seeds, N].
        than: of the other.
        resamples: how many.
        seed: of the drawing.

    Raises:
        InputError: shapes do not fit.
    """
    if better.shape != than.shape or better.ndim != 2 or better.shape[1:] != labels.shape or not labels.size:
        raise InputError(f"predictions have shapes {better.shape} and {than.shape} for labels of shape {labels.shape}.")
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(labels.size, np.full(labels.size, 1 / labels.size), size=resamples).astype(np.float64)
    weights = np.concatenate([np.ones((1, labels.size)), weights])  # the first is the sample itself
    gains = _weighted_f1(labels, better, weights) - _weighted_f1(labels, than, weights)
    low, high = np.percentile(gains[1:], [2.5, 97.5])
    return PairedTest(float(gains[0]), float(low), float(high), (1 + int((gains[1:] <= 0).sum())) / (resamples + 1))


def _weighted_f1(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Macro-F1 in percent under weights [resamples, N] of the sentences, mean over seeds: [resamples]."""
    total = np.zeros(len(weights))
    for row in predicted:
        for number in CLASSES:
            true, said = labels == number, row == number
            hits = weights @ (true & said)
            both = weights @ true.astype(np.float64) + weights @ said.astype(np.float64)
            total += 2 * hits / np.where(both > 0, both, 1)
    return 100 * total / (len(predicted) * len(CLASSES))
