"""Bags of instances with one label a bag: what multiple-instance learning reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.errors import DataError, InputError


@dataclass(frozen=True)
class Bags:
    """Bags one after the other.

    Attributes:
        instances: floating point [instances, d].
        offsets: int64 [bags + 1]; bag b is `instances[offsets[b]:offsets[b + 1]]`, and none is empty.
        labels: int64 [bags], classes from 0.
        kinds: int64 [instances], what an instance is where that is known (0 is background); None where it is not.
        positions: int64 [instances, 2], row and column of an instance on its slide; None where it has none.
        names: of the bags; empty where they have none.
    """

    instances: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray | None = None
    positions: np.ndarray | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = np.diff(self.offsets)
        if self.instances.ndim != 2 or self.labels.ndim != 1 or len(self.offsets) != len(self.labels) + 1:
            raise DataError(
                f"Bags have instances {self.instances.shape}, {len(self.offsets)} offsets and labels {self.labels.shape}; "
                "expected [instances, d], one offset more than bags, and [bags]."
            )
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.instances) or (sizes <= 0).any():
            raise DataError(
                f"The offsets go from {self.offsets[0]} to {self.offsets[-1]}, the smallest step is {sizes.min(initial=0)}; "
                f"they must rise from 0 to the number of instances, {len(self.instances)}: a bag holds at least one."
            )
        if len(self.labels) and self.labels.min() < 0:
            raise DataError(f"A label is {self.labels.min()}; classes are numbered from 0.")
        if not np.isfinite(self.instances).all():
            raise DataError("A feature is not finite. Extract the features again, or leave that bag out.")
        for name in ("kinds", "positions"):
            array = getattr(self, name)
            if array is not None and len(array) != len(self.instances):
                raise DataError(f"{name} has {len(array)} rows for {len(self.instances)} instances.")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sizes(self) -> np.ndarray:
        """Instances of each bag: int64 [bags]."""
        return np.diff(self.offsets)

    def bag(self, number: int) -> slice:
        """Where the instances of a bag are."""
        return slice(int(self.offsets[number]), int(self.offsets[number + 1]))

    def select(self, numbers: Sequence[int] | np.ndarray) -> "Bags":
        """The bags of the given numbers, in that order.

        Raises:
            DataError: there is no such bag, or none is asked for.
        """
        if len(numbers) == 0 or min(numbers) < 0 or max(numbers) >= len(self):
            raise DataError(f"Bags {list(numbers)[:5]} are asked for; there are the bags 0..{len(self) - 1}.")
        rows = np.concatenate([np.arange(*self.bag(int(number)).indices(len(self.instances))) for number in numbers])
        return Bags(
            self.instances[rows],
            np.concatenate([[0], np.cumsum(self.sizes[list(numbers)])]),
            self.labels[list(numbers)],
            None if self.kinds is None else self.kinds[rows],
            None if self.positions is None else self.positions[rows],
            tuple(self.names[int(number)] for number in numbers) if self.names else (),
        )


def joined(parts: Sequence[Bags]) -> Bags:
    """Several sets of bags one after the other; kinds are kept where all have them, positions and names are not.

    Raises:
        DataError: there is none, or their features differ in number.
    """
    if not parts or len({part.instances.shape[1] for part in parts}) > 1:
        raise DataError(f"Bags of {[part.instances.shape[1] for part in parts]} features cannot be joined.")
    kinds = [part.kinds for part in parts if part.kinds is not None]
    return Bags(
        np.concatenate([part.instances for part in parts]),
        np.concatenate([[0], np.cumsum(np.concatenate([part.sizes for part in parts]))]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate(kinds) if len(kinds) == len(parts) else None,
    )


@dataclass(frozen=True)
class PaddedBags:
    """Bags of one length on a device.

    Attributes:
        instances: floating point [bags, n, d], 0 where padded.
        mask: bool [bags, n], True where there is an instance; the instances of a bag come first.
        labels: int64 [bags].
        kinds: int64 [bags, n], 0 where padded or unknown.
    """

    instances: Tensor
    mask: Tensor
    labels: Tensor
    kinds: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def padded(bags: Bags, device: str = "cpu", *, dtype: torch.dtype = torch.float32, length: int | None = None) -> PaddedBags:
    """Bags as tensors of one length.

    Args:
        bags: the bags.
        device: where the tensors go.
        dtype: of the features.
        length: n; None is the largest bag.

    Raises:
        InputError: a bag is larger than `length`.
    """
    longest = int(bags.sizes.max())
    length = longest if length is None else length
    if length < longest:
        raise InputError(f"length is {length} and the largest bag has {longest} instances; give at least that.")
    bag = np.repeat(np.arange(len(bags)), bags.sizes)
    place = np.arange(len(bags.instances)) - bags.offsets[bag]
    rows = torch.from_numpy(bag).to(device), torch.from_numpy(place).to(device)
    instances = torch.zeros(len(bags), length, bags.instances.shape[1], dtype=dtype, device=device)
    instances[rows] = torch.from_numpy(np.ascontiguousarray(bags.instances)).to(device, dtype)
    mask = torch.zeros(len(bags), length, dtype=torch.bool, device=device)
    mask[rows] = True
    kinds = torch.zeros(len(bags), length, dtype=torch.int64, device=device)
    if bags.kinds is not None:
        kinds[rows] = torch.from_numpy(bags.kinds).to(device)
    return PaddedBags(instances, mask, torch.from_numpy(bags.labels).to(device), kinds)
