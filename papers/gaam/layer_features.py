"""What a frozen encoder gives for a data set: one vector for each sample and layer, its class, and who trains on what."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from common.errors import InputError


@dataclass(frozen=True)
class LayerFeatures:
    """Features of the samples of one data set.

    Attributes:
        X: float16 or float32 [samples, N, d]: mean over time of the hidden states of layers 1..N.
        labels: int64 [samples].
        groups: int64 [samples]: number of the fold; or 0 for training and 1 for test samples, where there are no folds.
        folds: whether `groups` are folds.
    """

    X: Tensor
    labels: Tensor
    groups: np.ndarray
    folds: bool

    def __post_init__(self) -> None:
        counts = {len(self.X), len(self.labels), len(self.groups)}
        if self.X.ndim != 3 or len(counts) > 1:
            raise InputError(
                f"X has shape {tuple(self.X.shape)} with {len(self.labels)} labels and {len(self.groups)} groups; "
                "X is [samples, layers, width], with one label and one group a sample."
            )
        if not torch.isfinite(self.X).all():
            raise InputError(
                "X has entries that are not finite; float16 overflows beyond 65504: keep such features as float32."
            )
        present = torch.unique(self.labels.cpu()).tolist()
        if present != list(range(len(present))):
            raise InputError(f"labels are {present[:10]}; they must be 0, 1, ... without gaps.")

    @property
    def layers(self) -> int:
        """N."""
        return self.X.shape[1]

    @property
    def width(self) -> int:
        """Features of a layer, d."""
        return self.X.shape[2]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.labels.max()) + 1

    def to(self, device: str) -> "LayerFeatures":
        """The same on a device."""
        return replace(self, X=self.X.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class Split:
    """Sample numbers of one fold or seed: int64 vectors that share nothing.

    Attributes:
        number: of the fold or seed.
        train: to train on.
        validation: to choose the epoch on.
        test: to report.
    """

    number: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def splits_of(features: LayerFeatures, seeds: Sequence[int], validation_share: float) -> list[Split]:
    """Who trains, chooses and is tested, for each fold or seed.

    With folds, fold f is tested, the next one chooses the epoch and the others train, so that a speaker is in one part alone;
    there are at most as many runs as folds. Without, a share of the training samples, drawn anew for each seed and
    stratified by class, chooses the epoch.

    Args:
        features: with their groups.
        seeds: numbers of the runs.
        validation_share: of the training samples, where there are no folds.

    Raises:
        InputError: seeds and folds do not agree, or there are fewer than three folds.
    """
    if features.folds:
        folds = sorted(set(features.groups.tolist()))
        if len(folds) < 3 or len(seeds) > len(folds):
            raise InputError(
                f"There are {len(folds)} folds and {len(seeds)} runs; give three folds or more, and a run for each."
            )
        found = []
        for number, fold in enumerate(folds[: len(seeds)]):
            chooses = folds[(number + 1) % len(folds)]
            parts = [features.groups == fold, features.groups == chooses]
            test, validation, train = (np.flatnonzero(p) for p in (*parts, ~(parts[0] | parts[1])))
            found.append(Split(number, train, validation, test))
        return found
    pool, test = np.flatnonzero(features.groups == 0), np.flatnonzero(features.groups == 1)
    labels = features.labels.cpu().numpy()
    every = []
    for number, seed in enumerate(seeds):
        train, validation = train_test_split(pool, test_size=validation_share, random_state=seed, stratify=labels[pool])
        every.append(Split(number, np.sort(train), np.sort(validation), test))
    return every
