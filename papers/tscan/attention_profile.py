"""Numbers that sum up which hours and variables receive attention."""

from itertools import combinations

import numpy as np
from scipy.stats import rankdata


def causal_expectation(tokens: int) -> np.ndarray:
    """What each key receives where every query spreads its attention evenly over the keys that a causal mask lets it see.

    Key k receives the mean over queries q of 1 / (q + 1) for q >= k: the mask alone favours early keys.
    """
    share = np.tril(np.ones((tokens, tokens)) / np.arange(1, tokens + 1)[:, None])
    return share.mean(0)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where either side is constant, which `scipy.stats.spearmanr` leaves undefined."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def rank_correlation(values: np.ndarray) -> float:
    """Spearman's correlation of values with their place; 0 where all are equal."""
    return spearman(np.arange(len(values)), values)


def hours_correlations(hours: np.ndarray, segments: int, *, causal: bool) -> dict[str, float]:
    """Do later hours receive more attention?

    Args:
        hours: [T], mean attention received within the segment of each hour.
        segments: n.
        causal: whether hours saw no later ones.

    Returns:
        Spearman's correlation with the hour "inside" a segment, as the mean over segments, and over "all" hours; and
        "corrected", inside a segment after division by what a causal mask alone gives.
    """
    parts = hours.reshape(segments, -1)
    expected = causal_expectation(parts.shape[1]) if causal else np.ones(parts.shape[1])
    return {
        "inside": float(np.mean([rank_correlation(part) for part in parts])),
        "all": rank_correlation(hours),
        "corrected": float(np.mean([rank_correlation((part / expected).round(12)) for part in parts])),
    }


def top(values: np.ndarray, count: int) -> set[int]:
    """Places of the greatest values."""
    return set(np.argsort(-values, kind="stable")[:count].tolist())


def jaccards(values: np.ndarray, count: int) -> list[float]:
    """Overlap of the greatest `count` places of each pair of rows of values [S, n]: |both| / |either|."""
    sets = [top(row, count) for row in values]
    return [len(a & b) / len(a | b) for a, b in combinations(sets, 2)]
