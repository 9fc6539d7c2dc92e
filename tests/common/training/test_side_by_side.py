"""Networks side by side have the outputs and the trainings that they would have alone."""

import pytest
import torch
from torch import nn

from common.errors import InputError
from common.training.side_by_side import SideBySide


def small(seed, width=4):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.BatchNorm1d(width, track_running_stats=False), nn.Linear(width, 1))


def test_outputs_and_steps_of_adam_are_those_of_each_alone():
    networks = [small(seed) for seed in range(3)]
    X = torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(9))
    together = SideBySide(networks)
    optimiser = torch.optim.Adam(together.parameters(), lr=0.01)
    for _ in range(5):
        optimiser.zero_grad()
        (together(X) ** 2).mean(dim=(1, 2)).sum().backward()
        optimiser.step()
    found = together(X)
    for seed, network in enumerate(networks):
        alone = small(seed)
        torch.testing.assert_close(alone(X[seed]), network(X[seed]))  # the networks given were not changed
        optimiser = torch.optim.Adam(alone.parameters(), lr=0.01)
        for _ in range(5):
            optimiser.zero_grad()
            (alone(X[seed]) ** 2).mean().backward()
            optimiser.step()
        torch.testing.assert_close(found[seed], alone(X[seed]), atol=1e-5, rtol=1e-4)


def test_dropout_differs_between_networks_and_rests_in_evaluation():
    together = SideBySide([nn.Dropout(0.5) for _ in range(2)])
    X = torch.ones(2, 1000)
    found = together.train()(X)
    assert not torch.equal(found[0], found[1])
    torch.testing.assert_close(together.eval()(X), X)


def test_networks_of_other_shapes_are_refused():
    with pytest.raises(InputError, match="one shape"):
        SideBySide([small(0), small(0, width=5)])
    with pytest.raises(InputError, match="0 networks"):
        SideBySide([])
