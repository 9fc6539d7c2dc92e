"""From predicted scanpaths to rows: likeness to the human ones, and how people and predictions search."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.data.amazon_book_covers import COLUMNS, ROWS, Scanpath
from common.experiment import Measurement
from common.metrics.scanpaths import (
    BEHAVIOUR,
    Paths,
    behaviour,
    behaviour_difference,
    distance_likeness,
    edit_distance,
    multi_match,
    paths_of,
    scan_match,
    sequence_score,
)

CELL = (183.0, 267.0)
"""Width and height in pixels of the uniform grid that predictions are put on, as in the official code."""
SHORTEST = 3
"""Fixations that MultiMatch needs; shorter scanpaths get points at (1, 1), as in the official code."""
MEASURES = ("vector", "direction", "length", "position")


def cell_centres() -> np.ndarray:
    """Centres of the cells in pixels, x and y: float64 [84, 2]."""
    row, column = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
    return np.stack([(column + 0.5) * CELL[0], (row + 0.5) * CELL[1]], axis=1)


def saccade_threshold(humans: Sequence[Scanpath]) -> float:
    """ScanMatch's threshold: twice the standard deviation of the humans' saccades, in cells."""
    centres = cell_centres() / CELL
    lengths = [np.linalg.norm(np.diff(centres[list(human.cells)], axis=0), axis=1) for human in humans]
    return float(2 * np.concatenate(lengths).std())


def normalised_saliency(predicted: Paths, humans: Sequence[Scanpath]) -> float:
    """NSS over cells: the map of cells that any of a trial's predictions visits, standardised, at the human's fixations."""
    samples = len(predicted) // len(humans)
    visited = np.zeros((len(humans), ROWS * COLUMNS))
    for number, path in enumerate(predicted.lists()):
        visited[number // samples, path] = 1
    spread = visited.std(1, keepdims=True)
    maps = (visited - visited.mean(1, keepdims=True)) / np.where(spread == 0, 1, spread)
    return float(np.mean([maps[number, list(human.cells)].mean() for number, human in enumerate(humans)]))


def mean_multi_match(predicted: Paths, humans: Sequence[Scanpath], samples: int) -> np.ndarray:
    """MultiMatch's four measures of cell centres against raw fixations, mean over the first `samples` of each trial."""
    many, centres = len(predicted) // len(humans), cell_centres()
    paths = predicted.lists()

    def long_enough(points: np.ndarray) -> np.ndarray:
        return np.concatenate([points, np.ones((max(SHORTEST - len(points), 0), 2))])

    found = [
        multi_match(long_enough(human.points), long_enough(centres[paths[number * many + sample]]), human.screen)
        for number, human in enumerate(humans)
        for sample in range(min(samples, many))
    ]
    return np.mean(found, axis=0)


def add_scores(
    measurement: Measurement, predicted: Paths, humans: Sequence[Scanpath], *, method: str, threshold: float, matched: int,
    **setting: Any,
) -> None:  # fmt: skip
    """Rows of every metric.

    `sequence_score`, `edit_distance`, `scan_match`, `behaviour_difference`, the components of the behaviour vector (of people,
    too), `normalised_saliency`, and MultiMatch's measures with their mean, `multi_match`.

    Args:
        measurement: where to.
        predicted: equally many for each human, one human's after the other.
        humans: the test scanpaths.
        method: whose.
        threshold: of `saccade_threshold`.
        matched: predictions of a trial that MultiMatch looks at; it goes pair by pair.
        setting: of the rows.
    """
    samples, device = len(predicted) // len(humans), predicted.objects.device
    own = paths_of([human.cells for human in humans], device)
    beside = own[torch.arange(len(humans), device=device).repeat_interleave(samples)]
    targets = torch.tensor([human.target for human in humans], device=device)
    likeness = distance_likeness(torch.from_numpy(cell_centres() / CELL), threshold).to(device)

    def add(metric: str, value: float | Tensor) -> None:
        measurement.add(metric, float(value), method=method, **setting)

    add("sequence_score", sequence_score(predicted, beside).mean())
    add("edit_distance", edit_distance(predicted, beside).mean())
    add("scan_match", scan_match(predicted, beside, likeness).mean())
    theirs, ours = behaviour(own, targets), behaviour(predicted, targets.repeat_interleave(samples))
    add("behaviour_difference", behaviour_difference(ours, theirs))
    for name, value, human in zip(BEHAVIOUR, ours.mean(0).tolist(), theirs.mean(0).tolist(), strict=True):
        add(f"{name}_of_paths", value)
        measurement.add(f"{name}_of_paths", human, method="people", **setting)
    add("normalised_saliency", normalised_saliency(predicted, humans))
    measures = mean_multi_match(predicted, humans, matched)
    for name, value in zip(MEASURES, measures, strict=True):
        add(f"multi_match_{name}", float(value))
    add("multi_match", float(measures.mean()))
