"""Synthetic search with appearance: scenes of objects with features, and a searcher whose policy is known.

A stand-in for the covers, which cannot be had: what a network reaches here says whether it uses appearance, and nothing of
people.

    p(next = k) ∝ exp(4 cos(f_k, f_target) - d(k, current)^2 / (2 · 2.5^2) - 3 [k seen in the last 6])

With probability 0.17 the searcher looks again at the same object; looking at the target, it stops with probability 0.9. A
search that takes longer than the limit is drawn anew.
"""

from dataclasses import dataclass

import numpy as np

from common.data.amazon_book_covers import COLUMNS, ROWS

N = ROWS * COLUMNS
FEATURES, PROTOTYPES, SPREAD = 8, 12, 0.3
PULL, REACH, AVERSION, MEMORY = 4.0, 2.5, 3.0, 6
STOP, STAY = 0.9, 0.17


@dataclass(frozen=True)
class Searches:
    """Scenes, scanpaths on them, and what the searcher's own policy says of them.

    Attributes:
        features: float32 [n, 84, 8], unit vectors.
        target: int64 [n].
        paths: n scanpaths.
        attainable: -log p in nats of all fixations and stops under the policy, their sum, by scanpath: float64 [n].
        counts: how many fixations and stops that are: int64 [n].
    """

    features: np.ndarray
    target: np.ndarray
    paths: list[list[int]]
    attainable: np.ndarray
    counts: np.ndarray


def step_probabilities(likeness: np.ndarray, path: list[int], target: int) -> np.ndarray:
    """Probabilities of the 84 objects and, last, of stopping, after a path: float64 [85], sums to 1.

    Args:
        likeness: cos(f_k, f_target) [84].
        path: fixations so far; empty before the first, which is drawn around the centre.
        target: the target's cell.
    """
    row, column = np.divmod(np.arange(N), COLUMNS)
    if path:
        at_row, at_column = divmod(path[-1], COLUMNS)
    else:
        at_row, at_column = (ROWS - 1) / 2, (COLUMNS - 1) / 2
    score = PULL * likeness - ((row - at_row) ** 2 + (column - at_column) ** 2) / (2 * REACH**2)
    score[path[-MEMORY:]] -= AVERSION
    moves = np.exp(score - score.max())
    moves /= moves.sum()
    if path:
        moves *= 1 - STAY
        moves[path[-1]] += STAY
    stop = STOP if path and path[-1] == target else 0.0
    return np.append((1 - stop) * moves, stop)


def searches(count: int, seed: int, longest: int) -> Searches:
    """Draw scenes and scanpaths.

    Args:
        count: n.
        seed: of everything; one seed gives the same twice.
        longest: fixations at most.
    """
    generator = np.random.default_rng(seed)
    prototypes = generator.normal(size=(PROTOTYPES, FEATURES))
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    features = prototypes[generator.integers(PROTOTYPES, size=(count, N))] + SPREAD * generator.normal(
        size=(count, N, FEATURES)
    )
    features /= np.linalg.norm(features, axis=2, keepdims=True)
    target = generator.integers(N, size=count)
    likeness = np.einsum("nkf,nf->nk", features, features[np.arange(count), target])
    paths, attainable, counts = [], np.zeros(count), np.zeros(count, dtype=np.int64)
    for n in range(count):
        path, losses = _search(likeness[n], int(target[n]), longest, generator)
        while path is None:
            path, losses = _search(likeness[n], int(target[n]), longest, generator)
        paths.append(path)
        attainable[n], counts[n] = sum(losses), len(losses)
    return Searches(features.astype(np.float32), target, paths, attainable, counts)


def _search(
    likeness: np.ndarray, target: int, longest: int, generator: np.random.Generator
) -> tuple[list[int] | None, list[float]]:
    """One scanpath and -log p of each of its fixations and of the stop; None where it does not stop in time."""
    path: list[int] = []
    losses: list[float] = []
    while len(path) <= longest:
        p = step_probabilities(likeness, path, target)
        said = int(generator.choice(N + 1, p=p))
        losses.append(float(-np.log(p[said])))
        if said == N:
            return path, losses
        path.append(said)
    return None, losses
