"""The experiments on small features with a known answer: rows, arrays, figures."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from common.configuration import cells_of, read_paper_config
from common.experiment import Context, Measurement, measure
from common.provenance import REPOSITORY
from common.records import RecordSet
from common.training import Recipe
from papers.gaam import comparison, figures, layer_importance, layer_probe, pretraining
from papers.gaam.layer_features import LayerFeatures
from papers.gaam.masked_patches import VisionSizes
from papers.gaam.models import Method
from papers.gaam.subjects import Subject
from papers.gaam.training import Schedule

SIZES = {"gaussians": 2, "attention_heads": 2, "channels": 4, "query": [8, 4, 2, 3], "query_picture": [2, 4]}
GIVEN = {
    "data_set": "known",
    "subjects": {"known": Subject(modality="text")},
    "seeds": [0, 1],
    "validation_share": 0.2,
    "sizes": SIZES,
    "schedules": {"known": Schedule(learning_rate=3e-3, epochs=4, batch_size=8)},
}


FEW = ("mha_batch", "mha_layers", "gaam_v1", "gaam_v2", "frozen_v2")


def known_features(*_: object) -> LayerFeatures:
    """The class is in layer 3 alone; files are sorted by class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) // 40
    X = torch.randn(120, 4, 6, generator=generator)
    X[:, 2] += 4 * torch.eye(3)[labels].repeat(1, 2)
    return LayerFeatures(X, labels, np.arange(120) % 5, True)


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    for module in (comparison, layer_importance, layer_probe):
        monkeypatch.setattr(module, "features_of", known_features)


def value(measurement: Measurement, metric: str, **wanted: object) -> list[float]:
    return [
        row.value
        for row in measurement.rows
        if row.metric == metric and all({"method": row.method, **row.setting}.get(key) == one for key, one in wanted.items())
    ]


def test_comparison_measures_what_the_claims_compare():
    methods = {
        "identity": Method(model="identity"),
        "mha_batch": Method(model="mha", axis="batch"),
        "mha_layers": Method(model="mha"),
        "gaam_v2": Method(model="gaam"),
        "gaam_v1": Method(model="gaam", heads="parts"),
        "frozen_v2": Method(model="gaam", learned=False),
    }
    others = {"of_the_paper": ["mha_batch", "gaam_v1"], "baseline": "mha_batch", "parts": {"known": 2}, "at_once": 3}
    given = comparison.Settings.model_validate({**GIVEN, **others, "methods": methods})
    found = comparison.run(given, Context("cpu", "test"))
    assert min(value(found, "accuracy", method="identity")) > 60
    for batches in ("shuffled", "by_class", "alone"):
        assert value(found, "predictions_changed", method="mha_layers", batches=batches) == [0, 0]
    assert max(value(found, "predictions_changed", method="mha_batch", batches="alone")) > 0
    assert value(found, "accuracy_by_batches", method="mha_batch", batches="as_scored") == pytest.approx(
        value(found, "accuracy", method="mha_batch")
    )
    for method in methods:
        accuracy, best = value(found, "accuracy", method=method), value(found, "accuracy_chosen_on_test", method=method)
        assert np.allclose(np.subtract(best, accuracy), value(found, "gain_of_choosing_on_test", method=method))
        assert value(found, "deviation_over_runs", method=method)[0] == pytest.approx(np.std(accuracy, ddof=1), abs=1e-5)
    means = [np.mean(value(found, "accuracy", method=method)) for method in ("mha_batch", "gaam_v1")]
    assert value(found, "spread_of_methods")[0] == pytest.approx(abs(means[0] - means[1]), abs=1e-5)
    assert value(found, "layers_of_a_head", method="gaam_v1") == [2]
    assert value(found, "parameters", method="gaam_v1", part="gate") == [24]
    assert found.arrays["gate_gaam_v2"].shape == (2, 4, 6)
    assert value(found, "largest_delta", method="gaam_v2")[0] > 0
    assert not value(found, "largest_delta", method="frozen_v2")
    a = value(found, "deviation_over_runs", method="gaam_v1")[0] - value(found, "deviation_over_runs", method="mha_batch")[0]
    assert value(found, "deviation_above_baseline", method="gaam_v1")[0] == pytest.approx(a, abs=1e-5)


def test_runs_score_in_a_random_order():
    for run in comparison.runs_of(known_features(), [0, 1], 0.2):
        labels = known_features().labels.numpy()
        assert (np.diff(labels[run.test]) < 0).any()
        assert set(run.test.tolist()) == set(np.flatnonzero(known_features().groups == run.number).tolist())


def test_probe_finds_the_layer_that_has_the_class():
    given = layer_probe.Settings.model_validate(
        {
            "data_set": "known",
            "subjects": GIVEN["subjects"],
            "seeds": [0, 1],
            "validation_share": 0.2,
            "penalty": 1.0,
            "most": 60,
        }
    )
    found = layer_probe.run(given, Context("cpu", "test"))
    by_layer = [np.mean(value(found, "probe_accuracy", layer=layer)) for layer in (1, 2, 3, 4)]
    assert int(np.argmax(by_layer)) == 2
    assert by_layer[2] > 90
    assert value(found, "classes") == [3]


def test_importance_is_held_against_layers_alone():
    measurement = Measurement()
    gates = np.stack([np.linspace(0.2, 0.8, 4)[:, None] * np.ones(6), np.full((4, 6), 0.5)])
    accuracies = np.array([[10.0, 30.0, 20.0, 40.0], [50.0, 20.0, 30.0, 40.0]])
    layer_importance.add_importance_rows(measurement, "m", gates, accuracies)
    assert value(measurement, "high_minus_low") == [30, 0]
    assert value(measurement, "share_of_runs_high_wins") == [0.5]
    assert value(measurement, "importance_rank_correlation") == pytest.approx([0.8, 0])
    assert value(measurement, "layer_importance", run=0) == pytest.approx([0, 100 / 6, 200 / 6, 50])
    assert layer_importance.rank_correlation(np.arange(4), np.array([1.0, 1, 1, 1])) == 0


def test_the_whole_paper_from_records_to_figures(tmp_path):
    """Cells of scale smoke on the known features, in the order of Snakemake, and every figure."""
    config = read_paper_config(REPOSITORY / "papers" / "gaam" / "config.yaml")
    earlier: dict[str, RecordSet] = {}
    for name, module in (("layer_probe", layer_probe), ("comparison", comparison), ("layer_importance", layer_importance)):
        cell = cells_of(config, name, "smoke")[0]
        few = {
            "methods": {k: v for k, v in cell.parameters.get("methods", {}).items() if k in FEW},
            "of_the_paper": ["mha_batch"],
        }
        few = few if name == "comparison" else {}
        settings = module.Settings.model_validate({**cell.axes, **cell.parameters, **few})
        measure(module.run, settings, cell, config.experiments[name], tmp_path / name / cell.name, earlier)
        earlier[name] = RecordSet(tmp_path, name)
    records = RecordSet(tmp_path)
    for name in config.figures:
        figure = getattr(figures, name)(records)
        assert any(axes.has_data() for axes in figure.axes)
        plt.close(figure)


def test_pretraining_keeps_its_weights():
    given = pretraining.Settings(
        images="generated_images", samples=40, sizes=VisionSizes(layers=2, width=8, heads=2, patch=4, masked=0.5),
        recipe=Recipe(optimiser="adamw", learning_rate=1e-3, batch_size=10), epochs={"generated_images": 2}, seed=0,
    )  # fmt: skip
    found, again = (pretraining.run(given, Context("cpu", "test")) for _ in range(2))
    weights = found.artifacts["vision"]
    assert all(torch.equal(weights[name], again.artifacts["vision"][name]) for name in weights)
    assert found.arrays["curve"].shape[1] == 2
