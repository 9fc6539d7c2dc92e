"""Trainings side by side: folds and seeds of one method are one network with a leading dimension of replicas.

A step takes one bag of every replica, as the paper's batch of one bag; every replica has its own parameters, moments of the
optimiser, order of bags and random numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from common.configuration import Parameters
from common.data.bags import PaddedBags
from common.errors import InputError
from common.experiment import Context
from common.training import Recipe, Replica, derived_seed, train
from common.training.counter_random import mixed_seed
from common.training.stacked import Stacked
from papers.acmil.bag_model import Outputs
from papers.acmil.models import Method, Sizes, make_model

VALUES_AT_ONCE = 1 << 28  # of features, where bags are read for inference
SMALLEST_FACTOR = 1e-5


@dataclass(frozen=True)
class Run:
    """One replica: which bags it is trained and tested on.

    Attributes:
        seed: of its parameters, order and masking.
        train: int64 [bags], numbers of bags.
        test: int64 [bags].
        validation: int64 [bags]; empty where nothing is selected.
        place: coordinates of its rows.
    """

    seed: int
    train: np.ndarray
    test: np.ndarray
    place: Mapping[str, Any]
    validation: np.ndarray


class Schedule(Parameters):
    """How all methods of an experiment are optimised.

    Attributes:
        learning_rate: falls to 0 as half a cosine.
        epochs: passes over the training bags, unless the method has its own number.
    """

    learning_rate: float = Field(gt=0)
    epochs: int = Field(ge=1)


def standardisation(bags: PaddedBags, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation of each feature over the training instances of each run: [R, d] twice.

    A feature that is constant there gets the factor 0: it says nothing about training bags.
    """
    means, factors = [], []
    for run in runs:
        numbers = torch.from_numpy(run.train).to(bags.mask.device)
        instances = bags.instances[numbers][bags.mask[numbers]].double()
        mean, deviation = instances.mean(0), instances.std(0, correction=0)
        varies = deviation > SMALLEST_FACTOR * instances.abs().amax(0).clamp(min=SMALLEST_FACTOR)
        means.append(mean)
        factors.append(torch.where(varies, 1 / deviation, torch.zeros_like(deviation)))
    return torch.stack(means).float(), torch.stack(factors).float()


class SideBySide(nn.Module):
    """R networks of one method, and the bags that they read.

    Args:
        method: which.
        sizes: of the networks.
        bags: of all runs; a run takes its own by number.
        runs: one a replica.
        standardise: features by the training bags of each run.
    """

    shift: Tensor
    factor: Tensor
    seeds: Tensor
    step: Tensor

    def __init__(self, method: Method, sizes: Sizes, bags: PaddedBags, runs: Sequence[Run], *, standardise: bool):
        super().__init__()
        classes, D_feat = int(bags.labels.max()) + 1, bags.instances.shape[-1]
        networks = []
        with torch.random.fork_rng([]):
            for run in runs:
                torch.manual_seed(derived_seed(run.seed, "parameters"))
                networks.append(make_model(method, sizes, D_feat, classes))
        self.method, self.bags = method, bags
        device = bags.instances.device
        self.stacked = Stacked(networks).to(device)
        seeds = torch.tensor([derived_seed(run.seed, "masking") for run in runs])
        plain = torch.zeros(len(runs), D_feat), torch.ones(len(runs), D_feat)
        shift, factor = standardisation(bags, runs) if standardise else plain
        self.register_buffer("seeds", seeds.to(device))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("shift", shift.to(device)[:, None, None])
        self.register_buffer("factor", factor.to(device)[:, None, None])

    def forward(self, numbers: Tensor, *, masking: bool) -> Outputs:
        """Outputs of every replica for its bags: numbers int64 [R, B] to tensors [R, B, ...].

        Args:
            numbers: of bags.
            masking: whether the methods draw what they draw in training.
        """
        mask = self.bags.mask[numbers]
        X = (self.bags.instances[numbers].float() - self.shift) * self.factor * mask[..., None]
        if masking:
            return self.stacked(X, mask, mixed_seed(self.seeds, self.step))
        return self.stacked(X, mask)

    def training_loss(self, numbers: Tensor) -> Tensor:
        """Sum over replicas of the loss of one bag each, so that a replica's gradient is its own: numbers int64 [R]."""
        self.step.add_(1)
        outputs = self(numbers[:, None], masking=True)
        flat = {name: tensor.flatten(0, 1) for name, tensor in outputs.items()}
        loss = self.stacked.template.loss(flat, self.bags.labels[numbers]).sum()
        if self.method.optimiser == "adam":  # its weight decay is an L2 term
            loss = loss + 0.5 * self.method.weight_decay * sum(x.square().sum() for x in self.stacked.parameters())
        return loss


def orders(runs: Sequence[Run]) -> Tensor:
    """Training bags of each run in a random order of its own, int64 [rows, R]; an epoch takes the rows in random order.

    A run with fewer bags than another sees its first bags twice in an epoch.
    """
    rows = max(len(run.train) for run in runs)
    columns = []
    for run in runs:
        shuffled = np.random.default_rng(derived_seed(run.seed, "order")).permutation(run.train)
        columns.append(np.resize(shuffled, rows))
    return torch.from_numpy(np.stack(columns, axis=1))


def train_methods(
    methods: Mapping[str, Method],
    sizes: Sizes,
    schedule: Schedule,
    bags: PaddedBags,
    runs: Sequence[Run],
    context: Context,
    *,
    standardise: bool = True,
    after_epoch: Callable[[str, SideBySide], None] | None = None,
    label: str = "trainings",
) -> dict[str, SideBySide]:
    """Train every method on every run.

    Args:
        methods: name -> method.
        sizes: of the networks.
        schedule: of all methods.
        bags: see `SideBySide`.
        runs: see `SideBySide`.
        context: of the cell.
        standardise: see `SideBySide`.
        after_epoch: called with name and networks after every epoch.
        label: of the checkpoint, where a cell trains more than once.

    Returns:
        Name -> trained networks.

    Raises:
        InputError: there are no runs, or one has nothing to train or test on.
    """
    if not runs or any(len(run.train) == 0 or len(run.test) == 0 for run in runs):
        raise InputError(f"There are {len(runs)} runs; give at least one, each with bags to train and to test on.")
    rows = orders(runs).to(bags.instances.device)
    networks = {name: SideBySide(method, sizes, bags, runs, standardise=standardise) for name, method in methods.items()}
    replicas = []
    for name, network in networks.items():
        method = network.method
        epochs = method.epochs or schedule.epochs
        recipe = Recipe(
            optimiser=method.optimiser,
            learning_rate=schedule.learning_rate,
            batch_size=1,
            schedule="cosine",
            final_factor=1e-6,
            weight_decay=method.weight_decay if method.optimiser == "adamw" else 0.0,
        )
        steps = epochs * len(rows)
        replica = Replica(
            name,
            network,
            recipe,
            loss=_loss,
            buckets={0: (rows,)},
            steps=steps,
            order_seed=derived_seed(runs[0].seed, "epochs"),
            curve_steps=range(len(rows), steps + 1, len(rows)) if after_epoch is not None else (),
        )
        replicas.append(replica)

    def evaluate(replica: Replica) -> Mapping[str, float]:
        if after_epoch is not None:
            after_epoch(replica.name, networks[replica.name])
        return {}

    progress = context.progress(sum(replica.steps for replica in replicas))
    train(replicas, evaluate=evaluate, checkpoints=context.checkpoints, name=label, progress=progress)
    return networks


def _loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    assert isinstance(network, SideBySide)
    return network.training_loss(batch[0][0])


@torch.inference_mode()
def over_bags(
    network: SideBySide,
    numbers: Sequence[np.ndarray],
    measure: Callable[[Outputs, Tensor], Mapping[str, Tensor]],
    *,
    masking: bool = False,
) -> list[dict[str, np.ndarray]]:
    """What `measure` makes of the outputs of every replica for its bags.

    Args:
        network: trained.
        numbers: bags of each replica: R arrays of any lengths.
        measure: outputs of B bags ([B, ...]) and their numbers [B] to tensors [B, ...].
        masking: see `SideBySide.forward`.

    Returns:
        For each replica name -> array [bags, ...].
    """
    device = network.bags.instances.device
    longest = max(len(one) for one in numbers)
    wanted = torch.from_numpy(np.stack([np.resize(one, longest) for one in numbers])).to(device)
    _, N, d = network.bags.instances.shape
    at_once = max(1, VALUES_AT_ONCE // (len(numbers) * N * max(d, 256)))
    found: list[dict[str, Tensor]] = []
    for start in range(0, longest, at_once):
        part = wanted[:, start : start + at_once]
        flat = {name: tensor.flatten(0, 1) for name, tensor in network(part, masking=masking).items()}
        measured = measure(flat, part.flatten())
        found.append({name: tensor.unflatten(0, part.shape).cpu() for name, tensor in measured.items()})
    whole = {name: torch.cat([part[name] for part in found], dim=1).numpy() for name in found[0]}
    return [{name: array[r, : len(one)] for name, array in whole.items()} for r, one in enumerate(numbers)]
