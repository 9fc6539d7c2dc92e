"""C99 (Choi, 2000): divisive clustering of the ranks of sentence similarities.

S_ij  cosine of stem counts of sentences i and j                                       Section 3.1
R_ij  share of the 11 x 11 neighbourhood of S_ij that is smaller                       Section 3.2
D     Σ_k s_k / Σ_k a_k: inside density of a segmentation, s_k the sum of ranks and    Section 3.3
      a_k = (length of segment k)² the area of segment k
δD_n  D_n - D_(n-1): what the cut into n segments gains; smoothed before it is judged  Section 3.3, footnote 3
"""

from collections.abc import Sequence

import numpy as np

from common.errors import InputError
from common.metrics.segmentation import segments_of
from papers.topic_segmentation.words import count_vectors

NEIGHBOURHOOD = 11
DEVIATIONS = 1.2
MASK = np.array([1.0, 2, 4, 8, 4, 2, 1])


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Cosine of every pair of lines: [n, d] -> [n, n]; 0 where a line has only zeros."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return unit @ unit.T


def ranks(similarities: np.ndarray, neighbourhood: int = NEIGHBOURHOOD) -> np.ndarray:
    """The share of neighbours with a smaller similarity; at the edges of those that exist.

    Args:
        similarities: S, [n, n].
        neighbourhood: side of the square, odd.

    Returns:
        R, float64 [n, n], in 0..1.

    Raises:
        InputError: the side is not odd and at least 3.
    """
    if neighbourhood < 3 or neighbourhood % 2 == 0:
        raise InputError(f"neighbourhood is {neighbourhood}; it is odd and at least 3.")
    n, reach = len(similarities), neighbourhood // 2
    smaller = np.zeros((n, n), dtype=np.int32)
    offsets = range(-min(reach, n - 1), min(reach, n - 1) + 1)
    for down in offsets:
        for right in offsets:
            here = _shifted(down, n), _shifted(right, n)
            there = _shifted(-down, n), _shifted(-right, n)
            smaller[here] += similarities[there] < similarities[here]
    inside = np.minimum(np.arange(n), reach) + np.minimum(np.arange(n)[::-1], reach) + 1
    return smaller / np.maximum(np.outer(inside, inside) - 1, 1)


def _shifted(offset: int, n: int) -> slice:
    """Places i for which i + offset is a place too."""
    return slice(max(0, -offset), n - max(0, offset))


def split_order(R: np.ndarray, most: int | None = None) -> tuple[list[int], np.ndarray]:
    """Divisive clustering: at each step the one cut that makes the density D greatest.

    Args:
        R: ranks, [n, n].
        most: cuts at most; None goes on until every sentence is alone.

    Returns:
        Gaps in the order they were cut, and D before the first and after each cut.
    """
    n = len(R)
    sums = np.zeros((n + 1, n + 1))
    sums[1:, 1:] = R.cumsum(axis=0).cumsum(axis=1)

    def inside(start: np.ndarray | int, end: np.ndarray | int) -> np.ndarray:
        return sums[end, end] - sums[start, end] - sums[end, start] + sums[start, start]

    gained, saved = np.zeros(n + 1), np.zeros(n + 1)  # by cutting before sentence g: change of Σ s (negative) and of Σ a

    def consider(start: int, end: int) -> None:
        cuts = np.arange(start + 1, end)
        gained[cuts] = inside(start, cuts) + inside(cuts, end) - inside(start, end)
        saved[cuts] = (cuts - start) ** 2 + (end - cuts) ** 2 - float(end - start) ** 2

    total, area = float(inside(0, n)), float(n * n)
    densities, order, bounds = [total / area], [], [0, n]
    consider(0, n)
    left = np.arange(1, n)
    for _ in range(n - 1 if most is None else min(most, n - 1)):
        cut = int(left[((total + gained[left]) / (area + saved[left])).argmax()])
        total, area = total + gained[cut], area + saved[cut]
        densities.append(total / area)
        order.append(cut - 1)
        left = left[left != cut]
        place = int(np.searchsorted(bounds, cut))
        consider(bounds[place - 1], cut)
        consider(cut, bounds[place])
        bounds.insert(place, cut)
    return order, np.array(densities)


def smoothed(gains: np.ndarray) -> np.ndarray:
    """Gains convolved with the mask 1, 2, 4, 8, 4, 2, 1: a small gain between large ones does not end the cutting.

    Args:
        gains: δD of each cut, [cuts].

    Returns:
        Weighted means, float64 [cuts]; at the ends of the gains that exist, as for ranks.
    """
    middle = slice(len(MASK) // 2, len(MASK) // 2 + len(gains))
    return np.convolve(gains, MASK)[middle] / np.convolve(np.ones(len(gains)), MASK)[middle]


def c99(sentences: Sequence[str], count: int | None = None, *, deviations: float = DEVIATIONS) -> tuple[int, ...]:
    """Segment a document.

    Args:
        sentences: of the document.
        count: the number of segments where it is known.
        deviations: without a count, cuts are made until the smoothed gain in density falls below μ + deviations · σ of all
            smoothed gains.

    Returns:
        Lengths of segments.

    Raises:
        InputError: there are no sentences, or the count is not in 1..n.
    """
    return c99_of(cosines(count_vectors(sentences)), count, deviations=deviations)


def c99_of(similarities: np.ndarray, count: int | None = None, *, deviations: float = DEVIATIONS) -> tuple[int, ...]:
    """As `c99`, from any sentence similarities [n, n]."""
    n = len(similarities)
    if count is not None and not 1 <= count <= n:
        raise InputError(f"count is {count} for a document of {n} sentences; it lies in 1..{n}.")
    order, densities = split_order(ranks(similarities), None if count is None else count - 1)
    if count is None and order:
        gains = smoothed(np.diff(densities))
        falls = np.flatnonzero(gains < gains.mean() + deviations * gains.std())
        order = order[: int(falls[0]) if len(falls) else len(order)]
    boundaries = np.zeros(n - 1, dtype=bool)
    boundaries[order] = True
    return segments_of(boundaries)
