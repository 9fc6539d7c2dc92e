"""One training on several devices: every process has the whole network and takes its share of every batch."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from common.errors import InputError, MissingHardwareError


@dataclass(frozen=True)
class DataParallel:
    """The processes of one training.

    Attributes:
        rank: of this process, 0..size - 1; rank 0 writes what is written.
        size: how many there are.
        device: of this process.
    """

    rank: int
    size: int
    device: torch.device

    def share(self, batch_size: int) -> slice:
        """The examples of a batch that this process computes.

        Raises:
            InputError: the processes do not divide the batch.
        """
        if batch_size % self.size:
            raise InputError(f"batch_size is {batch_size} and {self.size} processes share it; take a multiple of their number.")
        count = batch_size // self.size
        return slice(self.rank * count, (self.rank + 1) * count)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace floating-point tensors by their means over the processes: one message for all of them."""
        means = parameters_to_vector(tensors) / self.size
        distributed.all_reduce(means)
        vector_to_parameters(means, tensors)


@contextmanager
def data_parallel(device: str) -> Iterator[DataParallel]:
    """Join the processes that torchrun started: NCCL between CUDA devices, one a process, and gloo on the CPU.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        InputError: torchrun did not start this process.
        MissingHardwareError: there are fewer CUDA devices than processes.
    """
    if "LOCAL_RANK" not in os.environ:
        raise InputError("LOCAL_RANK is not set: start this with `torchrun --nproc-per-node <processes> -m <module>`.")
    place = torch.device("cpu")
    if device == "cuda":
        number = int(os.environ["LOCAL_RANK"])
        if number >= torch.cuda.device_count():
            raise MissingHardwareError(
                f"Process {number} has no device: this machine shows {torch.cuda.device_count()} CUDA devices. Start fewer."
            )
        place = torch.device("cuda", number)
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", device_id=place if device == "cuda" else None)
    try:
        yield DataParallel(distributed.get_rank(), distributed.get_world_size(), place)
    finally:
        distributed.destroy_process_group()
