"""Recipes: how a network is optimised."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from common.configuration import Parameters


class Recipe(Parameters):
    """Everything about the optimisation that is not the network, its loss and its data. Typed: a configuration may hold one.

    Attributes:
        optimiser: "sgd" (no momentum) or "adam" (PyTorch's defaults).
        learning_rate: greatest of the schedule.
        batch_size: examples a step.
        clip_norm: greatest L2 norm of the whole gradient; None is no clipping.
        precision: "bfloat16" computes forward and backward under autocast; parameters, loss and optimiser stay float32.
        schedule: of the learning rate after the warm-up: "constant", or a fall to `final_factor` of it by the last step, as
            half a "cosine" or "exponential"ly.
        warmup_steps: first steps, in which the rate rises linearly.
        final_factor: last learning rate over the greatest one; "exponential" needs more than 0.
    """

    optimiser: Literal["sgd", "adam"]
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    clip_norm: float | None = Field(default=None, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    final_factor: float = Field(default=0.01, gt=0, le=1)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step 0..steps - 1."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        progress = (step - self.warmup_steps) / max(steps - 1 - self.warmup_steps, 1)
        if self.schedule == "exponential":
            return self.learning_rate * self.final_factor**progress
        return self.learning_rate * (self.final_factor + (1 - self.final_factor) * (1 + math.cos(math.pi * progress)) / 2)

    def make_optimiser(self, network: nn.Module, rate: Tensor) -> torch.optim.Optimizer:
        """An optimiser that reads the learning rate from a tensor and, on a CUDA device, can be captured in a graph.

        Args:
            network: whose parameters are optimised.
            rate: float32, no dimensions, on the device of the parameters.
        """
        fused = rate.device.type == "cuda"  # one kernel for all parameters, and the rate is never read back
        parameters = list(network.parameters())
        if self.optimiser == "sgd":
            return torch.optim.SGD(parameters, lr=rate, fused=fused)
        return torch.optim.Adam(parameters, lr=rate, fused=fused, capturable=fused)
