"""Stacked networks: outputs, gradients and trained parameters are those of each network alone."""

import pytest
import torch
from torch import nn

from common.errors import InputError
from common.training.stacked import Stacked


def networks(count=3):
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 2)).double() for _ in range(count)]


def test_outputs_and_training_are_those_of_each_alone():
    alone = networks()
    stacked = Stacked(alone)
    assert len(stacked) == 3
    X = torch.randn(3, 7, 4, dtype=torch.float64)
    optimisers = [torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1) for parameters in
                  [stacked.parameters(), *(network.parameters() for network in alone)]]  # fmt: skip
    for _ in range(4):
        for optimiser in optimisers:
            optimiser.zero_grad()
        together, apart = stacked(X), torch.stack([network(x) for network, x in zip(alone, X, strict=True)])
        torch.testing.assert_close(together, apart)
        together.square().mean((1, 2)).sum().backward()
        sum(output.square().mean() for output in apart).backward()  # pyright: ignore[reportAttributeAccessIssue]
        for optimiser in optimisers:
            optimiser.step()
    for name, tensor in stacked.parameters_by_name().items():
        torch.testing.assert_close(tensor, torch.stack([network.get_parameter(name) for network in alone]))


def test_keywords_are_the_same_for_all():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x, *, by):
            return {"y": by * self.weight * x}

    found = Stacked([Scaled(), Scaled()])(torch.tensor([1.0, 2.0]), by=3)
    assert found["y"].tolist() == [3, 6]


def test_networks_that_do_not_fit():
    with pytest.raises(InputError, match="0 networks"):
        Stacked([])
    with pytest.raises(InputError, match="parameters of one shape"):
        Stacked([nn.Linear(2, 2), nn.Linear(2, 3)])
    with pytest.raises(InputError, match="buffers"):
        Stacked([nn.BatchNorm1d(2)])
