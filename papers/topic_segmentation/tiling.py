"""What the tiling methods share: similarity of neighbouring blocks, depth scores, and the choice of boundaries (Hearst, 1997).

TextTiling tiles counts of words, TopicTiling counts of topics, embedding tiling sentence embeddings.
"""

from collections.abc import Sequence

import numpy as np
from scipy.signal import find_peaks

from common.errors import InputError
from common.metrics.segmentation import segments_of
from papers.topic_segmentation.words import count_vectors


def block_similarities(vectors: np.ndarray, block: int) -> np.ndarray:
    """Cosine of the sums of the vectors before and after each gap.

    Args:
        vectors: [n, d], one line a sentence.
        block: sentences on each side; fewer at the ends of the document.

    Returns:
        float64 [n - 1]; 0 where a side has only zeros.

    Raises:
        InputError: block is below 1.
    """
    if block < 1:
        raise InputError(f"block is {block}; it is at least 1.")
    n = len(vectors)
    sums = np.concatenate([np.zeros((1, vectors.shape[1])), np.cumsum(vectors, axis=0, dtype=np.float64)])
    gaps = np.arange(1, n)
    left = sums[gaps] - sums[np.maximum(gaps - block, 0)]
    right = sums[np.minimum(gaps + block, n)] - sums[gaps]
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.divide((left * right).sum(axis=1), norms, out=np.zeros(n - 1), where=norms > 0)


def depth_scores(similarities: np.ndarray) -> np.ndarray:
    """How deep each gap lies below the peaks on its two sides: d_i = (hl_i + hr_i - 2 c_i) / 2.

    hl and hr are the highest similarities reached climbing left and right from gap i without descent.

    Args:
        similarities: c, [gaps].

    Returns:
        float64 [gaps], not negative.
    """

    def peaks(values: np.ndarray) -> np.ndarray:
        reached = values.astype(np.float64).copy()
        for i in range(1, len(values)):
            if values[i - 1] >= values[i]:
                reached[i] = reached[i - 1]
        return reached

    return (peaks(similarities) + peaks(similarities[::-1])[::-1] - 2 * similarities) / 2


def tile(similarities: np.ndarray, count: int | None = None, *, deviations: float = 0.5) -> tuple[int, ...]:
    """Segments cut at deep local minima of similarity.

    Args:
        similarities: c, [n - 1]; of a plateau the middle gap counts.
        count: the number of segments where it is known: the deepest minima are cut, then, if these are too few, the deepest
            other gaps.
        deviations: without a count, minima deeper than μ - deviations · σ of all depths are cut; 0.5 is Hearst's cautious cut,
            1 the liberal one.

    Returns:
        Lengths of segments with sum n.

    Raises:
        InputError: the count is not in 1..n.
    """
    n = len(similarities) + 1
    if count is not None and not 1 <= count <= n:
        raise InputError(f"count is {count} for a document of {n} sentences; it lies in 1..{n}.")
    boundaries = np.zeros(n - 1, dtype=bool)
    if n > 1:
        depths = depth_scores(similarities)
        minima = find_peaks(-similarities)[0]
        if count is None:
            boundaries[minima[depths[minima] > depths.mean() - deviations * depths.std()]] = True
        else:
            is_minimum = np.isin(np.arange(n - 1), minima)
            order = np.lexsort((np.arange(n - 1), -depths, ~is_minimum))  # minima first, deepest first, from the left
            boundaries[order[: count - 1]] = True
    return segments_of(boundaries)


def text_tiling(sentences: Sequence[str], count: int | None = None, *, block: int = 10) -> tuple[int, ...]:
    """TextTiling (Hearst, 1997): tiles word counts. A unit is a sentence where Hearst has 20 words; no smoothing.

    Args:
        sentences: of a document.
        count: the number of segments where it is known.
        block: sentences on each side; Hearst's 10.
    """
    return tile(block_similarities(count_vectors(sentences), block), count)
