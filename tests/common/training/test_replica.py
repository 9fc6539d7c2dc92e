"""A replica's steps against a loop written here, alone and beside others, and its graphs on a GPU."""

import pytest
import torch

from common.errors import InputError
from common.training import Batches, Recipe, Replica, train
from tests.common.training.small_problem import ADAM, SGD, Reader, buckets, loss, parameters_of, replica, same

BFLOAT16 = Recipe(optimiser="adam", learning_rate=0.01, batch_size=4, clip_norm=1.0, precision="bfloat16")
RECIPES = {"sgd": SGD, "adam": ADAM, "bfloat16": BFLOAT16}


def plain_loop(recipe, *, steps, device="cpu"):
    """Parameters and the losses of all steps, from a loop without replica, tensor rate or graph."""
    network, data = Reader(0).to(device), buckets(device)
    order = Batches(data, recipe.batch_size, 0)
    parameters = list(network.parameters())
    optimiser = (torch.optim.SGD if recipe.optimiser == "sgd" else torch.optim.Adam)(parameters, lr=1.0)
    losses = []
    for step in range(steps):
        key, rows = order.draw()
        with torch.autocast(device, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            value = loss(network, tuple(x[rows] for x in data[key]))
        gradients = torch.autograd.grad(value, parameters)
        norm = sum(g.square().sum() for g in gradients) ** 0.5
        factor = 1.0 if recipe.clip_norm is None else min(1.0, recipe.clip_norm / float(norm))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient * factor
        optimiser.param_groups[0]["lr"] = recipe.rate(step, steps)
        optimiser.step()
        losses.append(value.item())
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}, losses


@pytest.mark.parametrize("name", RECIPES)
def test_steps_are_those_of_a_plain_loop(name):
    trained = replica(recipe=RECIPES[name], steps=25)
    train([trained])
    expected, losses = plain_loop(RECIPES[name], steps=25)
    for key, value in parameters_of(trained).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5)
    assert trained.curve[-1]["loss"] == pytest.approx(sum(losses) / 25, rel=1e-5)
    assert losses[-1] < losses[0]


def test_the_same_seeds_give_the_same_bits_and_others_do_not():
    def result(**seeds):
        one = replica(**seeds)
        train([one])
        return parameters_of(one)

    assert same(result(), result())
    assert not same(result(), result(seed=1))
    assert not same(result(), result(order_seed=1))


def test_neighbours_do_not_change_a_replica():
    alone = replica("sgd")
    train([alone])
    together = [replica("adam", ADAM, steps=40), replica("sgd"), replica("other", seed=3, steps=10)]
    torch.manual_seed(9)
    train(together)
    assert same(parameters_of(alone), parameters_of(together[1]))


def test_a_state_taken_anywhere_goes_on():
    whole = replica(recipe=ADAM)
    first = replica(recipe=ADAM)
    for _ in range(11):
        first.advance()
    state = first.state()
    rest = replica(recipe=ADAM, seed=5)  # its own parameters are replaced
    rest.load_state(state)
    for _ in range(14):
        rest.advance()
    train([whole])
    assert rest.finished
    assert same(parameters_of(rest), parameters_of(whole))


def test_bad_input():
    for call, message in [
        (lambda: replica(steps=0), "steps is 0; it must be a positive integer"),
        (lambda: replica(curve_steps=[0, 3]), r"curve_steps of sgd is \[0, 3\]; steps lie in 1..25"),
        (lambda: replica(curve_steps=[26]), "steps lie in 1..25"),
        (lambda: replica(recipe=SGD.model_copy(update={"batch_size": 14})), "bucket 5 has 13 examples and a batch takes 14"),
        (
            lambda: Replica("a", Reader(0).to("meta"), SGD, loss=loss, buckets=buckets(), steps=1, order_seed=0),
            "network of a is on meta and its buckets on cpu",
        ),
        (lambda: replica().load_state(replica(order_seed=4).state()), "saved order has seed 4"),
    ]:
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.gpu
@pytest.mark.parametrize("name", RECIPES)
def test_graphs_do_the_steps_of_a_plain_loop_on_gpu(name):
    trained = replica(recipe=RECIPES[name], steps=25, device="cuda")
    train([trained])
    expected, losses = plain_loop(RECIPES[name], steps=25, device="cuda")
    tolerance = 2e-2 if name == "bfloat16" else 1e-3
    for key, value in parameters_of(trained).items():
        torch.testing.assert_close(value, expected[key], rtol=tolerance, atol=tolerance)
    assert trained.curve[-1]["loss"] == pytest.approx(sum(losses) / 25, rel=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("name", RECIPES)
def test_capturing_changes_nothing_on_gpu(name):
    fresh = replica(recipe=RECIPES[name], device="cuda")
    before, random_state = parameters_of(fresh), torch.cuda.get_rng_state()
    order = fresh.batches.state()["generator"]
    fresh.prepare()
    fresh.synchronise()
    assert same(before, parameters_of(fresh))
    assert torch.equal(random_state, torch.cuda.get_rng_state())
    state = fresh.state()
    assert torch.equal(order, state["batches"]["generator"])
    for entries in state["optimiser"].values():
        assert all(not bool(value.any()) for value in entries.values() if isinstance(value, torch.Tensor))
    assert float(state["loss_sum"]) == 0.0


@pytest.mark.gpu
def test_side_by_side_and_alone_give_the_same_bits_on_gpu():
    data = buckets("cuda")

    def make():
        return [
            replica(f"{name} {seed}", recipe, seed=seed, order_seed=seed, steps=200, data=data, device="cuda")
            for name, recipe in RECIPES.items()
            for seed in range(3)
        ]

    together = make()
    train(together)
    for one, beside in zip(make(), together, strict=True):
        train([one])
        assert same(parameters_of(one), parameters_of(beside)), one.name


@pytest.mark.gpu
@pytest.mark.parametrize("name", RECIPES)
def test_a_state_goes_on_with_new_graphs_on_gpu(name):
    whole, first, rest = (replica(recipe=RECIPES[name], seed=seed, device="cuda") for seed in (0, 0, 5))
    train([whole])
    first.prepare()
    for _ in range(11):
        first.advance()
    rest.load_state(first.state())
    train([rest])
    assert same(parameters_of(rest), parameters_of(whole))
