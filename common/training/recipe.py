"""Recipes: how a network is optimised."""

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from common.configuration import Parameters


class Recipe(Parameters):
    """Everything about the optimisation that is not the network, its loss and its data. Typed: a configuration may hold one.

    Attributes:
        optimiser: "sgd" (no momentum), "adam" or "adamw".
        learning_rate: greatest of the schedule.
        batch_size: examples a step.
        clip_norm: greatest L2 norm of the whole gradient; None is no clipping.
        precision: "bfloat16" computes forward and backward under autocast; parameters, loss and optimiser stay float32.
        schedule: of the learning rate after the warm-up: "constant"; a fall to `final_factor` of it by the last step, as half a
            "cosine" or "exponential"ly; or "steps", a tenth of it from each of the `milestones` on.
        warmup_steps: first steps, in which the rate rises linearly.
        final_factor: last learning rate over the greatest one; "exponential" needs more than 0.
        betas: of "adam" and "adamw": how much of the running means of gradients and of their squares a step keeps.
        weight_decay: of "adamw": the share of a matrix, times the learning rate, that a step takes away; other parameters,
            such as gains and biases, keep theirs. Of "adam": the factor of every parameter that is added to its gradient.
        milestones: of "steps": shares of the training.
    """

    optimiser: Literal["sgd", "adam", "adamw"]
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    clip_norm: float | None = Field(default=None, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    schedule: Literal["constant", "cosine", "exponential", "steps"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    final_factor: float = Field(default=0.01, gt=0, le=1)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    milestones: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _weight_decay_has_an_optimiser(self) -> "Recipe":
        if self.weight_decay and self.optimiser == "sgd":
            raise ValueError(f"weight_decay is {self.weight_decay} with 'sgd'; only 'adam' and 'adamw' take it")
        return self

    @model_validator(mode="after")
    def _milestones_have_a_schedule(self) -> "Recipe":
        if bool(self.milestones) != (self.schedule == "steps") or any(not 0 < share < 1 for share in self.milestones):
            raise ValueError(
                f"milestones is {list(self.milestones)} with {self.schedule!r}; 'steps' takes shares between 0 and 1, the "
                "others none"
            )
        return self

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step 0..steps - 1."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "steps":
            return self.learning_rate * 0.1 ** sum(step >= share * steps for share in self.milestones)
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
        if self.optimiser == "adam":
            return torch.optim.Adam(
                parameters, lr=rate, betas=self.betas, weight_decay=self.weight_decay, fused=fused, capturable=fused
            )
        groups = [
            {"params": [x for x in parameters if x.ndim == 2], "weight_decay": self.weight_decay},
            {"params": [x for x in parameters if x.ndim != 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=rate, betas=self.betas, fused=fused, capturable=fused)
