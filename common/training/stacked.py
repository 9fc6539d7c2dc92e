"""Many networks of one architecture as one: a step trains all of them, each on its own batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from common.errors import InputError


class Stacked(nn.Module):
    """R networks of one architecture, computed together.

    The method is written for one network. Their parameters are kept as matrices [R, elements], so that an optimiser without
    clipping updates each as if it were alone.

    Args:
        networks: R of them, with parameters of the same names and shapes and without buffers.

    Raises:
        InputError: there are none, they differ in shape, or one has buffers.
    """

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        shapes = [{name: tuple(x.shape) for name, x in network.named_parameters()} for network in networks]
        if not shapes or any(shape != shapes[0] for shape in shapes):
            raise InputError(f"{len(shapes)} networks are to be stacked; give at least one, all with parameters of one shape.")
        if any(True for network in networks for _ in network.buffers()):
            raise InputError("A network with buffers cannot be stacked: pass what it keeps as an argument.")
        self.shapes = shapes[0]
        every = [dict(network.named_parameters()) for network in networks]
        self.stacked = nn.ParameterList(
            nn.Parameter(torch.stack([one[name].detach().flatten() for one in every])) for name in self.shapes
        )
        self._template = [networks[0]]  # in a list: its own parameters are not this module's

    def __len__(self) -> int:
        return len(self.stacked[0])

    @property
    def template(self) -> Any:
        """One of the networks, for what does not depend on parameters."""
        return self._template[0]

    def parameters_by_name(self) -> dict[str, Tensor]:
        """Name in the network -> [R, *shape], views of the stacked parameters."""
        return {
            name: tensor.unflatten(1, shape) if shape else tensor.squeeze(1)
            for (name, shape), tensor in zip(self.shapes.items(), self.stacked, strict=True)
        }

    def forward(self, *arguments: Tensor, **keywords: Any) -> Any:
        """Each network on its own arguments.

        Args:
            arguments: tensors with a leading R.
            keywords: anything else, the same for all networks.

        Returns:
            What the network returns, each tensor with a leading R.
        """
        template = self.template

        def one(parameters: dict[str, Tensor], *own: Tensor) -> Any:
            return functional_call(template, parameters, own, keywords)

        return vmap(one)(self.parameters_by_name(), *arguments)
