"""The synthetic large bags: background from Gaussian clusters, and witnesses of an easy pattern A and a hard pattern B.

Training positives mostly hold both patterns, so that a method may rest on A alone; half of the test positives hold B alone.
What an instance is, is known: attention can be checked against it.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from common.configuration import Parameters
from common.data.bags import Bags
from common.errors import InputError
from common.training import derived_seed

BACKGROUND, PATTERN_A, PATTERN_B = 0, 1, 2


class SlideRecipe(Parameters):
    """What bags look like.

    Attributes:
        d: features.
        smallest: instances of a bag, at least.
        largest: and at most; sizes are uniform between the two.
        clusters: of the background, Gaussian with unit variance.
        cluster_spread: standard deviation of a cluster's centre in each feature.
        pattern_features: features that a pattern shifts, each pattern its own.
        shift_a: mean shift of pattern A in each of them, up or down.
        shift_b: the same for pattern B.
        both_patterns: share of training positives with A and B; the others hold A alone.
    """

    d: int = Field(ge=2)
    smallest: int = Field(ge=2)
    largest: int = Field(ge=2)
    clusters: int = Field(ge=1)
    cluster_spread: float = Field(ge=0)
    pattern_features: int = Field(ge=1)
    shift_a: float = Field(gt=0)
    shift_b: float = Field(gt=0)
    both_patterns: float = Field(ge=0, le=1)


@dataclass(frozen=True)
class World:
    """What all bags of a seed share.

    Attributes:
        centres: float64 [clusters, d].
        directions: float64 [2, d], of A and B: 1 or -1 in the features of the pattern, else 0.
    """

    centres: np.ndarray
    directions: np.ndarray


def draw_world(recipe: SlideRecipe, seed: int) -> World:
    """Centres and directions.

    Raises:
        InputError: the features do not suffice for two patterns.
    """
    k = recipe.pattern_features
    if 2 * k > recipe.d:
        raise InputError(f"d is {recipe.d}; two patterns of {k} features each need at least {2 * k}.")
    generator = np.random.default_rng(derived_seed(seed, "world"))
    centres = generator.normal(0, recipe.cluster_spread, (recipe.clusters, recipe.d))
    directions = np.zeros((2, recipe.d))
    own = generator.permutation(recipe.d)[: 2 * k].reshape(2, k)
    np.put_along_axis(directions, own, generator.choice([-1.0, 1.0], (2, k)), axis=1)
    return World(centres, directions)


def _features(
    recipe: SlideRecipe, world: World, kinds: np.ndarray, clusters: np.ndarray, noise: float, generator
) -> np.ndarray:
    instances = world.centres[clusters] + generator.standard_normal((len(kinds), recipe.d))
    for kind, shift in ((PATTERN_A, recipe.shift_a), (PATTERN_B, recipe.shift_b)):
        instances[kinds == kind] += shift * world.directions[kind - 1]
    if noise > 0:  # a weaker extractor
        instances += noise * generator.standard_normal(instances.shape)
    return instances.astype(np.float32)


def draw_bags(recipe: SlideRecipe, rate: float, count: int, seed: int, *, part: str, noise: float = 0.0) -> Bags:
    """Bags of alternating labels; every second is positive.

    Args:
        recipe: what bags look like.
        rate: witnesses of each pattern that a positive bag holds, as a share of its instances; at least one.
        count: bags.
        seed: of the world and the bags.
        part: `train`, or another name: those positives hold A alone and B alone in turn.
        noise: standard deviation of what is added to every feature: a weaker feature extractor.

    Raises:
        InputError: fewer than four bags, or a rate outside (0, 0.5).
    """
    if count < 4 or not 0 < rate < 0.5:
        raise InputError(f"count is {count} and rate {rate}; take at least four bags and a rate above 0 and below 0.5.")
    world = draw_world(recipe, seed)
    generator = np.random.default_rng(derived_seed(seed, "bags", part, f"{rate}", f"{noise}"))
    sizes = generator.integers(recipe.smallest, recipe.largest + 1, count)
    labels = np.arange(count) % 2
    every_kind = []
    for number, (size, label) in enumerate(zip(sizes, labels, strict=True)):
        kinds = np.zeros(size, dtype=np.int64)
        if label:
            if part == "train":
                held = (PATTERN_A, PATTERN_B) if generator.random() < recipe.both_patterns else (PATTERN_A,)
            else:
                held = (PATTERN_A,) if number // 2 % 2 == 0 else (PATTERN_B,)
            witnesses = max(1, round(rate * size))
            places = generator.permutation(size)
            for order, kind in enumerate(held):
                kinds[places[order * witnesses : (order + 1) * witnesses]] = kind
        every_kind.append(kinds)
    kinds = np.concatenate(every_kind)
    clusters = generator.integers(recipe.clusters, size=len(kinds))
    instances = _features(recipe, world, kinds, clusters, noise, generator)
    return Bags(instances, np.concatenate([[0], np.cumsum(sizes)]), labels, kinds)


def draw_slide(recipe: SlideRecipe, side: int, seed: int, *, noise: float = 0.0) -> Bags:
    """One positive slide of side x side patches: a spot of A, a spot of B, and tissue whose clusters hang together."""
    world = draw_world(recipe, seed)
    generator = np.random.default_rng(derived_seed(seed, "slide", f"{noise}"))
    rows, columns = (axis.ravel() for axis in np.mgrid[:side, :side])
    positions = np.stack([rows, columns], axis=1)
    seeds = generator.uniform(0, side, (3 * recipe.clusters, 2))
    nearest = ((positions[:, None] - seeds) ** 2).sum(-1).argmin(1)
    kinds = np.zeros(side * side, dtype=np.int64)
    for kind, centre in ((PATTERN_A, (0.3, 0.3)), (PATTERN_B, (0.7, 0.65))):
        distance = ((positions - side * np.array(centre)) ** 2).sum(1)
        kinds[distance <= max(1.0, (0.07 * side) ** 2)] = kind
    instances = _features(recipe, world, kinds, nearest % recipe.clusters, noise, generator)
    return Bags(instances, np.array([0, side * side]), np.array([1]), kinds, positions, ("slide",))
