"""Several networks of one shape as one: each parameter has a leading dimension, and one kernel computes all of them."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from common.errors import InputError


class SideBySide(nn.Module):
    """S networks of one shape. Their gradients do not mix, so that an element-wise optimiser trains each as it would alone.

    Random numbers such as dropout's are drawn for each network apart, from the generator of the device.

    Args:
        networks: of one class and shape, at least one; not changed.

    Raises:
        InputError: none, or parameters differ in shape.
    """

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        shapes = [{name: tuple(x.shape) for name, x in network.named_parameters()} for network in networks]
        if not networks or any(shape != shapes[0] for shape in shapes):
            raise InputError(
                f"{len(networks)} networks were given; side by side stand one or more with parameters of one shape."
            )
        parameters, buffers = stack_module_state(list(networks))
        self.size = len(networks)
        # Dots are not allowed in the names of parameters.
        self._names = {name: name.replace(".", "/") for name in parameters}
        self._buffer_names = {name: name.replace(".", "/") for name in buffers}
        for name, stacked in parameters.items():
            self.register_parameter(self._names[name], nn.Parameter(stacked.detach().clone()))
        for name, stacked in buffers.items():
            self.register_buffer(self._buffer_names[name], stacked)
        self._skeleton = (deepcopy(networks[0]).to("meta"),)  # in a tuple: its parameters are none of ours

    def train(self, mode: bool = True) -> "SideBySide":
        """Set the mode of all networks."""
        super().train(mode)
        self._skeleton[0].train(mode)
        return self

    def forward(self, *inputs: Tensor, **keywords: Any) -> Any:
        """Every network on its own inputs: each tensor [S, ...] gives outputs [S, ...]; keywords go to all networks."""
        parameters: dict[str, Tensor] = {name: self.get_parameter(stored) for name, stored in self._names.items()}
        buffers = {name: self.get_buffer(stored) for name, stored in self._buffer_names.items()}

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Tensor) -> Any:
            return functional_call(self._skeleton[0], (parameters, buffers), inputs, keywords)

        return torch.vmap(one, randomness="different")(parameters, buffers, *inputs)

    @torch.no_grad()
    def clip_gradients(self, greatest: float) -> None:
        """Scale the gradient of every network by itself to an L2 norm of at most `greatest`."""
        gradients = [x.grad for x in self.parameters() if x.grad is not None]
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        scales = (greatest / (norms + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(scales.reshape(-1, *[1] * (gradient.ndim - 1)))

    def network(self, number: int) -> nn.Module:
        """One of the networks as a module of its own, a copy, in the mode that all are in."""
        module = deepcopy(self._skeleton[0]).to_empty(device=next(self.parameters()).device)
        with torch.no_grad():
            for name, x in module.named_parameters():
                x.copy_(self.get_parameter(self._names[name])[number])
            for name, x in module.named_buffers():
                x.copy_(self.get_buffer(self._buffer_names[name])[number])
        return module
