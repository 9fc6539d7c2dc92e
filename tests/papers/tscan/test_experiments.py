"""Data, training and experiments of TSCAN on made-up stays."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from common.claims import check_claims, judge_all
from common.configuration import batches_of, check_parameters, read_paper_config
from common.errors import ConfigError, DataError, InputError
from common.experiment import Context, run_job
from common.metrics.classification import discrimination
from common.records import RecordSet
from common.training.side_by_side import SideBySide
from papers.tscan import benchmark_tasks, comparison, explanations, length_of_stay, mortality, number_of_variables
from papers.tscan.ablations import mean_attention
from papers.tscan.networks import NetworkSizes, initialised, make_network
from papers.tscan.scoring import auroc
from papers.tscan.stays import COLUMNS, load, split
from papers.tscan.training import Fitting, Tensors, fit, mean_losses, predict, same_rows

PAPER = Path("papers/tscan")
SIZES = NetworkSizes(
    E=8, heads=2, feed_forward=8, dropout=0.3, lstm=4, gru_d=4, transformer=4, transformer_layers=1
)  # fmt: skip
FITTING = Fitting(learning_rate=1e-2, batch=16, epochs=4, patience=2)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REATTEND_CACHE", str(tmp_path_factory.mktemp("cache")))
        load.cache_clear()
        yield


def test_configuration_and_claims_are_valid():
    config = read_paper_config(PAPER / "config.yaml")
    check_parameters(config, PAPER / "config.yaml")
    check_claims(PAPER, list(config.experiments))


def test_stays_are_normalised_by_set_a_and_read_again_from_the_cache():
    stays = load("generated")
    load.cache_clear()
    again = load("generated")
    for field in dataclasses.fields(stays):
        np.testing.assert_array_equal(getattr(stays, field.name), getattr(again, field.name))
    assert stays.values.shape == (120, 48, len(COLUMNS))
    assert np.isfinite(stays.values).all()
    assert set(stays.learning) & set(stays.test) == set()
    age = COLUMNS.index("Age")
    assert stays.values[stays.learning, :, age].mean() == pytest.approx(0, abs=1e-5)
    assert stays.values[stays.learning, :, age].std() == pytest.approx(1, abs=1e-5)
    assert stays.values[stays.test, :, age].mean() != pytest.approx(0, abs=1e-5)
    assert (stays.values[:, :, age] == stays.values[:, :1, age]).all()


def test_splits_are_stratified_and_differ_by_seed():
    stays = load("generated")
    training, validation = split(stays.died, stays.learning, 0)
    assert sorted([*training, *validation]) == stays.learning.tolist()
    assert stays.died[validation].mean() == pytest.approx(stays.died[stays.learning].mean(), abs=0.1)
    assert set(split(stays.died, stays.learning, 1)[1]) != set(validation)


def problem(networks=2, device="cpu"):
    """Stays whose label is the sign of one variable in the last hour, two networks."""
    rng = np.random.default_rng(0)
    series = rng.normal(size=(400, 8, 4)).astype(np.float32)
    labels = (series[:, -1, 1] > 0).astype(np.float32)[:, None]
    tensors = Tensors(torch.from_numpy(series).to(device), None, torch.from_numpy(labels).to(device))

    def make():
        return make_network("lstm", SIZES, hours=8, variables=4, outputs=1)

    return tensors, [initialised(make, seed) for seed in range(networks)]


def fitted(device="cpu", **changes):
    tensors, networks = problem(device=device)
    rows = [np.arange(300)] * 2, [np.arange(300, 400)] * 2
    fitting = Fitting(**{"learning_rate": 3e-2, "batch": 16, "epochs": 10, "patience": 10, **changes})
    return tensors, fit(networks, tensors, *rows, fitting, auroc, seeds=[0, 1])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_training_learns_keeps_the_best_epoch_and_gives_the_same_numbers_twice(device):
    tensors, found = fitted(device)
    outputs = predict(found.networks, tensors, same_rows(tensors, np.arange(300, 400), 2))
    for s in range(2):
        assert auroc(outputs[s], tensors.labels[300:].cpu().numpy()) == found.best_score[s] > 0.8
    _, again = fitted(device)
    assert again.best_epoch == found.best_epoch
    for a, b in zip(found.networks.parameters(), again.networks.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_seed_that_stopped_keeps_its_epoch():
    scores = iter([0.5, 0.5, 0.4, 0.6, 0.9, 0.7, 0.99, 0.8, 1.0, 0.9])  # seed 0: .5 .4 .9 .99 1; seed 1: .5 .6 .7 .8 .9
    tensors, networks = problem()
    rows = [np.arange(300)] * 2, [np.arange(300, 400)] * 2
    fitting = Fitting(learning_rate=1e-2, batch=16, epochs=5, patience=1)
    found = fit(networks, tensors, *rows, fitting, lambda outputs, labels: next(scores), seeds=[0, 1])
    assert found.best_epoch == [1, 5]
    assert found.best_score == [0.5, 0.9]


def test_losses_are_the_sum_of_each_networks_mean():
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 0, 0]])
    expected = sum(-logits[s].log_softmax(-1)[range(5), classes[s]].mean() for s in range(2))
    torch.testing.assert_close(mean_losses(logits, classes), expected)
    labels = (logits > 0.3).float()
    p = logits.sigmoid()
    both = -(labels * p.log() + (1 - labels) * (1 - p).log())
    torch.testing.assert_close(mean_losses(logits, labels), both[0].mean() + both[1].mean())


def test_each_network_reads_its_own_channels():
    tensors, _ = problem()
    channels = torch.tensor([[3, 1], [0, 2]])
    rows = torch.tensor([[5, 6, 7], [7, 8, 9]])
    (found,) = dataclasses.replace(tensors, channels=channels).inputs(rows)
    for s in range(2):
        torch.testing.assert_close(found[s], tensors.series[rows[s]][:, :, channels[s]])


def test_attention_is_averaged_over_all_stays():
    stays = load("generated")
    tensors = mortality.tensors_of(stays, stays.died[:, None].astype(np.float32), "cpu")

    def make():
        return make_network("tscan_code", SIZES, hours=48, variables=45, outputs=1)

    networks = [initialised(make, seed) for seed in range(2)]
    together = SideBySide(networks).eval()
    received = mean_attention(together, tensors, same_rows(tensors, stays.test, 2))
    for s, network in enumerate(networks):
        _, alone = network.eval()(tensors.series[stays.test], attention=True)
        torch.testing.assert_close(received.hours[s].float(), alone.hours.mean(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(received.variables[s].float(), alone.variables.mean(0), atol=1e-5, rtol=1e-4)


def test_mortality_comparison_and_explanations_fit_together(tmp_path):
    config = read_paper_config(PAPER / "config.yaml")
    for name, module in (("mortality", mortality), ("comparison", comparison), ("explanations", explanations)):
        for batch in batches_of(config, name, "smoke"):
            run_job(module.run, module.Settings, config, name, batch, "smoke", tmp_path)
    records = RecordSet(tmp_path)
    table = records.table()
    by_model = {record.axes["model"]: records.arrays(record) for record in records.of("mortality")}
    mean = {
        name: np.mean([discrimination(arrays["died"], row).auroc for row in arrays["probabilities"]])
        for name, arrays in by_model.items()
    }
    gains = table[table["metric"] == "auroc_gain"].set_index(["method", "over"])["value"]
    assert gains["tscan_paper", "lstm"] == pytest.approx(mean["tscan_paper"] - mean["lstm"])
    low = table[table["metric"] == "auroc_gain_low"].set_index(["method", "over"])["value"]
    high = table[table["metric"] == "auroc_gain_high"].set_index(["method", "over"])["value"]
    assert (low < high).all()
    (explained,) = [r for r in records.of("explanations") if r.axes["model"] == "tscan_code"]
    arrays = records.arrays(explained)
    np.testing.assert_allclose(arrays["attention_of_variables"].sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(arrays["attention_of_hours"].sum(1), 4, rtol=1e-6)
    assert arrays["loss_without_variables"].shape == (2, 45)
    assert {verdict.outcome for verdict in judge_all(PAPER, records, "smoke")} == {"not tested"}
    wrong = comparison.Settings(models=["tscan_papre"], baselines=["lstm"], resamples=5, seed=0)
    with pytest.raises(ConfigError, match="no model 'tscan_papre'"):
        comparison.run(wrong, Context("cpu", "test", earlier={"mortality": records}))


def test_fewer_variables_are_among_more_and_gains_add_up():
    settings = number_of_variables.Settings(
        model="tscan_code", data_set="generated", seeds=[0], sizes=SIZES, fitting=FITTING, counts=[5, 17, 36]
    )  # fmt: skip
    rows = number_of_variables.run(settings, Context("cpu", "test")).rows
    found = {row.setting["variables"]: row.value for row in rows if row.metric == "auroc"}
    gains = {row.setting["half"]: row.value for row in rows if row.metric == "gain"}
    assert gains["first"] == pytest.approx(found[17] - found[5])
    assert gains["second"] == pytest.approx(found[36] - found[17])


def test_length_of_stay_has_ten_classes_and_kappa_is_scikit_learns():
    days = np.array([0, 0.9, 1, 6.5, 7.9, 8, 13.9, 14, 90])
    assert length_of_stay.classes_of(days).tolist() == [0, 0, 1, 6, 7, 8, 8, 9, 9]
    outputs = np.eye(10)[[0, 1, 5, 9, 9]]
    labels = np.array([0, 2, 5, 8, 9])
    assert length_of_stay.kappa(outputs, labels) == pytest.approx(
        cohen_kappa_score(labels, [0, 1, 5, 9, 9], weights="linear", labels=range(10))
    )
    assert length_of_stay.class_hours(np.array([0.5, 1.5, 1.0]), np.array([0, 1, 1]))[:3].tolist() == [12, 30, 24]
    chosen, remaining = length_of_stay.known_lengths(load("generated"))
    assert np.isfinite(chosen.days).all()
    assert remaining.min() >= 0
    assert len(chosen.learning) + len(chosen.test) == len(chosen.days)


@pytest.mark.parametrize("model", ["tscan_code", "logistic_regression"])
def test_length_of_stay_runs(model):
    settings = length_of_stay.Settings(
        model=model, data_set="generated", seeds=[0], sizes=SIZES, fitting=FITTING, inverse_penalties=[0.001]
    )  # fmt: skip
    rows = length_of_stay.run(settings, Context("cpu", "test")).rows
    assert [row.metric for row in rows] == ["kappa", "mean_absolute_deviation"]
    assert -1 <= rows[0].value <= 1 < rows[1].value


METRICS = {
    "in-hospital-mortality": {"auroc", "auprc"},
    "decompensation": {"auroc", "auprc"},
    "length-of-stay": {"kappa", "mean_absolute_deviation"},
    "phenotyping": {"macro_auroc", "micro_auroc"},
}


def task_settings(task, model, source: Literal["generated", "mimic_iv"] = "generated"):
    return benchmark_tasks.Settings(
        task=task, model=model, source=source, seeds=[0], hours=64, samples=0, sizes=SIZES,
        fitting=FITTING, inverse_penalty=0.001,
    )  # fmt: skip


@pytest.mark.parametrize("task", METRICS)
@pytest.mark.parametrize("model", ["tscan_paper", "logistic_regression"])
def test_the_benchmarks_tasks_run_on_files_in_its_layout(task, model):
    rows = benchmark_tasks.run(task_settings(task, model), Context("cpu", "test")).rows
    assert {row.metric for row in rows} == METRICS[task]


def test_without_mimic_the_message_says_what_to_bring(tmp_path, monkeypatch):
    monkeypatch.setenv("REATTEND_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"train_listfile.csv.*mimic_iv_benchmark/decompensation"):
        benchmark_tasks.run(task_settings("decompensation", "lstm", "mimic_iv"), Context("cpu", "test"))


def test_networks_that_differ_are_not_trained_together():
    tensors, networks = problem()
    other = make_network("bilstm", SIZES, hours=8, variables=4, outputs=1)
    with pytest.raises(InputError, match="one shape"):
        fit([networks[0], other], tensors, [np.arange(300)] * 2, [np.arange(300, 400)] * 2, FITTING, auroc, seeds=[0, 1])
