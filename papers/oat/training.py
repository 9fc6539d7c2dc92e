"""Several OATs side by side: tokens of scanpaths, teacher forcing, validation by search behaviour or by loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from common.configuration import Parameters
from common.metrics.scanpaths import Paths, behaviour, behaviour_difference
from common.training import Recipe, derived_seed
from common.training.best_epoch import BestEpochs, Epochs, train_to_best_epoch
from common.training.side_by_side import SideBySide
from papers.oat.decoding import generate
from papers.oat.oat import OAT, Scenes, Sizes, Variant, initialise
from papers.oat.positional_encoding import distance_table, sinusoidal_table

IGNORED = -100


class NetworkSettings(Parameters):
    """Widths of the network, and its table of positions.

    Attributes:
        D: of a token.
        layers: of encoder and decoder.
        heads: of attention.
        feed_forward: inner width.
        pointers: heads of the object attention.
        dropout: in the layers.
        table_steps: of the table's optimisation.
    """

    D: int
    layers: int
    heads: int
    feed_forward: int
    pointers: int
    dropout: float
    table_steps: int

    @property
    def sizes(self) -> Sizes:
        """Those of the layers."""
        return Sizes(self.D, self.layers, self.heads, self.feed_forward, self.pointers, self.dropout)


class Fitting(Parameters):
    """How to train.

    Attributes:
        learning_rate: of Adam, constant.
        batch: scanpaths a step.
        clip_norm: of each network's gradient.
        precision: of products.
        epochs: at most, patience, and how often validation is looked at.
        criterion: "behaviour", Δ of most probable scanpaths as in the official code, or "loss".
    """

    learning_rate: float
    batch: int
    clip_norm: float
    precision: Literal["float32", "bfloat16"]
    epochs: Epochs
    criterion: Literal["behaviour", "loss"]


@dataclass(frozen=True)
class Trials:
    """Scenes with the scanpaths on them, on the device.

    Attributes:
        scenes: n of them.
        paths: n scanpaths.
        grid: rows and columns.
    """

    scenes: Scenes
    paths: Paths
    grid: tuple[int, int]

    def __getitem__(self, rows: Tensor) -> "Trials":
        return Trials(Scenes(*(x[rows] for x in self.scenes)), self.paths[rows], self.grid)

    @property
    def following(self) -> Tensor:
        """What is to be said at each place, the stop included, IGNORED behind it: int64 [n, L + 1]."""
        objects, lengths = self.paths.objects, self.paths.lengths
        places = torch.arange(objects.shape[1] + 1, device=objects.device)
        padded = torch.cat([objects, torch.zeros_like(objects[:, :1])], dim=1)
        said = torch.where(places < lengths[:, None], padded, self.grid[0] * self.grid[1])
        return torch.where(places <= lengths[:, None], said, IGNORED)


def make_table(
    positions: Literal["distance", "sinusoidal"], sigma: float, grid: tuple[int, int], settings: NetworkSettings
) -> Tensor:
    """W of the positional encoding."""
    length, width = max(grid), -(-(settings.D // 2) // 3)  # three rows fill D/2 entries; 86 for D = 512
    return (
        sinusoidal_table(length, width)
        if positions == "sinusoidal"
        else distance_table(length, width, sigma, settings.table_steps)
    )


def make_networks(
    settings: NetworkSettings, variant: Variant, table: Tensor, trials: Trials, seeds: Sequence[int], *, longest: int
) -> list[OAT]:
    """One a seed; the global random state stays as it was."""
    networks = []
    for seed in seeds:
        with torch.random.fork_rng([]):
            torch.manual_seed(derived_seed(seed, "initial parameters"))
            network = OAT(
                trials.grid, settings.sizes, variant, table, longest=longest, features=trials.scenes.features.shape[-1],
                identities=int(trials.scenes.identity.max()) + 1,
            )  # fmt: skip
            networks.append(initialise(network))
    return networks


def mean_losses(logits: Tensor, following: Tensor) -> Tensor:
    """Sum over S networks of their mean cross entropy over the places that are not IGNORED.

    Args:
        logits: [S, B, T, C].
        following: int64 [S, B, T].
    """
    S = logits.shape[0]
    each = cross_entropy(logits.float().flatten(0, -2), following.flatten(), ignore_index=IGNORED, reduction="none").reshape(
        S, -1
    )
    return (each.sum(1) / (following != IGNORED).reshape(S, -1).sum(1)).sum()


def train(
    networks: Sequence[OAT], trials: Trials, training: Sequence[np.ndarray], validation: Sequence[np.ndarray],
    fitting: Fitting, *, seeds: Sequence[int], longest: int,
) -> BestEpochs:  # fmt: skip
    """Train one network a seed, all at once, and keep the best epoch of each.

    Args:
        networks: in their initial states.
        trials: of all parts.
        training: rows of each network, equally many.
        validation: rows of each network.
        fitting: how.
        seeds: one a network.
        longest: fixations at most of the scanpaths that validation generates.
    """
    device = trials.paths.objects.device
    following = trials.following

    def loss(side_by_side: SideBySide, rows: Tensor) -> Tensor:
        scenes = Scenes(*(x[rows] for x in trials.scenes))
        return mean_losses(side_by_side(scenes, trials.paths.objects[rows]), following[rows])

    held_out = [trials[torch.from_numpy(rows).to(device)] for rows in validation]

    def validate(side_by_side: SideBySide) -> list[float]:
        found = []
        for number, part in enumerate(held_out):
            network = side_by_side.network(number)
            assert isinstance(network, OAT)
            if fitting.criterion == "loss":
                found.append(-held_out_loss(network, part))
                continue
            predicted = generate(network, part.scenes, longest=longest)
            ours, theirs = (behaviour(paths, part.scenes.target) for paths in (predicted, part.paths))
            found.append(-behaviour_difference(ours, theirs))
        return found

    recipe = Recipe(
        optimiser="adam", learning_rate=fitting.learning_rate, batch_size=fitting.batch, clip_norm=fitting.clip_norm,
        precision=fitting.precision,
    )  # fmt: skip
    return train_to_best_epoch(networks, loss, training, validate, recipe, fitting.epochs, seeds=seeds, device=device)


@torch.no_grad()
def held_out_loss(network: OAT, trials: Trials, batch: int = 256) -> float:
    """Mean cross entropy in nats over fixations and stops, by teacher forcing."""
    total = count = 0.0
    following = trials.following
    for rows in torch.arange(len(trials.paths), device=following.device).split(batch):
        part = trials[rows]
        logits = network(part.scenes, part.paths.objects).float().flatten(0, 1)
        wanted = following[rows].flatten()
        total += float(cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum"))
        count += int((wanted != IGNORED).sum())
    return total / count
