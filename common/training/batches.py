"""The order of data: which examples a step takes. Drawn on the CPU, the same on every machine, and small to save."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.checks import check_positive_int
from common.training.seeds import derived_seed

# Examples grouped by shape: a bucket's tensors have one first size, the number of its examples.
Buckets = Mapping[int, tuple[Tensor, ...]]


class Batches:
    """Draws a bucket uniformly for every step, and its next examples from a permutation that is renewed every epoch of it.

    What an epoch leaves, fewer examples than a batch, is dropped.

    Args:
        buckets: key -> tensors, all on one device.
        batch_size: examples a step; no more than the smallest bucket has.
        seed: the same seed and bucket sizes give the same order.

    Raises:
        InputError: a bucket is too small, its tensors differ in their first size, or devices differ.
    """

    def __init__(self, buckets: Buckets, batch_size: int, seed: int):
        check_positive_int("batch_size", batch_size)
        self.device = _check_buckets(buckets, batch_size)
        self.batch_size, self.seed = batch_size, seed
        self._counts = {key: len(buckets[key][0]) for key in sorted(buckets)}
        self._keys = list(self._counts)
        self._generator = torch.Generator().manual_seed(derived_seed(seed, "bucket"))
        self._epochs = dict.fromkeys(self._keys, 0)
        self._positions = dict.fromkeys(self._keys, 0)
        self._permutations: dict[int, Tensor] = {}

    def draw(self) -> tuple[int, Tensor]:
        """The next bucket and the rows of its examples, int64 [batch_size] on the device."""
        key = self._keys[int(torch.randint(len(self._keys), (), generator=self._generator))]
        if self._positions[key] + self.batch_size > self._counts[key]:
            self._epochs[key] += 1
            self._positions[key] = 0
            self._permutations.pop(key, None)
        if key not in self._permutations:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", key, self._epochs[key]))
            self._permutations[key] = torch.randperm(self._counts[key], generator=generator).to(self.device)
        start = self._positions[key]
        self._positions[key] = start + self.batch_size
        return key, self._permutations[key][start : start + self.batch_size]

    def state(self) -> dict[str, Any]:
        """Where in the order this is; permutations are drawn again from it."""
        return {
            "seed": self.seed,
            "counts": dict(self._counts),
            "generator": self._generator.get_state(),
            "epochs": dict(self._epochs),
            "positions": dict(self._positions),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was.

        Raises:
            InputError: it belongs to another seed or other buckets.
        """
        if (state["seed"], state["counts"]) != (self.seed, self._counts):
            raise InputError(
                f"The saved order has seed {state['seed']} and buckets of {state['counts']} examples; this one has "
                f"{self.seed} and {self._counts}. Delete the checkpoint to start from the beginning."
            )
        self._generator.set_state(state["generator"])
        self._epochs, self._positions = dict(state["epochs"]), dict(state["positions"])
        self._permutations = {}


def order_of_data(buckets: Buckets, batch_size: int, seed: int, steps: int) -> Tensor:
    """What `Batches` of these arguments draws, for the record of a training.

    Returns:
        int64 [steps, 1 + batch_size] on the CPU: the key of the bucket, and the rows of the examples.

    Raises:
        InputError: as `Batches` does, or `steps` is no positive integer.
    """
    check_positive_int("steps", steps)
    on_cpu = {key: tuple(torch.empty(len(tensor), 0) for tensor in tensors) for key, tensors in buckets.items()}
    batches = Batches(on_cpu, batch_size, seed)
    drawn = (batches.draw() for _ in range(steps))
    return torch.stack([torch.cat([torch.tensor([key]), rows]) for key, rows in drawn])


def _check_buckets(buckets: Buckets, batch_size: int) -> torch.device:
    """The one device of the buckets; raises InputError."""
    if not buckets or not all(buckets.values()):
        raise InputError("buckets is empty, or a bucket has no tensors; there is nothing to train on.")
    devices = {tensor.device for tensors in buckets.values() for tensor in tensors}
    if len(devices) > 1:
        raise InputError(f"buckets has tensors on {', '.join(sorted(map(str, devices)))}; move all of them to one device.")
    for key, tensors in buckets.items():
        counts = {len(tensor) for tensor in tensors}
        if len(counts) > 1:
            raise InputError(f"bucket {key} has tensors of {sorted(counts)} examples; they must agree.")
        if min(counts) < batch_size:
            raise InputError(
                f"bucket {key} has {min(counts)} examples and a batch takes {batch_size}; give more examples or a smaller "
                "batch."
            )
    return devices.pop()
