"""Training: recipes, order of data, captured steps, curves, checkpoints; replicas side by side, or one on many GPUs."""

from common.checkpoints import Checkpoints
from common.training.batches import Batches, Buckets, order_of_data
from common.training.data_parallel import DataParallel, data_parallel
from common.training.loop import CurveRow, evenly_spaced, train
from common.training.recipe import Recipe
from common.training.replica import Loss, Replica
from common.training.seeds import derived_seed

__all__ = [
    "Batches",
    "Buckets",
    "Checkpoints",
    "CurveRow",
    "DataParallel",
    "Loss",
    "Recipe",
    "Replica",
    "data_parallel",
    "derived_seed",
    "evenly_spaced",
    "order_of_data",
    "train",
]
