"""Networks side by side that keep their best epochs, and whose gradients are clipped one by one."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import InputError
from common.training import Recipe
from common.training.best_epoch import Epochs, train_to_best_epoch
from common.training.side_by_side import SideBySide

ROWS = [np.arange(40), np.arange(40)]


def networks():
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        found.append(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))
    return found


def problem(device="cpu"):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator).to(device)
    return x, x[:, :1] * 3 - x[:, 1:2]


def fit(validate, epochs, *, recipe=None, rows=ROWS, seeds=(0, 1), device="cpu"):
    x, y = problem(device)

    def loss(side_by_side, drawn):
        return ((side_by_side(x[drawn]) - y[drawn]) ** 2).flatten(1).mean(1).sum()

    recipe = recipe or Recipe(optimiser="adam", learning_rate=1e-2, batch_size=8)
    return train_to_best_epoch(networks(), loss, rows, validate, recipe, epochs, seeds=seeds, device=device)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_each_network_keeps_its_best_epoch(device):
    scores, seen = iter([[0.5, 0.1], [0.4, 0.2], [0.9, 0.3]]), []

    def validate(side_by_side):
        assert not side_by_side.training
        seen.append([x.detach().clone() for x in side_by_side.parameters()])
        return next(scores)

    found = fit(validate, Epochs(greatest=6, patience=2, every=2, first=2), device=device)
    assert (found.epoch, found.score) == ([2, 6], [0.5, 0.3])  # the first stopped before the 0.9
    assert [row[0] for row in found.curve] == [2, 4, 6]
    for kept, first, last in zip(found.networks.parameters(), seen[0], seen[2], strict=True):
        torch.testing.assert_close(kept[0], first[0], rtol=0, atol=0)
        torch.testing.assert_close(kept[1], last[1], rtol=0, atol=0)
    assert found.curve[-1][1] < found.curve[0][1]


def test_it_ends_when_all_have_stopped_and_validates_the_last_epoch():
    found = fit(lambda _: [0.0, 0.0], Epochs(greatest=50, patience=2))
    assert [row[0] for row in found.curve] == [1, 2, 3]
    found = fit(lambda _: [0.0, 0.0], Epochs(greatest=4, patience=9, every=3, first=3))
    assert [row[0] for row in found.curve] == [3, 4]


def test_a_network_of_those_side_by_side_computes_what_all_do():
    found = fit(lambda _: [1.0, 1.0], Epochs(greatest=1, patience=1))
    x, _ = problem()
    torch.testing.assert_close(found.networks.network(1)(x), found.networks(x.expand(2, -1, -1))[1])
    assert not torch.allclose(networks()[1](x), found.networks.network(1)(x))  # it has learned


def test_gradients_are_clipped_one_by_one():
    x, y = problem()
    side_by_side = SideBySide(networks())
    ((side_by_side(x.expand(2, -1, -1)) - y * torch.tensor([1.0, 50.0])[:, None, None]) ** 2).mean((1, 2)).sum().backward()
    side_by_side.clip_gradients(1.0)
    gradients = [x.grad for x in side_by_side.parameters() if x.grad is not None]
    for number, (network, factor) in enumerate(zip(networks(), (1.0, 50.0), strict=True)):
        ((network(x) - factor * y) ** 2).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for stacked, alone in zip(gradients, network.parameters(), strict=True):
            torch.testing.assert_close(stacked[number], alone.grad)


def test_a_network_on_its_own_is_a_copy():
    side_by_side = SideBySide(networks()).eval()
    alone = side_by_side.network(0)
    before = copy.deepcopy(side_by_side.state_dict())
    with torch.no_grad():
        next(alone.parameters()).add_(1)
    assert not alone.training
    for name, x in side_by_side.state_dict().items():
        assert torch.equal(x, before[name])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": Epochs(greatest=2, patience=1, first=3)}, "first epoch that is validated is 3 of 2"),
        ({"rows": [np.arange(40), np.arange(30)]}, r"have \[30, 40\] rows"),
        ({"rows": [np.arange(4), np.arange(4)]}, r"have \[4\] rows, a batch 8"),
        ({"validate": lambda _: [float("nan"), 1.0]}, "a network has none that is a number"),
    ],
)
def test_what_is_wrong_is_named(changes, words):
    arguments = {"validate": lambda _: [1.0, 1.0], "epochs": Epochs(greatest=1, patience=1)} | changes
    with pytest.raises(InputError, match=words):
        fit(arguments.pop("validate"), arguments.pop("epochs"), **arguments)
