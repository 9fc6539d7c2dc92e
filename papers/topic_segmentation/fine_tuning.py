"""Training of the neural methods: AdamW, a schedule with warm-up, clipping."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from common.configuration import Parameters
from common.errors import InputError

Batch = TypeVar("Batch")
CLIP_NORM = 1.0


class FineTuning(Parameters):
    """How a network is fine-tuned.

    Attributes:
        learning_rate: at the end of the warm-up.
        schedule: after the warm-up, a `linear` fall to 0, or `constant`.
        epochs: passes over the training data.
        batch: examples a step; of what, the method says.
        warmup: share of the steps in which the rate rises linearly.
        precision: `bfloat16` computes under autocast; parameters, losses and optimiser stay float32.
    """

    learning_rate: float = Field(gt=0)
    schedule: Literal["linear", "constant"] = "linear"
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    warmup: float = Field(ge=0, lt=1)
    precision: Literal["float32", "bfloat16"]

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step 0..steps - 1."""
        rising = round(self.warmup * steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (steps - step) / max(steps - rising, 1)


def fine_tune(
    network: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    loss: Callable[[Batch], Tensor],
    recipe: FineTuning,
    steps: int,
) -> float:
    """Train a network in place and leave it in evaluation mode.

    On a CUDA device deterministic kernels are chosen where there are any.

    Args:
        network: its parameters that require a gradient are trained.
        batches: epoch -> the batches of that epoch.
        loss: of a batch, without dimensions; called under the recipe's autocast.
        recipe: how.
        steps: batches of all epochs together, for the schedule.

    Returns:
        Mean loss of the last epoch.

    Raises:
        InputError: there are no batches, or another number than `steps`.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    device = parameters[0].device
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0, fused=device.type == "cuda")
    network.train()
    done, losses = 0, []
    with _deterministic(device):
        for epoch in range(recipe.epochs):
            losses = []
            for batch in batches(epoch):
                for group in optimiser.param_groups:
                    group["lr"] = recipe.rate(done, steps)
                with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                    value = loss(batch)
                optimiser.zero_grad(set_to_none=True)
                value.backward()
                clip_grad_norm_(parameters, CLIP_NORM)
                optimiser.step()
                losses.append(value.detach())
                done += 1
    if not losses or done != steps:
        raise InputError(
            f"The epochs gave {done} batches and the schedule has {steps} steps; give data, and count its batches."
        )
    network.eval()
    return float(torch.stack(losses).mean())


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    before, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


def in_batches(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover 0..count - 1."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
