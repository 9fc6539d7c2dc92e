"""Recipes: schedules by hand, and optimisers that follow the rate in a tensor."""

import math

import pytest
import torch
from pydantic import ValidationError

from common.training import Recipe

SGD = {"optimiser": "sgd", "learning_rate": 2.0, "batch_size": 4}


def test_a_constant_rate():
    assert {Recipe(**SGD).rate(step, 10) for step in range(10)} == {2.0}


def test_warm_up_rises_linearly_to_the_greatest_rate():
    recipe = Recipe(**SGD, warmup_steps=4)
    assert [recipe.rate(step, 6) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_cosine_falls_to_the_final_factor_at_the_last_step():
    recipe = Recipe(**SGD, schedule="cosine", final_factor=0.1)
    rates = [recipe.rate(step, 5) for step in range(5)]
    assert rates == pytest.approx([2.0, 0.2 + 1.8 * (1 + math.sqrt(0.5)) / 2, 1.1, 0.2 + 1.8 * (1 - math.sqrt(0.5)) / 2, 0.2])


def test_exponential_falls_by_one_factor_a_step():
    recipe = Recipe(**SGD, schedule="exponential", final_factor=1 / 16, warmup_steps=1)
    assert [recipe.rate(step, 6) for step in range(6)] == pytest.approx([2.0, 2.0, 1.0, 0.5, 0.25, 0.125])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_training_shorter_than_its_warm_up_has_a_rate(schedule, steps):
    recipe = Recipe(**SGD, schedule=schedule, warmup_steps=5)
    assert all(0 < recipe.rate(step, steps) <= 2.0 for step in range(steps))


def test_sgd_follows_the_rate():
    network, rate = torch.nn.Linear(1, 1, bias=False), torch.zeros(())
    optimiser = Recipe(**SGD).make_optimiser(network, rate)
    with torch.no_grad():
        network.weight.fill_(1.0)
    for value, expected in ((0.5, 0.0), (0.25, -0.5), (0.0, -0.5)):
        rate.fill_(value)
        network.weight.grad = torch.full((1, 1), 2.0)
        optimiser.step()
        assert network.weight.item() == expected


def test_adam_follows_the_rate():
    network, rate = torch.nn.Linear(1, 1, bias=False), torch.zeros(())
    optimiser = Recipe(**{**SGD, "optimiser": "adam"}).make_optimiser(network, rate)
    with torch.no_grad():
        network.weight.fill_(1.0)
    for value, expected in ((0.5, 0.5), (0.25, 0.25), (0.0, 0.25)):  # a constant gradient: every step is the rate
        rate.fill_(value)
        network.weight.grad = torch.full((1, 1), 3.0)
        optimiser.step()
        assert network.weight.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimiser": "adamw"},
        {"learning_rate": 0.0},
        {"batch_size": 0},
        {"clip_norm": -1.0},
        {"schedule": "step"},
        {"final_factor": 0.0},
        {"warmup_steps": -1},
        {"precision": "float16"},
        {"momentum": 0.9},
    ],
    ids=str,
)
def test_bad_values_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Recipe(**{**SGD, **wrong})
