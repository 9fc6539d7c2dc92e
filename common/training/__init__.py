"""Training of many small networks side by side: recipes, the order of data, captured steps, learning curves, checkpoints."""

from common.checkpoints import Checkpoints
from common.training.batches import Batches, Buckets
from common.training.loop import CurveRow, evenly_spaced, train
from common.training.recipe import Recipe
from common.training.replica import Loss, Replica
from common.training.seeds import derived_seed

__all__ = [
    "Batches",
    "Buckets",
    "Checkpoints",
    "CurveRow",
    "Loss",
    "Recipe",
    "Replica",
    "derived_seed",
    "evenly_spaced",
    "train",
]
