"""GraphSeg (Glavaš, Nanni and Ponzetto, 2016): segments from a graph of related sentences.

The paper looks for maximal cliques and asks whether two sentences, or a sentence of each of two segments, lie in one. Every
edge lies in a maximal clique and every pair in a clique is an edge: asking for an edge is the same, and no clique is listed.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from common.errors import InputError
from papers.topic_segmentation.word_vectors import WordVectors
from papers.topic_segmentation.words import words_of


def sentence_similarities(sentences: Sequence[str], words: WordVectors) -> np.ndarray:
    """Relatedness of every pair of sentences: each word with the most similar one of the other, weighted by information.

    The paper aligns words one to one; here a word may be the best match of several.

    Args:
        sentences: n of them.
        words: of the language.

    Returns:
        float64 [n, n], symmetric; 0 where a sentence has no known word.
    """
    known = [np.array([words.index[word] for word in words_of(sentence) if word in words.index], int) for sentence in sentences]
    n = len(known)
    kinds, place = np.unique(np.concatenate(known) if n else np.zeros(0, int), return_inverse=True)
    local = np.split(place, np.cumsum([len(found) for found in known])[:-1])
    cosines = words.vectors[kinds] @ words.vectors[kinds].T
    directed = np.zeros((n, n))
    # The best match of every kind of word in each sentence, then averages over the words of each other sentence.
    best = np.stack([cosines[:, found].max(axis=1) if len(found) else np.zeros(len(kinds)) for found in local], axis=1)
    for i, found in enumerate(local):
        if len(found):
            weight = words.information[kinds[found]]
            directed[i] = weight @ best[found] / weight.sum() if weight.sum() > 0 else best[found].mean(axis=0)
    empty = np.array([len(found) == 0 for found in local])
    similarities = (directed + directed.T) / 2
    similarities[empty] = similarities[:, empty] = 0
    return similarities


def segments_of_graph(similarities: np.ndarray, threshold: float, smallest: int) -> tuple[int, ...]:
    """The three steps of the paper on a graph with an edge where the similarity exceeds the threshold.

    1. neighbouring sentences with an edge are one segment; 2. neighbouring segments with an edge between them are joined, once;
    3. segments of fewer than `smallest` sentences join the neighbour that is more similar on average.

    Args:
        similarities: [n, n].
        threshold: τ.
        smallest: n of the paper.

    Raises:
        InputError: smallest is below 1.
    """
    if smallest < 1:
        raise InputError(f"smallest is {smallest}; a segment has at least one sentence.")
    n = len(similarities)
    edges = similarities > threshold
    first = _runs([bool(edges[i, i + 1]) for i in range(n - 1)], [(i, i + 1) for i in range(n)])
    second = _runs([bool(edges[a:b, b:c].any()) for (a, b), (_, c) in pairwise(first)], first)
    while len(second) > 1:
        small = next((number for number, (start, end) in enumerate(second) if end - start < smallest), None)
        if small is None:
            break
        start, end = second[small]
        neighbours = [number for number in (small - 1, small + 1) if 0 <= number < len(second)]
        nearest = max(neighbours, key=lambda number: similarities[start:end, slice(*second[number])].mean())
        left = min(small, nearest)
        second[left : left + 2] = [(second[left][0], second[left + 1][1])]
    return tuple(end - start for start, end in second)


def _runs(joined: list[bool], pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join neighbouring pieces where `joined` says so."""
    runs = [pieces[0]]
    for join, piece in zip(joined, pieces[1:], strict=True):
        if join:
            runs[-1] = (runs[-1][0], piece[1])
        else:
            runs.append(piece)
    return runs


def graph_seg(sentences: Sequence[str], *, words: WordVectors, threshold: float = 0.5, smallest: int = 3) -> tuple[int, ...]:
    """Segment a document; the number of segments cannot be given.

    Args:
        sentences: of the document.
        words: vectors trained on other text.
        threshold: τ.
        smallest: fewest sentences of a segment.

    Raises:
        InputError: there are no sentences, or smallest is below 1.
    """
    if not sentences:
        raise InputError("A document has no sentences; leave it out.")
    return segments_of_graph(sentence_similarities(sentences, words), threshold, smallest)
