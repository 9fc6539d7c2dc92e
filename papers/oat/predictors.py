"""Predictors that learn nothing from a scene's objects: chance, centre, frequencies, a walk, and copies of other scanpaths."""

from collections.abc import Callable
from types import MappingProxyType

import numpy as np

from common.data.amazon_book_covers import COLUMNS, ROWS, Scanpath
from common.errors import InputError
from papers.oat.protocols import Parts

Draw = Callable[[Scanpath, np.random.Generator], tuple[int, ...]]
"""Test scanpath (its collage, target and length may be looked at) -> one prediction."""

CELLS = ROWS * COLUMNS
CENTRE_SPREAD = (2.0, 4.0)
"""Standard deviations of the centre predictor, rows and columns."""
WALK_SPREAD, WALK_STAY, WALK_TARGET = (1.5, 3.0), 2.0, 15.0
"""Of the hand-fitted walk: standard deviations of a step, and how much likelier it is to stay and to go to the target."""

_ROW, _COLUMN = np.divmod(np.arange(CELLS), COLUMNS)


def _gaussian(row: float, column: float, spread: tuple[float, float]) -> np.ndarray:
    return np.exp(-((_ROW - row) ** 2) / (2 * spread[0] ** 2) - (_COLUMN - column) ** 2 / (2 * spread[1] ** 2))


def walk_steps(target: int) -> np.ndarray:
    """p(next | current) of the hand-fitted walk: float64 [84, 84], rows sum to 1."""
    steps = np.stack([_gaussian(_ROW[cell], _COLUMN[cell], WALK_SPREAD) for cell in range(CELLS)])
    steps[np.arange(CELLS), np.arange(CELLS)] *= WALK_STAY
    steps[:, target] *= WALK_TARGET
    return steps / steps.sum(1, keepdims=True)


def predictors(parts: Parts) -> MappingProxyType[str, Draw | None]:
    """By name; None for one that has nothing to draw from under this protocol.

    `uniform_human_length`, `uniform` (length from training), `centre`, `frequency` (cells of training), `walk`: the human's
    length but for `uniform`. `random_collage`: a training scanpath of any collage. `look_up`: one of the same collage.
    `human`: another person on the same collage, whatever part it is in: how consistent people are.
    """
    records = parts.records
    learned = [records[number] for number in parts.train]
    counts = np.bincount([cell for scanpath in learned for cell in scanpath.cells], minlength=CELLS) / 1.0
    centre = _gaussian((ROWS - 1) / 2, (COLUMNS - 1) / 2, CENTRE_SPREAD)
    same: dict[int, list[Scanpath]] = {}
    for scanpath in learned:
        same.setdefault(scanpath.collage, []).append(scanpath)
    others: dict[int, list[Scanpath]] = {}
    for scanpath in records:
        others.setdefault(scanpath.collage, []).append(scanpath)

    def cells(weights: np.ndarray, length: int, generator: np.random.Generator) -> tuple[int, ...]:
        return tuple(generator.choice(CELLS, size=length, p=weights / weights.sum()).tolist())

    def one_of(choices: list[Scanpath], generator: np.random.Generator) -> tuple[int, ...]:
        return choices[int(generator.integers(len(choices)))].cells

    def walk(test: Scanpath, generator: np.random.Generator) -> tuple[int, ...]:
        steps = walk_steps(test.target).cumsum(1)
        path = [int(generator.choice(CELLS, p=centre / centre.sum()))]
        for chance in generator.random(len(test.cells) - 1):
            path.append(min(int(np.searchsorted(steps[path[-1]], chance, side="right")), CELLS - 1))
        return tuple(path)

    def human(test: Scanpath, generator: np.random.Generator) -> tuple[int, ...]:
        return one_of([other for other in others[test.collage] if other.subject != test.subject], generator)

    tested = [records[number] for number in parts.test]
    has_copies = all(scanpath.collage in same for scanpath in tested)
    has_others = all(any(o.subject != s.subject for o in others[s.collage]) for s in tested)
    lengths = np.array([len(scanpath.cells) for scanpath in learned])
    return MappingProxyType(
        {
            "uniform_human_length": lambda test, g: cells(np.ones(CELLS), len(test.cells), g),
            "uniform": lambda _, g: cells(np.ones(CELLS), int(g.choice(lengths)), g),
            "centre": lambda test, g: cells(centre, len(test.cells), g),
            "frequency": lambda test, g: cells(counts, len(test.cells), g),
            "walk": walk,
            "random_collage": lambda _, g: one_of(learned, g),
            "look_up": (lambda test, g: one_of(same[test.collage], g)) if has_copies else None,
            "human": human if has_others else None,
        }
    )


def walk_cross_entropy(scanpaths: list[Scanpath]) -> float:
    """Mean -log p of the walk's steps in nats, without the first fixation and the end: what a trained network should beat.

    Raises:
        InputError: no scanpath has a second fixation.
    """
    losses = [
        -np.log(walk_steps(scanpath.target)[current, following])
        for scanpath in scanpaths
        for current, following in zip(scanpath.cells[:-1], scanpath.cells[1:], strict=True)
    ]
    if not losses:
        raise InputError("No scanpath has a second fixation; there is no step to score.")
    return float(np.mean(losses))
