"""The scanpaths by name: people's on Amazon book covers, or made-up ones in the same layout, which say nothing of people."""

from typing import Literal

import numpy as np

from common.data.amazon_book_covers import COLUMNS, ROWS, Scanpath, Splits, load_scanpaths, load_splits
from papers.oat.predictors import walk_steps
from papers.oat.scoring import cell_centres

DataName = Literal["amazon_book_covers", "made_up"]


def load(name: DataName) -> tuple[list[Scanpath], Splits]:
    """Scanpaths and splits.

    Raises:
        DataError: the files cannot be had.
    """
    return (load_scanpaths(), load_splits()) if name == "amazon_book_covers" else _made_up()


def _made_up() -> tuple[list[Scanpath], Splits]:
    """A hundred collages and six walkers, who step as the hand-fitted walk does and stop on the target."""
    generator = np.random.default_rng(0)
    found, centres = [], cell_centres()
    for collage in range(1, 101):
        target = int(generator.integers(ROWS * COLUMNS))
        steps = walk_steps(target)
        for subject in range(1, 7):
            cells = [int(generator.integers(ROWS * COLUMNS)) for _ in range(2)]
            while cells[-1] != target and len(cells) < 12:
                cells.append(int(generator.choice(ROWS * COLUMNS, p=steps[cells[-1]])))
            points = centres[cells] + generator.normal(scale=20, size=(len(cells), 2))
            found.append(Scanpath(collage, subject, (collage - 1) // 20, target, tuple(cells), points, (2562, 1602), kept=True))
    order = generator.permutation(100) + 1
    disjoint = {"train": order[:80].tolist(), "validation": order[80:90].tolist(), "test": order[90:].tolist()}
    pairs = [(scanpath.collage, scanpath.subject) for scanpath in found]
    shuffled = [pairs[number] for number in generator.permutation(len(pairs))]
    random = {"train": shuffled[:480], "validation": shuffled[480:540], "test": shuffled[540:]}
    return found, Splits(random, disjoint, [list(range(20 * t + 1, 20 * t + 21)) for t in range(5)])
