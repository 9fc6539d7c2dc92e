"""Training of one network for several seeds side by side, the best epoch on validation stays kept, and prediction."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from common.configuration import Parameters
from common.training import Recipe, Replica, derived_seed
from common.training.side_by_side import SideBySide

Score = Callable[[np.ndarray, np.ndarray], float]
"""Predictions and labels of validation stays -> a number, the higher the better."""

PREDICTED = 512
"""Stays of a network that are predicted at once: bounds the memory of attention."""


class Fitting(Parameters):
    """How to train.

    Attributes:
        learning_rate: of Adam.
        batch: stays a step; no more than the training stays.
        epochs: at most.
        patience: epochs without a better validation score after which a seed stops.
    """

    learning_rate: float
    batch: int
    epochs: int
    patience: int


@dataclass(frozen=True)
class Tensors:
    """The data of a task, on the device.

    Attributes:
        series: float32 [stays, T, C].
        present: bool [stays, T], or None where nothing is padded.
        labels: float32 [stays, outputs] of 0 and 1, or int64 [stays] of classes.
        channels: int64 [S, k], the columns that each seed reads; None: all.
    """

    series: Tensor
    present: Tensor | None
    labels: Tensor
    channels: Tensor | None = None

    def inputs(self, rows: Tensor) -> tuple[Tensor, ...]:
        """What the networks read of rows int64 [S, B]: [S, B, T, C] and, where there is padding, [S, B, T]."""
        if self.channels is None:
            series = self.series[rows]
        else:
            hours = torch.arange(self.series.shape[1], device=rows.device)
            series = self.series[rows[:, :, None, None], hours[:, None], self.channels[:, None, None, :]]
        return (series,) if self.present is None else (series, self.present[rows])

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid for labels of 0 and 1, softmax over classes."""
        return logits.sigmoid() if self.labels.is_floating_point() else logits.softmax(-1)


@dataclass(frozen=True)
class Fitted:
    """What training gave.

    Attributes:
        networks: with the parameters of each seed's best epoch, in evaluation mode.
        best_epoch: of each seed, from 1.
        best_score: of each seed, on its validation stays.
    """

    networks: SideBySide
    best_epoch: list[int]
    best_score: list[float]


def mean_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over S networks of the mean loss of their batches: binary cross entropy, or cross entropy over classes.

    Args:
        logits: [S, B, outputs].
        labels: [S, B, outputs] floating point, or [S, B] of classes.
    """
    if labels.is_floating_point():
        loss = binary_cross_entropy_with_logits(logits.float(), labels)
    else:
        loss = cross_entropy(logits.float().flatten(0, 1), labels.flatten())
    return loss * logits.shape[0]


def fit(
    networks: Sequence[nn.Module],
    tensors: Tensors,
    training: Sequence[np.ndarray],
    validation: Sequence[np.ndarray],
    fitting: Fitting,
    score: Score,
    *,
    seeds: Sequence[int],
) -> Fitted:
    """Train one network a seed, all at once.

    Args:
        networks: in their initial state, one a seed.
        tensors: of the task; networks move to their device.
        training: rows of each seed, equally many.
        validation: rows of each seed, equally many.
        fitting: how.
        score: by which the best epoch is chosen.
        seeds: of the order of data; the first is that of dropout.

    Raises:
        InputError: as `SideBySide` and `Replica` do.
    """
    device = tensors.series.device
    side_by_side = SideBySide(networks).to(device)
    # Each seed has an order of its own: the batches take positions, and each seed another permutation of its rows.
    orders = [
        np.random.default_rng(derived_seed(seed, "order")).permutation(rows) for seed, rows in zip(seeds, training, strict=True)
    ]
    positions = torch.from_numpy(np.stack(orders, axis=1)).to(device)
    held_out = torch.from_numpy(np.stack(validation)).to(device)
    batch = min(fitting.batch, len(positions))
    steps = len(positions) // batch

    def loss(network: nn.Module, drawn: tuple[Tensor, ...]) -> Tensor:
        rows = drawn[0].T
        return mean_losses(network(*tensors.inputs(rows)), tensors.labels[rows])

    recipe = Recipe(optimiser="adam", learning_rate=fitting.learning_rate, batch_size=batch)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(derived_seed(seeds[0], "dropout"))
        replica = Replica(
            "networks", side_by_side, recipe, loss=loss, buckets={0: (positions,)}, steps=steps * fitting.epochs, order_seed=0
        )
        replica.prepare()
        best_score, best_epoch, stopped = [-math.inf] * len(seeds), [0] * len(seeds), [False] * len(seeds)
        with replica.on_stream():
            best = {name: x.detach().clone() for name, x in side_by_side.named_parameters()}
        for epoch in range(1, fitting.epochs + 1):
            for _ in range(steps):
                replica.advance()
            replica.synchronise()
            with replica.on_stream():
                side_by_side.eval()
                outputs = predict(side_by_side, tensors, held_out)
                side_by_side.train()
                for s in range(len(seeds)):
                    found = score(outputs[s], tensors.labels[held_out[s]].cpu().numpy())
                    if not stopped[s] and found > best_score[s]:
                        best_score[s], best_epoch[s] = found, epoch
                        for name, x in side_by_side.named_parameters():
                            best[name][s] = x.detach()[s]
                    stopped[s] = epoch - best_epoch[s] >= fitting.patience
            replica.synchronise()
            if all(stopped):
                break
        replica.finish()
    with torch.no_grad():
        for name, x in side_by_side.named_parameters():
            x.copy_(best[name])
    return Fitted(side_by_side, best_epoch, best_score)


@torch.no_grad()
def predict(networks: SideBySide, tensors: Tensors, rows: Tensor) -> np.ndarray:
    """Probabilities float32 [S, n, outputs] of rows int64 [S, n]."""
    parts = [networks(*tensors.inputs(part)) for part in rows.split(PREDICTED, dim=1)]
    return tensors.probabilities(torch.cat(parts, dim=1).float()).cpu().numpy()


def same_rows(tensors: Tensors, rows: np.ndarray, size: int) -> Tensor:
    """The same rows for each of `size` networks: int64 [S, n] on the device."""
    return torch.from_numpy(rows).to(tensors.series.device).expand(size, -1)
