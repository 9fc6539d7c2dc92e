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


def test_adamw_decays_matrices_alone_and_follows_the_rate():
    network, rate = torch.nn.Linear(1, 1), torch.zeros(())
    recipe = Recipe(optimiser="adamw", learning_rate=1.0, batch_size=1, weight_decay=0.5, betas=(0.5, 0.5))
    optimiser = recipe.make_optimiser(network, rate)
    with torch.no_grad():
        network.weight.fill_(4.0)
        network.bias.fill_(4.0)
    for value, weight, bias in ((0.5, 4 * 0.75 - 0.5, 3.5), (0.25, 2.5 * 0.875 - 0.25, 3.25), (0.0, 1.9375, 3.25)):
        rate.fill_(value)
        network.weight.grad, network.bias.grad = torch.full((1, 1), 3.0), torch.full((1,), 3.0)
        optimiser.step()  # a constant gradient: Adam's part of every step is the rate
        assert network.weight.item() == pytest.approx(weight, abs=1e-6)
        assert network.bias.item() == pytest.approx(bias, abs=1e-6)


def test_betas_say_how_much_of_the_past_a_step_keeps():
    def after_two_steps(**changes):
        network, rate = torch.nn.Linear(1, 1, bias=False), torch.ones(())
        optimiser = Recipe(**{**SGD, "optimiser": "adam", **changes}).make_optimiser(network, rate)
        with torch.no_grad():
            network.weight.fill_(0.0)
        for gradient in (1.0, -1.0):
            network.weight.grad = torch.full((1, 1), gradient)
            optimiser.step()
        return network.weight.item()

    # The second step is the mean of both gradients, weighted by beta and 1 and divided by their weights, over a root of 1.
    assert after_two_steps(betas=(0.5, 0.9)) == pytest.approx(-1 - (0.5 - 1) / 1.5, abs=1e-6)
    assert after_two_steps() == pytest.approx(-1 - (0.9 - 1) / 1.9, abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimiser": "lion"},
        {"learning_rate": 0.0},
        {"batch_size": 0},
        {"clip_norm": -1.0},
        {"schedule": "step"},
        {"final_factor": 0.0},
        {"warmup_steps": -1},
        {"precision": "float16"},
        {"momentum": 0.9},
        {"weight_decay": -0.1},
        {"weight_decay": 0.1},  # which SGD does not take
    ],
    ids=str,
)
def test_bad_values_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Recipe(**{**SGD, **wrong})


def test_steps_fall_by_ten_at_each_milestone():
    recipe = Recipe(**SGD, schedule="steps", milestones=(0.5, 0.75), warmup_steps=1)
    assert [recipe.rate(step, 8) for step in range(8)] == pytest.approx([2, 2, 2, 2, 0.2, 0.2, 0.02, 0.02])


@pytest.mark.parametrize(
    "wrong",
    [{"schedule": "steps"}, {"milestones": (0.5,)}, {"schedule": "steps", "milestones": (0.5, 1.0)}],
    ids=str,
)
def test_milestones_go_with_steps_and_are_shares(wrong):
    with pytest.raises(ValidationError, match="milestones"):
        Recipe(**{**SGD, **wrong})


def test_adam_adds_its_weight_decay_to_the_gradient_of_every_parameter():
    network, rate = torch.nn.Linear(1, 1), torch.ones(())
    optimiser = Recipe(optimiser="adam", learning_rate=1.0, batch_size=1, weight_decay=0.5).make_optimiser(network, rate)
    with torch.no_grad():
        network.weight.fill_(4.0)
        network.bias.fill_(-4.0)
    network.weight.grad, network.bias.grad = torch.full((1, 1), -1.0), torch.full((1,), -1.0)
    optimiser.step()  # gradients -1 + 0.5 · 4 = 1 and -1 - 0.5 · 4 = -3: the first step of Adam is the rate against their sign
    assert network.weight.item() == pytest.approx(3.0, abs=1e-6)
    assert network.bias.item() == pytest.approx(-3.0, abs=1e-6)
