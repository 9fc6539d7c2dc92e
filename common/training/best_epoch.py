"""Training of several networks side by side, of which each keeps the parameters of its best epoch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common.configuration import Parameters
from common.errors import InputError
from common.training.recipe import Recipe
from common.training.replica import Replica
from common.training.seeds import derived_seed
from common.training.side_by_side import SideBySide


class Epochs(Parameters):
    """How long to train, and how often to look.

    Attributes:
        greatest: epochs at most.
        patience: epochs without a better validation score after which a network stops.
        every: epochs between two validations.
        first: the first epoch that is validated.
    """

    greatest: int
    patience: int
    every: int = 1
    first: int = 1


@dataclass(frozen=True)
class BestEpochs:
    """What training gave.

    Attributes:
        networks: with the parameters of each one's best epoch, in evaluation mode.
        epoch: of each network, from 1.
        score: of each network, on its validation data.
        curve: one (epoch, mean loss of all networks since the last row, scores) a validation.
    """

    networks: SideBySide
    epoch: list[int]
    score: list[float]
    curve: list[tuple[int, float, list[float]]]


def train_to_best_epoch(
    networks: Sequence[nn.Module],
    loss: Callable[[SideBySide, Tensor], Tensor],
    training: Sequence[np.ndarray],
    validate: Callable[[SideBySide], list[float]],
    recipe: Recipe,
    epochs: Epochs,
    *,
    seeds: Sequence[int],
    device: torch.device | str,
) -> BestEpochs:
    """Train one network a seed, all at once; each goes through its own examples in an order of its own.

    Args:
        networks: S of them in their initial states, of one shape.
        loss: the sum over networks of their mean losses on rows int64 [S, B].
        training: rows of each network, equally many.
        validate: a score of each network, the higher the better; called in evaluation mode.
        recipe: how to optimise; the gradient of each network is clipped by itself.
        epochs: how long.
        seeds: of the order of data, one a network; the first is that of dropout.
        device: where to train.

    Raises:
        InputError: no epoch is validated; fewer rows than a batch, or not equally many for each network.
    """
    if not epochs.first <= epochs.greatest:
        raise InputError(f"The first epoch that is validated is {epochs.first} of {epochs.greatest}; make it earlier.")
    sizes = {len(rows) for rows in training}
    if len(sizes) != 1 or min(sizes) < recipe.batch_size:
        raise InputError(
            f"The networks have {sorted(sizes)} rows, a batch {recipe.batch_size}; give equally many, a batch at least."
        )
    device = torch.device(device)
    side_by_side = SideBySide(networks).to(device)
    # The batches take positions, and each network another permutation of its rows.
    orders = [
        np.random.default_rng(derived_seed(seed, "order")).permutation(rows) for seed, rows in zip(seeds, training, strict=True)
    ]
    positions = torch.from_numpy(np.stack(orders, axis=1)).to(device)
    steps = len(positions) // recipe.batch_size

    def of_batch(network: nn.Module, drawn: tuple[Tensor, ...]) -> Tensor:
        assert isinstance(network, SideBySide)
        return loss(network, drawn[0].T)

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(derived_seed(seeds[0], "dropout"))
        buckets, total = {0: (positions,)}, steps * epochs.greatest
        replica = Replica("networks", side_by_side, recipe, loss=of_batch, buckets=buckets, steps=total, order_seed=0)
        replica.prepare()
        score, best_epoch, stopped = [-math.inf] * len(seeds), [0] * len(seeds), [False] * len(seeds)
        curve: list[tuple[int, float, list[float]]] = []
        with replica.on_stream():
            best = {name: x.detach().clone() for name, x in side_by_side.named_parameters()}
        for epoch in range(1, epochs.greatest + 1):
            for _ in range(steps):
                replica.advance()
            if epoch < epochs.first or ((epoch - epochs.first) % epochs.every and epoch < epochs.greatest):
                continue
            replica.synchronise()
            with replica.on_stream():
                side_by_side.eval()
                found = validate(side_by_side)
                side_by_side.train()
                for s, value in enumerate(found):
                    if not stopped[s] and value > score[s]:
                        score[s], best_epoch[s] = value, epoch
                        for name, x in side_by_side.named_parameters():
                            best[name][s] = x.detach()[s]
                    stopped[s] = epoch - best_epoch[s] >= epochs.patience
            replica.synchronise()
            curve.append((epoch, replica.take_mean_loss(), found))
            if all(stopped):
                break
        replica.finish()
    if not all(best_epoch):
        raise InputError(f"The last scores of validation are {curve[-1][2]}; a network has none that is a number.")
    with torch.no_grad():
        for name, x in side_by_side.named_parameters():
            x.copy_(best[name])
    return BestEpochs(side_by_side, best_epoch, score, curve)
