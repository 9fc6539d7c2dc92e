"""Trainings side by side: the folds or seeds of one method are one network with a leading dimension of runs.

After every epoch each run's accuracy on its validation and on its test samples is kept, and the parameters of its best epoch on
validation. What is reported is the test accuracy of that epoch; the best test accuracy of any epoch, which the official code
reports (it has no test set apart from validation), stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from common.configuration import Parameters
from common.errors import InputError
from common.experiment import Context
from common.training import Recipe, Replica, derived_seed, train
from common.training.side_by_side import SideBySide
from papers.gaam.layer_features import LayerFeatures
from papers.gaam.models import Method, Sizes, initial_networks

VALUES_AT_ONCE = 1 << 27  # of hidden pictures, in evaluation on a GPU: every method keeps what it once took for its own stream
VALUES_AT_ONCE_CPU = 1 << 26
FOCAL_ALPHA = 0.25  # official code; a common factor, which Adam does not see


@dataclass(frozen=True)
class Run:
    """One training: which samples it reads.

    Attributes:
        number: of the fold or seed; its rows are paired by it.
        seed: of parameters and order.
        train: int64 [samples].
        validation: chooses the epoch.
        test: never chooses anything.
        layers: of the encoder that it reads, int64 [n]; None: all.
    """

    number: int
    seed: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    layers: np.ndarray | None = None


class Schedule(Parameters):
    """How all methods on a data set are optimised.

    Attributes:
        learning_rate: constant.
        epochs: passes over the training samples.
        batch_size: samples a step, for each run.
        weight_decay: of AdamW, on all parameters.
        gamma: of the focal loss; 0 is cross entropy.
        precision: of products in training and evaluation; the gate and the loss are float32.
    """

    learning_rate: float = Field(gt=0)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    weight_decay: float = Field(default=0.01, ge=0)
    gamma: float = Field(default=0.0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"


def focal_loss(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """α (1 - p)^γ (-log p) of the label's probability p, or cross entropy for γ = 0: logits [n, classes] to [n]."""
    loss = cross_entropy(logits.float(), labels, reduction="none")
    return loss if gamma == 0 else FOCAL_ALPHA * (1 - torch.exp(-loss)) ** gamma * loss


def rows_of(parts: Sequence[np.ndarray], multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Numbers of all runs as one rectangle, filled up by repeating: int64 [R, n] and bool [R, n] (False where filled up)."""
    longest = -(-max(len(part) for part in parts) // multiple) * multiple
    numbers = torch.from_numpy(np.stack([np.resize(part, longest) for part in parts]))
    return numbers, torch.arange(longest)[None] < torch.tensor([len(part) for part in parts])[:, None]


class Trainer(nn.Module):
    """The networks of one method for all runs, the samples they read, and what their epochs scored.

    Everything that an epoch leaves behind is a buffer, so that a checkpoint holds it.

    Args:
        method: which.
        sizes: of its networks.
        features: of the data set, on the device.
        runs: R of them.
        schedule: of the training.
    """

    accuracies: Tensor
    epoch: Tensor
    best: Tensor

    def __init__(self, method: Method, sizes: Sizes, features: LayerFeatures, runs: Sequence[Run], schedule: Schedule):
        super().__init__()
        self.method, self.features, self.schedule = method, features, schedule
        device, R = features.X.device, len(runs)
        chosen = [np.arange(features.layers) if run.layers is None else run.layers for run in runs]
        if len({len(layers) for layers in chosen}) > 1:
            raise InputError("Runs side by side read the same number of layers.")
        self.layers = torch.from_numpy(np.stack(chosen)).to(device)
        self.all_layers = all(run.layers is None for run in runs)
        seeds = [derived_seed(run.seed, "parameters") for run in runs]
        networks = initial_networks(method, sizes, len(chosen[0]), features.width, features.classes, seeds)
        self.template = (networks[0],)  # in a tuple: its parameters are not trained
        self.networks = SideBySide(networks).to(device)
        self.parts = {
            part: tuple(x.to(device) for x in rows_of([getattr(run, part) for run in runs], schedule.batch_size))
            for part in ("validation", "test")
        }
        self.lengths = {part: [len(getattr(run, part)) for run in runs] for part in ("validation", "test")}
        self.register_buffer("accuracies", torch.zeros(2, schedule.epochs, R, device=device))  # validation, test
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("best", torch.full((R,), -1.0, device=device))
        for number, tensor in enumerate(self._state()):
            self.register_buffer(f"kept_{number}", tensor.detach().clone())

    def _state(self) -> list[Tensor]:
        """Parameters and buffers of the networks, each [R, ...]."""
        return [*self.networks.parameters(), *self.networks.buffers()]

    @property
    def _autocast(self) -> torch.autocast:
        device = self.features.X.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.schedule.precision == "bfloat16")

    def read(self, numbers: Tensor) -> Tensor:
        """The samples with these numbers, [R, ...] int64 to [R, ..., layers, d] float32, for each run its layers."""
        X = self.features.X[numbers]
        if not self.all_layers:
            places = self.layers.view(len(self.layers), *[1] * (numbers.ndim - 1), -1, 1)
            X = torch.take_along_dim(X, places, dim=-2)
        return X.float()

    def forward(self, numbers: Tensor) -> Tensor:
        """Logits of each run for its own batches: [R, B] or [R, batches, B] to [..., classes]."""
        return self.networks(self.read(numbers)).float()

    def training_loss(self, numbers: Tensor) -> Tensor:
        """Sum over runs of the mean loss of a batch, so that a run's gradient is its own: numbers int64 [R, B]."""
        losses = focal_loss(self(numbers).flatten(0, 1), self.features.labels[numbers].flatten(), self.schedule.gamma)
        loss = losses.sum() / numbers.shape[1]
        if self.method.l2 > 0:
            loss = loss + 0.5 * self.method.l2 * sum(x.square().sum() for x in self.networks.parameters())
        return loss

    def _chunks(self, rows: Tensor) -> list[Tensor]:
        """Rows [R, n] as batches [R, batches, B] that fit the memory; B is that of the training."""
        R, B = len(rows), self.schedule.batch_size
        most = VALUES_AT_ONCE if rows.device.type == "cuda" else VALUES_AT_ONCE_CPU
        at_once = max(1, most // (R * B * self.features.width * 512))
        return list(rows.unflatten(1, (-1, B)).split(at_once, dim=1))

    @torch.inference_mode()
    def predictions(self, rows: Tensor) -> Tensor:
        """Classes predicted for rows int64 [R, n], in batches in their order; n is a multiple of the batch size."""
        with self._autocast:
            return torch.cat([self(chunk).argmax(-1) for chunk in self._chunks(rows)], dim=1).flatten(1)

    @torch.inference_mode()
    def mean_gate(self, part: str = "validation") -> np.ndarray:
        """DA averaged over each run's samples of a part: float64 [R, N, d]."""
        rows, real = self.parts[part]
        total = torch.zeros(len(rows), self.layers.shape[1], self.features.width, dtype=torch.float64, device=rows.device)
        kept = list(real.unflatten(1, (-1, self.schedule.batch_size)).split([c.shape[1] for c in self._chunks(rows)], dim=1))
        for chunk, mask in zip(self._chunks(rows), kept, strict=True):
            gate = self.networks(self.read(chunk), want_gate=True)
            total += (gate.double() * mask[..., None, None]).sum((1, 2))
        return (total / real.sum(1)[:, None, None]).cpu().numpy()

    def accuracy(self, part: str) -> Tensor:
        """Percentage of right predictions of each run on a part: float32 [R]."""
        rows, real = self.parts[part]
        right = (self.predictions(rows) == self.features.labels[rows]) & real
        return 100 * right.sum(1) / real.sum(1)

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Score the epoch, and keep the parameters of runs whose validation accuracy is higher than in all epochs before."""
        validation, test = self.accuracy("validation"), self.accuracy("test")
        place = self.epoch[None]
        self.accuracies[0].index_copy_(0, place, validation[None])
        self.accuracies[1].index_copy_(0, place, test[None])
        better = validation > self.best
        self.best.copy_(torch.where(better, validation, self.best))
        for number, tensor in enumerate(self._state()):
            kept = self.get_buffer(f"kept_{number}")
            kept.copy_(torch.where(better.view(-1, *[1] * (tensor.ndim - 1)), tensor, kept))
        self.epoch.add_(1)

    @torch.no_grad()
    def take_best(self) -> None:
        """Put the parameters of each run's best epoch back."""
        for number, tensor in enumerate(self._state()):
            tensor.copy_(self.get_buffer(f"kept_{number}"))


@dataclass(frozen=True)
class Scores:
    """Test accuracy of each run in percent, under each way to choose the epoch.

    Attributes:
        nested: of the epoch that is best on validation: float64 [R].
        on_test: of the epoch that is best on test, as the official code chooses.
        last: of the last epoch.
        validation: the best validation accuracy.
        epochs: number of the chosen epoch, from 1: int64 [R].
    """

    nested: np.ndarray
    on_test: np.ndarray
    last: np.ndarray
    validation: np.ndarray
    epochs: np.ndarray


def choose_epochs(validation: np.ndarray, test: np.ndarray) -> Scores:
    """Scores from accuracies after every epoch: [epochs, R] twice. Of equal epochs the first is taken."""
    chosen = validation.argmax(0)
    runs = np.arange(validation.shape[1])
    return Scores(test[chosen, runs], test.max(0), test[-1], validation.max(0), chosen + 1)


def scores_of(trainer: Trainer) -> Scores:
    """Scores of a trained method."""
    validation, test = trainer.accuracies.double().cpu().numpy()
    return choose_epochs(validation, test)


def orders(runs: Sequence[Run]) -> Tensor:
    """Training samples of each run in a random order of its own, int64 [rows, R]; an epoch takes the rows in random order.

    A run with fewer samples than another sees its first ones twice in an epoch.
    """
    shuffled = [np.random.default_rng(derived_seed(run.seed, "order")).permutation(run.train) for run in runs]
    return rows_of(shuffled)[0].T.contiguous()


def train_methods(
    methods: Mapping[str, Method],
    sizes: Sizes,
    schedule: Schedule,
    features: LayerFeatures,
    runs: Sequence[Run],
    context: Context,
    *,
    label: str = "trainings",
    at_once: int = 4,
) -> dict[str, Trainer]:
    """Train every method on every run; the networks returned are those of each run's best epoch on validation.

    Args:
        methods: name -> method.
        sizes: of the networks.
        schedule: of the training.
        features: on the device.
        runs: one a replica.
        context: of the cell.
        label: of the checkpoints, where a cell trains more than once.
        at_once: methods on the device at a time.

    Raises:
        InputError: there are no runs, one has a part without samples, or fewer training samples than a batch.
    """
    if not runs or any(min(len(run.train), len(run.validation), len(run.test)) == 0 for run in runs):
        raise InputError(f"There are {len(runs)} runs; give at least one, each with samples to train, choose and test on.")
    rows = orders(runs).to(features.X.device)
    steps_of_epoch = len(rows) // schedule.batch_size
    if steps_of_epoch == 0:
        raise InputError(f"batch_size is {schedule.batch_size} and the largest run has {len(rows)} training samples.")
    trainers: dict[str, Trainer] = {}
    names = list(methods)
    steps = schedule.epochs * steps_of_epoch
    progress = context.progress(len(names) * steps)

    def evaluate(replica: Replica) -> Mapping[str, Any]:
        trainers[replica.name].end_epoch()
        return {}

    for start in range(0, len(names), at_once):
        group = names[start : start + at_once]
        replicas = []
        for name in group:
            method = methods[name]
            trainers[name] = Trainer(method, sizes, features, runs, schedule)
            recipe = _recipe(schedule, method)
            ends = range(steps_of_epoch, steps + 1, steps_of_epoch)
            seed = derived_seed(runs[0].seed, "epochs")
            replicas.append(
                Replica(
                    name,
                    trainers[name],
                    recipe,
                    loss=_loss,
                    buckets={0: (rows,)},
                    steps=steps,
                    order_seed=seed,
                    curve_steps=ends,
                )
            )
        train(replicas, evaluate=evaluate, checkpoints=context.checkpoints, name=f"{label}-{start}", progress=progress)
        for name in group:
            trainers[name].take_best()
            trainers[name].eval()
        torch.cuda.empty_cache()  # streams of the next group cannot use what those of this one keep
    return trainers


class _DecayingEverything(Recipe):
    """AdamW as the official code has it: its weight decay takes from every parameter, δ, ξ and biases too."""

    def make_optimiser(self, network: nn.Module, rate: Tensor) -> torch.optim.Optimizer:
        """See `Recipe.make_optimiser`."""
        fused = rate.device.type == "cuda"
        parameters = list(network.parameters())
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=self.weight_decay, fused=fused, capturable=fused)


def _recipe(schedule: Schedule, method: Method) -> Recipe:
    of_all: dict[str, Any] = {
        "learning_rate": schedule.learning_rate,
        "batch_size": schedule.batch_size,
        "precision": schedule.precision,
    }
    if method.l2 > 0:  # the L2 term is in the loss
        return Recipe(optimiser="adam", **of_all)
    return _DecayingEverything(optimiser="adamw", weight_decay=schedule.weight_decay, **of_all)


def _loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    assert isinstance(network, Trainer)
    return network.training_loss(batch[0].T)
