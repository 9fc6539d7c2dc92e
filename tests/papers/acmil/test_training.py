"""Trainings side by side: each is what it would be alone, and what is drawn is drawn as said."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from common.data.bags import Bags, padded
from common.errors import InputError
from common.experiment import Context
from common.training.counter_random import mixed_seed
from papers.acmil.models import Method, Sizes
from papers.acmil.training import Run, Schedule, SideBySide, orders, over_bags, standardisation, train_methods

SIZES = Sizes(L=6, D=4, heads=2)
NOTHING = np.array([], dtype=np.int64)
ON_CPU = Context("cpu", "test")


def bags(count=10, d=3):
    generator = np.random.default_rng(0)
    sizes = generator.integers(2, 6, count)
    instances = generator.normal(2, 5, (sizes.sum(), d)).astype(np.float32)
    instances[:, 1] = 7.0
    return Bags(instances, np.concatenate([[0], np.cumsum(sizes)]), np.arange(count) % 2)


def run_of(seed, train, test=(8, 9)):
    return Run(seed, np.array(train), np.array(test), {"seed": seed}, NOTHING)


def test_standardisation_is_scikit_learns_and_drops_constant_features():
    drawn = bags()
    runs = [run_of(0, [0, 3, 5]), run_of(1, [1, 2])]
    mean, factor = standardisation(padded(drawn), runs)
    for r, one in enumerate(runs):
        scaler: Any = StandardScaler().fit(drawn.select(one.train).instances)
        np.testing.assert_allclose(mean[r], scaler.mean_, rtol=1e-5)
        np.testing.assert_allclose(factor[r, [0, 2]], 1 / scaler.scale_[[0, 2]], rtol=1e-5)
    assert factor[:, 1].tolist() == [0, 0]


def test_every_run_sees_its_training_bags_and_no_other():
    runs = [run_of(0, [0, 1, 2, 3, 4]), run_of(1, [5, 6, 7])]
    rows = orders(runs)
    assert rows.shape == (5, 2)
    assert sorted(rows[:, 0].tolist()) == [0, 1, 2, 3, 4]
    assert set(rows[:, 1].tolist()) == {5, 6, 7}
    assert rows[:3, 1].unique().numel() == 3


@pytest.mark.parametrize("optimiser", ["adamw", "adam"])
@pytest.mark.parametrize("model", ["abmil", "acmil", "dtfd", "transmil"])
def test_a_run_side_by_side_is_the_run_alone(model, optimiser):
    """Same parameters as a loop over single networks, bag after bag, with PyTorch's own optimiser."""
    data = padded(bags())
    method = Method(model=model, M=2, K=2, optimiser=optimiser, weight_decay=0.1)
    schedule = Schedule(learning_rate=1e-2, epochs=2)
    runs = [run_of(3, [0, 1, 2]), run_of(4, [4, 5, 6])]
    together = train_methods({"m": method}, SIZES, schedule, data, runs, ON_CPU)["m"]
    drawn = []
    seen = SideBySide(method, SIZES, data, runs, standardise=True)
    real = SideBySide.training_loss

    def spied(self, numbers):
        drawn.append(numbers.clone())
        return real(self, numbers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SideBySide, "training_loss", spied)
        train_methods({"m": method}, SIZES, schedule, data, runs, ON_CPU)
    assert sorted(torch.stack(drawn[:3])[:, 0].tolist()) == [0, 1, 2]
    for r, one in enumerate(runs):
        alone = SideBySide(method, SIZES, data, [one], standardise=True)
        network = alone.stacked.template
        for name, tensor in seen.stacked.parameters_by_name().items():
            torch.testing.assert_close(tensor[r], network.get_parameter(name).detach())
        make = torch.optim.AdamW if optimiser == "adamw" else torch.optim.Adam
        mine = make(network.parameters(), lr=1e-2, weight_decay=0.1)
        for step, numbers in enumerate(drawn):
            bag = numbers[r : r + 1]
            X = (data.instances[bag] - alone.shift[0]) * alone.factor[0] * data.mask[bag][..., None]
            seed = mixed_seed(alone.seeds, torch.tensor(step + 1))[0]
            for group in mine.param_groups:
                group["lr"] = 1e-2 * (1e-6 + (1 - 1e-6) * (1 + np.cos(np.pi * step / (len(drawn) - 1))) / 2)
            mine.zero_grad()
            network.loss(network(X, data.mask[bag], seed), data.labels[bag]).sum().backward()
            mine.step()
        for name, tensor in together.stacked.parameters_by_name().items():
            if not name.endswith("w.bias"):  # a softmax does not see it: its gradient is rounding, which Adam blows up
                torch.testing.assert_close(tensor[r], network.get_parameter(name), atol=2e-5, rtol=2e-4)


def test_inference_reads_the_right_bags_whatever_the_batch(monkeypatch):
    data = padded(bags())
    runs = [run_of(0, [0, 1, 2], (7, 8, 9)), run_of(1, [3, 4, 5], (6,))]
    network = SideBySide(Method(model="abmil"), SIZES, data, runs, standardise=True)

    def measure(outputs, numbers):
        return {"logits": outputs["logits"], "number": numbers}

    whole = over_bags(network, [one.test for one in runs], measure)
    assert [found["number"].tolist() for found in whole] == [[7, 8, 9], [6]]
    monkeypatch.setattr("papers.acmil.training.VALUES_AT_ONCE", 1)
    for one, other in zip(whole, over_bags(network, [one.test for one in runs], measure), strict=True):
        np.testing.assert_allclose(one["logits"], other["logits"], rtol=1e-5)


def test_epochs_and_their_callback():
    seen = []
    train_methods(
        {"a": Method(model="mean", epochs=3), "b": Method(model="max")}, SIZES, Schedule(learning_rate=1e-3, epochs=2),
        padded(bags()), [run_of(0, [0, 1, 2])], ON_CPU,
        after_epoch=lambda name, network: seen.append((name, int(network.step))),
    )  # fmt: skip
    assert [step for name, step in seen if name == "a"] == [3, 6, 9]
    assert [step for name, step in seen if name == "b"] == [3, 6]


def test_runs_without_bags_are_refused():
    with pytest.raises(InputError, match="bags to train and to test"):
        train_methods({}, SIZES, Schedule(learning_rate=1, epochs=1), padded(bags()), [run_of(0, [0], ())], ON_CPU)
    with pytest.raises(InputError, match="0 runs"):
        train_methods({}, SIZES, Schedule(learning_rate=1, epochs=1), padded(bags()), [], ON_CPU)


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["mean", "max", "abmil", "clam", "dsmil", "transmil", "dtfd", "acmil", "acmil_mha"])
def test_captured_steps_on_a_gpu_are_those_of_the_cpu(model):
    runs = [run_of(3, [0, 1, 2]), run_of(4, [4, 5, 6])]
    outputs = []
    for device in ("cpu", "cuda", "cuda"):
        data = padded(bags(), device)
        method, schedule = Method(model=model, M=2, K=2), Schedule(learning_rate=1e-3, epochs=3)
        network = train_methods({"m": method}, SIZES, schedule, data, runs, Context(device, "test"))["m"]
        with torch.inference_mode():
            outputs.append(network(torch.tensor([[8, 9], [8, 9]], device=device), masking=False)["logits"].cpu())
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-3, rtol=1e-3)
    assert torch.equal(outputs[1], outputs[2])
