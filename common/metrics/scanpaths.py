"""Scanpaths over a set of objects: how alike two of them are, and how a person or a model searches.

A scanpath is the sequence of the numbers of the objects that were looked at. Many are kept together, padded (`Paths`), and
pairs of them are compared one by one: a[i] with b[i]. The alignments (sequence score, edit distance, ScanMatch) go row by row
through the table of dynamic programming, all columns and all pairs at once: what a column takes from its left neighbour is a
running maximum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.errors import InputError

BEHAVIOUR = ("correct", "length", "search", "refix", "revisit")
"""Components of the behaviour vector."""


@dataclass(frozen=True)
class Paths:
    """Scanpaths of different lengths.

    Attributes:
        objects: int64 [n, L], numbers of objects from 0; what lies behind the end is not read.
        lengths: int64 [n], 1 to L.
    """

    objects: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        if self.objects.ndim != 2 or self.lengths.shape != self.objects.shape[:1]:
            raise InputError(
                f"Paths have objects {list(self.objects.shape)} and lengths {list(self.lengths.shape)}; give [n, L] and [n]."
            )
        if len(self.lengths) and not 1 <= int(self.lengths.min()) <= int(self.lengths.max()) <= self.objects.shape[1]:
            raise InputError(
                f"Lengths go from {int(self.lengths.min())} to {int(self.lengths.max())} and objects are "
                f"{list(self.objects.shape)}; a scanpath has at least one fixation and fits its row."
            )
        inside = self.objects[self.mask]
        if len(inside) and int(inside.min()) < 0:
            raise InputError(f"An object of a scanpath is {int(inside.min())}; objects are numbered from 0.")

    @property
    def mask(self) -> Tensor:
        """True before the end: bool [n, L]."""
        return torch.arange(self.objects.shape[1], device=self.objects.device) < self.lengths[:, None]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: Tensor) -> "Paths":
        return Paths(self.objects[rows], self.lengths[rows])

    def lists(self) -> list[list[int]]:
        """One list a scanpath."""
        return [row[:length] for row, length in zip(self.objects.tolist(), self.lengths.tolist(), strict=True)]


def paths_of(scanpaths: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Paths:
    """Pad lists. Raises InputError when one is empty or has a negative number."""
    longest = max(map(len, scanpaths), default=1)
    objects = torch.zeros(len(scanpaths), max(longest, 1), dtype=torch.int64)
    for row, scanpath in enumerate(scanpaths):
        objects[row, : len(scanpath)] = torch.tensor(list(scanpath), dtype=torch.int64)
    return Paths(objects.to(device), torch.tensor([len(scanpath) for scanpath in scanpaths], device=device))


def _check_pairs(a: Paths, b: Paths) -> None:
    if len(a) != len(b):
        raise InputError(f"{len(a)} scanpaths are compared with {len(b)}; pairs need as many on both sides.")


def _alignment(a: Paths, scores: Tensor, b: Paths, gap: float) -> Tensor:
    """Needleman and Wunsch's best total of pair scores, with `gap` added for every object that stands alone: float64 [n].

    Args:
        a: scanpaths.
        scores: float64 [n, L_a, L_b], of every object of a with every object of b.
        b: scanpaths.
        gap: at most 0.
    """
    n, rows, columns = scores.shape
    ramp = gap * torch.arange(columns + 1, dtype=torch.float64, device=scores.device)
    best = ramp.expand(n, -1).clone()
    for i in range(rows):
        taken = torch.empty_like(best)
        taken[:, 0] = best[:, 0] + gap
        taken[:, 1:] = torch.maximum(best[:, 1:] + gap, best[:, :-1] + scores[:, i])
        # best_j = max over j' <= j of taken_j' + gap * (j - j')
        row = (taken - ramp).cummax(dim=1).values + ramp
        best = torch.where((i < a.lengths)[:, None], row, best)
    return best.gather(1, b.lengths[:, None])[:, 0]


def _same(a: Paths, b: Paths) -> Tensor:
    return (a.objects[:, :, None] == b.objects[:, None, :]).double()


def sequence_score(a: Paths, b: Paths) -> Tensor:
    """Longest common subsequence over the length of the longer scanpath: float64 [n] in 0..1; 1 for equal ones.

    That is Needleman and Wunsch's alignment with 1 for a match and 0 for mismatch and gap, each object its own symbol.

    Raises:
        InputError: as many scanpaths are needed on both sides.
    """
    _check_pairs(a, b)
    return _alignment(a, _same(a, b), b, gap=0.0) / torch.maximum(a.lengths, b.lengths)


def edit_distance(a: Paths, b: Paths) -> Tensor:
    """Levenshtein's distance (insert, delete and replace cost 1): float64 [n].

    Raises:
        InputError: as many scanpaths are needed on both sides.
    """
    _check_pairs(a, b)
    return -_alignment(a, _same(a, b) - 1, b, gap=-1.0)


def scan_match(a: Paths, b: Paths, likeness: Tensor) -> Tensor:
    """ScanMatch (Cristino et al., 2010) without durations: the best alignment by likeness of objects, gaps cost nothing.

    Args:
        a: scanpaths.
        b: scanpaths.
        likeness: float64 [N, N] of objects, at most 1, 1 on the diagonal; below 0 where two are not to be aligned.

    Returns:
        float64 [n], over the length of the longer scanpath; 1 for equal ones.

    Raises:
        InputError: as many scanpaths are needed on both sides; or the likeness is not square or not 1 on its diagonal.
    """
    _check_pairs(a, b)
    if likeness.ndim != 2 or likeness.shape[0] != likeness.shape[1] or not bool((likeness.diagonal() == 1).all()):
        raise InputError(f"likeness is {list(likeness.shape)}; expected [N, N] with 1 on the diagonal.")
    scores = likeness.double()[a.objects[:, :, None], b.objects[:, None, :]]
    return _alignment(a, scores, b, gap=0.0) / torch.maximum(a.lengths, b.lengths)


def distance_likeness(positions: Tensor, threshold: float) -> Tensor:
    """ScanMatch's substitution matrix: 1 - d / threshold, which falls below 0 beyond the threshold.

    Args:
        positions: [N, 2] of objects.
        threshold: distance in the same unit; Cristino et al. take twice the standard deviation of saccade lengths.

    Returns:
        float64 [N, N].
    """
    return 1 - torch.cdist(positions.double(), positions.double(), compute_mode="donot_use_mm_for_euclid_dist") / threshold


def behaviour(paths: Paths, targets: Tensor) -> Tensor:
    """The behaviour vector of each scanpath (Fang et al., 2024; `BEHAVIOUR` names its components).

    correct: 1 where the last fixation is on the target; length in fixations; and shares of the fixations, which sum to 1:
    search begins to look at an object not seen before, revisit at one seen before, refix stays on the same object.

    Args:
        paths: n scanpaths.
        targets: int64 [n].

    Returns:
        float64 [n, 5].
    """
    objects, mask = paths.objects, paths.mask
    steps = torch.arange(objects.shape[1], device=objects.device)
    stays = torch.zeros_like(mask)
    stays[:, 1:] = objects[:, 1:] == objects[:, :-1]
    seen = ((objects[:, :, None] == objects[:, None, :]) & (steps[None, :] < steps[:, None])).any(2)
    last = objects.gather(1, paths.lengths[:, None] - 1)[:, 0]

    def share(of: Tensor) -> Tensor:
        return (of & mask).sum(1).double() / paths.lengths

    columns = [last == targets, paths.lengths, share(~stays & ~seen), share(stays), share(~stays & seen)]
    return torch.stack([column.double() for column in columns], dim=1)


def behaviour_difference(model: Tensor, human: Tensor) -> float:
    """Δ: mean over the components of |model - human| / human, each averaged over scanpaths before (lower is better).

    Args:
        model: float64 [n, 5], of `behaviour`.
        human: float64 [m, 5].

    Raises:
        InputError: a component of the humans' mean is 0, by which nothing can be divided.
    """
    a, b = model.mean(0), human.mean(0)
    if bool((b == 0).any()):
        zero = [name for name, value in zip(BEHAVIOUR, b.tolist(), strict=True) if value == 0]
        raise InputError(f"The human mean of {', '.join(zero)} is 0; Δ divides by it. Use more scanpaths.")
    return float(((a - b).abs() / b).mean())


def multi_match(a: np.ndarray, b: np.ndarray, screen: tuple[float, float]) -> np.ndarray:
    """MultiMatch (Jarodzka et al., 2010; Dewhurst et al., 2012) without simplification and durations.

    Saccades of both scanpaths are aligned along the cheapest way through the table of their vector differences (right, down,
    diagonally); each measure is 1 less the median along that way, over its greatest value.

    Args:
        a: float [L_a, 2], fixations in pixels; at least 3.
        b: float [L_b, 2], at least 3.
        screen: width and height in pixels.

    Returns:
        float64 [4]: vector, direction, length, position; 1 is equal.

    Raises:
        InputError: fewer than 3 fixations.
    """
    if min(len(a), len(b)) < 3:
        raise InputError(f"MultiMatch compares scanpaths of at least 3 fixations; got {len(a)} and {len(b)}.")
    one, other = np.diff(np.asarray(a, float), axis=0), np.diff(np.asarray(b, float), axis=0)
    costs = np.linalg.norm(one[:, None] - other[None, :], axis=2)
    i, j = _cheapest_way(costs)
    diagonal = float(np.hypot(*screen))
    angles = np.abs(np.arctan2(one[i, 1], one[i, 0]) - np.arctan2(other[j, 1], other[j, 0]))
    measures = (
        costs[i, j] / (2 * diagonal),
        np.minimum(angles, 2 * np.pi - angles) / np.pi,
        np.abs(np.linalg.norm(one[i], axis=1) - np.linalg.norm(other[j], axis=1)) / diagonal,
        np.linalg.norm(np.asarray(a, float)[i] - np.asarray(b, float)[j], axis=1) / diagonal,
    )
    return np.array([1 - np.median(measure) for measure in measures])


def _cheapest_way(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the cheapest way from the first to the last cell, where entering a cell costs what stands in it."""
    rows, columns = costs.shape
    total = costs.tolist()
    for j in range(1, columns):
        total[0][j] += total[0][j - 1]
    for i in range(1, rows):
        above, row = total[i - 1], total[i]
        row[0] += above[0]
        for j in range(1, columns):
            row[j] += min(above[j - 1], above[j], row[j - 1])
    i, j = rows - 1, columns - 1
    way = [(i, j)]
    while i or j:
        steps = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        i, j = min((s for s in steps if s[0] >= 0 and s[1] >= 0), key=lambda s: total[s[0]][s[1]])
        way.append((i, j))
    found = np.array(way[::-1])
    return found[:, 0], found[:, 1]
