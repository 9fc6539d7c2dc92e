"""Trainings side by side, choice of the epoch, splits."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from common.configuration import read_paper_config
from common.errors import InputError
from common.experiment import Context
from common.provenance import REPOSITORY
from papers.gaam.comparison import runs_of
from papers.gaam.gaussian_attention import GaussianAttention
from papers.gaam.layer_features import LayerFeatures, splits_of
from papers.gaam.models import Method, Sizes
from papers.gaam.training import Run, Schedule, Trainer, choose_epochs, focal_loss, rows_of, scores_of, train_methods

SIZES = Sizes(parts=2, attention_heads=2, channels=4, query=(8, 4, 2, 3), query_picture=(2, 4))
SCHEDULE = Schedule(learning_rate=3e-3, epochs=3, batch_size=4)
CONTEXT = Context("cpu", "test")


def made_features(samples: int = 60, *, folds: bool = True) -> LayerFeatures:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(samples) % 3
    centres = torch.randn(3, 4, 6, generator=generator)
    X = centres[labels] + torch.randn(samples, 4, 6, generator=generator)
    groups = np.arange(samples) // 3 % 5 if folds else (np.arange(samples) >= samples * 2 // 3).astype(np.int64)
    return LayerFeatures(X, labels, groups, folds)


@pytest.mark.parametrize("method", [Method(model="gaam"), Method(model="mha_bn", axis="batch"), Method(model="gqgaam", l2=0.1)])
def test_runs_side_by_side_are_as_they_would_be_alone(method):
    features = made_features()
    runs = runs_of(features, [0, 1, 2], 0.2)
    together = train_methods({"m": method}, SIZES, SCHEDULE, features, runs, CONTEXT)["m"]
    alone = train_methods({"m": method}, SIZES, SCHEDULE, features, runs[:1], CONTEXT)["m"]
    # Logits, not parameters: a bias of keys changes nothing, and Adam makes steps of its rounding errors.
    rows = torch.arange(8)[None]
    assert torch.allclose(together(rows.expand(3, -1))[0], alone(rows)[0], atol=1e-4)
    assert torch.allclose(together.accuracies[:, :, 0], alone.accuracies[:, :, 0])


def test_methods_do_not_depend_on_what_is_trained_beside_them_and_repeat():
    features = made_features()
    runs = runs_of(features, [0, 1], 0.2)
    methods = {"a": Method(model="gaam"), "b": Method(model="mha"), "c": Method(model="mixture")}
    first = train_methods(methods, SIZES, SCHEDULE, features, runs, CONTEXT, at_once=2)
    again = train_methods({"c": methods["c"]}, SIZES, SCHEDULE, features, runs, CONTEXT)
    assert torch.equal(first["c"].accuracies, again["c"].accuracies)
    assert all(torch.equal(a, b) for a, b in zip(first["c"].parameters(), again["c"].parameters(), strict=True))


def methods_of_the_comparison() -> dict[str, Method]:
    methods = read_paper_config(REPOSITORY / "papers" / "gaam" / "config.yaml").experiments["comparison"].parameters["methods"]
    return {name: Method.model_validate(values) for name, values in methods.at("standard").items()}


@pytest.mark.parametrize(("name", "method"), methods_of_the_comparison().items())
def test_a_step_asks_for_no_value_on_the_host(name, method):
    """A CUDA graph cannot hold such a step, and nothing but a GPU would say so: the gradient of `Tensor.prod` is one."""
    del name
    features = made_features()
    trainer = Trainer(method, SIZES, features, runs_of(features, [0, 1], 0.2), SCHEDULE)
    rows = torch.arange(8).view(2, 4)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        trainer.training_loss(rows).backward()
    operators = {event.key for event in profile.key_averages()}
    assert "aten::linear" in operators or "aten::baddbmm" in operators or "aten::bmm" in operators
    assert not operators & {"aten::item", "aten::_local_scalar_dense", "aten::nonzero"}


@pytest.mark.parametrize("model", ["gaam", "mha_bn"])
def test_the_kept_network_is_that_of_the_best_epoch_on_validation(model):
    features = made_features()
    runs = runs_of(features, [0, 1, 2], 0.2)
    schedule = Schedule(learning_rate=1e-2, epochs=5, batch_size=4)
    trainer = train_methods({"m": Method(model=model)}, SIZES, schedule, features, runs, CONTEXT)["m"]
    scores, labels = scores_of(trainer), features.labels.numpy()
    rows, _ = trainer.parts["test"]
    predicted = trainer.predictions(rows).numpy()
    for place, run in enumerate(runs):
        found = predicted[place, : len(run.test)]
        assert 100 * accuracy_score(labels[run.test], found) == pytest.approx(scores.nested[place], abs=1e-3)
    validation = trainer.accuracies[0].numpy()
    assert np.array_equal(scores.epochs, validation.argmax(0) + 1)
    assert (scores.on_test >= scores.nested).all()


def test_the_epoch_is_chosen_on_validation_alone():
    validation = np.array([[50.0, 80.0], [70.0, 80.0], [70.0, 10.0]])
    test = np.array([[99.0, 30.0], [60.0, 90.0], [65.0, 20.0]])
    scores = choose_epochs(validation, test)
    assert scores.epochs.tolist() == [2, 1]  # of equal epochs the first
    assert scores.nested.tolist() == [60, 30]
    assert scores.on_test.tolist() == [99, 90]
    assert scores.last.tolist() == [65, 20]


def test_what_is_tested_changes_nothing_in_training():
    features = made_features()
    (run,) = runs_of(features, [0], 0.2)[:1]
    other = Run(run.number, run.seed, run.train, run.validation, run.test[: len(run.test) // 2])
    a, b = (train_methods({"m": Method(model="gaam")}, SIZES, SCHEDULE, features, [one], CONTEXT)["m"] for one in (run, other))
    assert all(torch.equal(x, y) for x, y in zip(a.networks.parameters(), b.networks.parameters(), strict=True))


def test_runs_may_read_single_layers():
    features = made_features()
    runs = runs_of(features, [0], 0.2)
    alone = [Run(r.number, r.seed, r.train, r.validation, r.test, layers=np.array([layer])) for r in runs for layer in (1, 3)]
    trainer = Trainer(Method(model="identity"), SIZES, features, alone, SCHEDULE)
    read = trainer.read(torch.tensor([[5, 6], [7, 8]]))
    assert torch.equal(read[0], features.X[[5, 6]][:, [1]])
    assert torch.equal(read[1], features.X[[7, 8]][:, [3]])
    uneven = [alone[0], Run(0, 0, alone[0].train, alone[0].validation, alone[0].test)]
    with pytest.raises(InputError, match="same number of layers"):
        Trainer(Method(model="identity"), SIZES, features, uneven, SCHEDULE)


def test_mean_gate_is_the_mean_over_validation_samples():
    features = made_features(47)
    runs = runs_of(features, [0, 1], 0.2)
    trainer = train_methods({"m": Method(model="gaam", heads="parts")}, SIZES, SCHEDULE, features, runs, CONTEXT)["m"]
    found = trainer.mean_gate()
    parameters = dict(trainer.networks.named_parameters())
    gate = trainer.template[0].attention
    assert isinstance(gate, GaussianAttention)
    for place, run in enumerate(runs):
        with torch.no_grad():
            gate.delta.copy_(parameters["attention/delta"][place])
            gate.xi.copy_(parameters["attention/xi"][place])
            expected = gate.gate(features.X[torch.from_numpy(run.validation)]).mean(0)
        assert np.allclose(found[place], expected.numpy(), atol=1e-6)


def test_frozen_gates_stay():
    features = made_features()
    runs = runs_of(features, [0], 0.2)
    methods = {"frozen": Method(model="gaam", learned=False), "learned": Method(model="gaam")}
    trained = train_methods(methods, SIZES, SCHEDULE, features, runs, CONTEXT)
    frozen = dict(trained["frozen"].networks.named_buffers())
    assert (frozen["attention/delta"] == 0).all()
    assert (frozen["attention/xi"] == 2).all()
    assert (dict(trained["learned"].networks.named_parameters())["attention/delta"] != 0).any()


@pytest.mark.parametrize("gamma", [0.0, 2.5])
def test_focal_loss_by_hand(gamma):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    p = torch.softmax(logits, 1)[range(6), labels]
    expected = -torch.log(p) * (0.25 * (1 - p) ** gamma if gamma else 1)
    assert torch.allclose(focal_loss(logits, labels, gamma).double(), expected, atol=1e-6)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_rows_hold_every_sample_once_and_mark_the_rest(lengths, multiple):
    parts = [100 * r + np.arange(length) for r, length in enumerate(lengths)]
    rows, real = rows_of(parts, multiple)
    assert rows.shape[1] % multiple == 0
    for part, row, mask in zip(parts, rows, real, strict=True):
        assert row[mask].tolist() == part.tolist()
        assert set(row.tolist()) <= set(part.tolist())


def test_folds_are_nested_and_share_nothing():
    features = made_features()
    splits = splits_of(features, [0, 1, 2, 3, 4], 0.2)
    assert sorted(np.concatenate([s.test for s in splits]).tolist()) == list(range(60))
    for split in splits:
        parts = [set(features.groups[p]) for p in (split.train, split.validation, split.test)]
        assert all(a.isdisjoint(b) for a, b in itertools.combinations(parts, 2))
        assert sum(map(len, (split.train, split.validation, split.test))) == 60


def test_without_folds_test_samples_stay_and_classes_are_even():
    features = made_features(folds=False)
    splits = splits_of(features, [0, 1], 0.25)
    for split in splits:
        assert split.test.tolist() == list(range(40, 60))
        assert sorted([*split.train, *split.validation]) == list(range(40))
        assert np.ptp(np.bincount(features.labels.numpy()[split.validation])) <= 1
    assert splits[0].validation.tolist() != splits[1].validation.tolist()


def test_bad_data_and_runs_are_named():
    X, labels = torch.zeros(4, 2, 3), torch.tensor([0, 1, 0, 1])
    with pytest.raises(InputError, match="one label and one group"):
        LayerFeatures(X, labels[:3], np.zeros(4), True)
    with pytest.raises(InputError, match="not finite"):
        LayerFeatures(X / 0, labels, np.zeros(4), True)
    with pytest.raises(InputError, match="without gaps"):
        LayerFeatures(X, 2 * labels, np.zeros(4), True)
    with pytest.raises(InputError, match="2 folds and 2 runs"):
        splits_of(LayerFeatures(X, labels, np.array([0, 1, 0, 1]), True), [0, 1], 0.2)
    features = made_features()
    with pytest.raises(InputError, match="0 runs"):
        train_methods({"m": Method(model="gaam")}, SIZES, SCHEDULE, features, [], CONTEXT)
    few = Run(0, 0, np.arange(3), np.arange(3, 6), np.arange(6, 9))
    with pytest.raises(InputError, match="3 training samples"):
        train_methods({"m": Method(model="gaam")}, SIZES, SCHEDULE, features, [few], CONTEXT)
