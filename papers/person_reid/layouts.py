"""Layouts: at which positions of a ResNet attention stands, and the space that the search goes through.

A position is (stage, block), both from 1. A layout is a set of positions, written `1.2+3.1`, or `none`.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import product

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from common.errors import InputError
from papers.person_reid.network import BLOCKS, Depth, Position

Layout = frozenset[Position]
NONE = "none"


def name_of(layout: Iterable[Position]) -> str:
    """`1.2+3.1`."""
    return "+".join(f"{stage}.{block}" for stage, block in sorted(layout)) or NONE


def layout_of(name: str) -> Layout:
    """The layout of a name.

    Raises:
        InputError: it is no name.
    """
    if name == NONE:
        return frozenset()
    try:
        pairs = [tuple(map(int, word.split("."))) for word in name.split("+")]
        return frozenset((stage, block) for stage, block in pairs)
    except ValueError:
        raise InputError(f"{name!r} is no layout; write stage.block+stage.block, such as 1.2+3.1, or {NONE}.") from None


def positions(depth: Depth) -> list[Position]:
    """All positions of a ResNet, in order."""
    return [(stage, block) for stage, count in enumerate(BLOCKS[depth][1], 1) for block in range(1, count + 1)]


def last_of_stages(depth: Depth, stages: Collection[int] = (1, 2, 3, 4)) -> Layout:
    """After the last block of each of some stages."""
    return frozenset((stage, BLOCKS[depth][1][stage - 1]) for stage in stages)


def stage_masks(depth: Depth) -> list[Layout]:
    """All subsets of the last blocks of the four stages: 16 layouts."""
    return [last_of_stages(depth, [s + 1 for s in range(4) if bits[s]]) for bits in product((False, True), repeat=4)]


def placements(depth: Depth, stage: int) -> list[Layout]:
    """Where attention may stand within a stage: first, last, every other, all; each once."""
    count = BLOCKS[depth][1][stage - 1]
    ways = [(1,), (count,), tuple(range(1, count + 1, 2)), tuple(range(1, count + 1))]
    return list(dict.fromkeys(frozenset((stage, block) for block in way) for way in ways))


def within_stages(depth: Depth, masks: Sequence[Layout], most: int, rng: np.random.Generator) -> list[Layout]:
    """Layouts with attention in the stages of a mask, placed in every way; `most` of them at random where there are more."""
    found: dict[Layout, None] = {}
    for mask in masks:
        stages = sorted({stage for stage, _ in mask})
        for ways in product(*(placements(depth, stage) for stage in stages)):
            found[frozenset().union(*ways)] = None
    every = sorted(found, key=name_of)
    return [every[k] for k in sorted(rng.permutation(len(every))[:most])]


def random_layouts(
    depth: Depth, count: int, blocks: tuple[int, int], known: Collection[Layout], rng: np.random.Generator
) -> list[Layout]:
    """Different layouts that are not `known`, each with a uniform number of positions between two.

    Raises:
        InputError: there are not so many.
    """
    places = positions(depth)
    found: dict[Layout, None] = {}
    for _ in range(1000 * count):
        if len(found) == count:
            return list(found)
        size = int(rng.integers(blocks[0], blocks[1] + 1))
        layout = frozenset(places[k] for k in rng.permutation(len(places))[:size])
        if layout not in known:
            found[layout] = None
    raise InputError(f"There are not {count} layouts of {blocks[0]} to {blocks[1]} blocks of {depth} that are not known yet.")


def all_layouts(depth: Depth, blocks: tuple[int, int]) -> list[Layout]:
    """Every layout with so many positions, in the order of names. Meant for small networks: there are 2^positions."""
    places = positions(depth)
    chosen = (
        frozenset(place for place, taken in zip(places, bits, strict=True) if taken)
        for bits in product((False, True), repeat=len(places))
    )
    return sorted((layout for layout in chosen if blocks[0] <= len(layout) <= blocks[1]), key=name_of)


def at_depth(layout: Layout, depth: Depth) -> Layout:
    """The layout of a ResNet with two blocks a stage in a deeper one: its first block is the first, its second the last."""
    return frozenset((stage, 1 if block == 1 else BLOCKS[depth][1][stage - 1]) for stage, block in layout)


class AdditiveModel:
    """value = constant + Σ over positions of the layout of a coefficient, by ridge regression.

    Args:
        depth: which ResNet.
        layouts: to fit on.
        values: one a layout.
        penalty: on the squared coefficients.
    """

    def __init__(self, depth: Depth, layouts: Sequence[Layout], values: Sequence[float], penalty: float):
        self.places = positions(depth)
        self._ridge = Ridge(alpha=penalty).fit(self._matrix(layouts), np.asarray(values))

    def _matrix(self, layouts: Sequence[Layout]) -> np.ndarray:
        return np.array([[place in layout for place in self.places] for layout in layouts], dtype=np.float64)

    @property
    def coefficients(self) -> dict[Position, float]:
        """What attention at a position adds."""
        return {place: float(value) for place, value in zip(self.places, self._ridge.coef_, strict=True)}

    def predict(self, layouts: Sequence[Layout]) -> np.ndarray:
        """Values of layouts, float64 [layouts]."""
        return self._ridge.predict(self._matrix(layouts))

    def r2(self, layouts: Sequence[Layout], values: Sequence[float]) -> float:
        """Share of the variance of `values` that the predictions explain; negative where their mean does better."""
        return float(r2_score(np.asarray(values), self.predict(layouts)))
