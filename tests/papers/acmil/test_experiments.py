"""The experiments at scale smoke, smaller still: what they measure is what claims and figures read."""

import math

import numpy as np
import pytest
from scipy.stats import pearsonr

from common.configuration import cells_of, read_paper_config
from common.errors import ConfigError, DataError
from common.experiment import Context
from common.provenance import REPOSITORY
from papers.acmil import ablations, camelyon16, classic, cost, embeddings, fashion_bags, large_bags
from papers.acmil.models import Method

ON_CPU = Context(device="cpu", label="test")
CONFIG = read_paper_config(REPOSITORY / "papers" / "acmil" / "config.yaml")
FEW = {
    "abmil": Method(model="abmil"),
    "acmil": Method(model="acmil", K=3, p=0.6),
    "stkim": Method(model="acmil", M=1, K=3),
    "max": Method(model="max"),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REATTEND_CACHE", str(tmp_path / "cache"))


def settings_of(module, cell=0, **changes):
    chosen = cells_of(CONFIG, module.__name__.rsplit(".", 1)[1], "smoke")[cell]
    return module.Settings.model_validate({**chosen.axes, **chosen.parameters, **changes})


def values(measurement, metric, **setting):
    return [
        row.value for row in measurement.rows
        if row.metric == metric and setting.items() <= {**row.setting, "method": row.method}.items()
    ]  # fmt: skip


def everything(measurement):
    return [(row.metric, row.method, *row.setting.items(), row.value) for row in measurement.rows if not row.timing]


def check_common_rows(measurement, *, runs):
    assert all(math.isfinite(row.value) for row in measurement.rows)
    for method in FEW:
        assert len(values(measurement, "auc", method=method)) == runs
        assert len(values(measurement, "f1_macro", method=method)) == runs
    assert len(values(measurement, "auc_masked_at_test")) == 2 * runs  # ACMIL and STKIM
    assert set(values(measurement, "masking_at_test_no_better")) <= {0.0, 1.0}
    assert not values(measurement, "top10_attention", method="max")
    drops = values(measurement, "top10_drop", method="acmil")
    ours, theirs = (values(measurement, "top10_attention", method=method) for method in ("acmil", "abmil"))
    assert np.mean(drops) == pytest.approx(np.mean(theirs) - np.mean(ours), abs=1e-6)


def test_classic():
    settings = settings_of(classic, methods=FEW)
    first = classic.run(settings, ON_CPU)
    check_common_rows(first, runs=2)
    gain = np.mean(values(first, "auc", method="acmil")) - np.mean(values(first, "auc", method="abmil"))
    assert values(first, "mean_auc_gain", method="acmil") == [pytest.approx(gain)]
    assert everything(first) == everything(classic.run(settings, ON_CPU))


def test_folds_cover_every_bag_once_for_each_seed():
    labels = np.arange(30) % 2
    runs = classic.folds_of(labels, 5, [0, 1])
    assert len(runs) == 10
    for seed in (0, 1):
        own = [run for run in runs if run.place["seed"] == seed]
        assert sorted(np.concatenate([run.test for run in own]).tolist()) == list(range(30))
        for run in own:
            assert not set(run.train) & set(run.test)
            assert labels[run.test].mean() == 0.5
    assert runs[0].test.tolist() != runs[5].test.tolist()
    assert len({run.seed for run in runs}) == 10


def test_fashion_bags():
    schedule = {"learning_rate": 1e-3, "epochs": 4}
    measurement = fashion_bags.run(settings_of(fashion_bags, methods=FEW, schedule=schedule), ON_CPU)
    check_common_rows(measurement, runs=2)
    assert measurement.arrays["cumulative_abmil"].shape == (2, 50)
    np.testing.assert_allclose(measurement.arrays["cumulative_abmil"][:, -1], 1, rtol=1e-5)
    curve = measurement.arrays["loss_and_entropy"]
    assert curve.shape == (2, 4, 2)
    assert (curve > 0).all()
    expected = [pearsonr(*own.T)[0] for own in curve]
    assert values(measurement, "entropy_loss_correlation") == pytest.approx(expected)
    assert curve[:, -1, 1].tolist() == pytest.approx(values(measurement, "attention_entropy", method="abmil"))


def test_large_bags():
    settings = settings_of(large_bags, methods=FEW, methods_of={"strong": list(FEW)}, rates=[0.05, 0.1])
    measurement = large_bags.run(settings, ON_CPU)
    check_common_rows(measurement, runs=4)
    assert {row.setting.get("rate") for row in measurement.rows if row.metric == "recall_b"} == {0.05, 0.1}
    side = settings.slide_side
    for name in ("slide_kinds", "slide_abmil", "slide_acmil"):
        assert measurement.arrays[name].shape == (side, side)
    assert measurement.arrays["slide_abmil"].sum() == pytest.approx(1, abs=1e-5)
    assert len(measurement.arrays["embedding_acmil"]) == len(measurement.arrays["embedding_kinds"]) == 40
    assert (measurement.arrays["embedding_kinds"] > 0).sum() == (measurement.arrays["slide_kinds"] > 0).sum()


def test_embeddings_map_all_witnesses_and_repeat():
    first, again = (embeddings.run(settings_of(embeddings), ON_CPU) for _ in "ab")
    kinds = first.arrays["embedding_kinds"]
    assert len(kinds) == 40
    assert (kinds > 0).any()
    for name in ("abmil", "acmil"):
        assert first.arrays[f"embedding_{name}"].shape == (40, 2)
        assert (first.arrays[f"embedding_attention_{name}"] >= 0).all()
        assert (first.arrays[f"embedding_{name}"] == again.arrays[f"embedding_{name}"]).all()
    on_witnesses = {row.method: row.value for row in first.rows if row.metric == "attention_on_witnesses"}
    assert on_witnesses["acmil"] == pytest.approx(first.arrays["embedding_attention_acmil"][kinds > 0].sum(), rel=1e-5)
    assert all(0 <= row.value <= 1 for row in first.rows)


def test_umap_keeps_groups_apart():
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1], 30)
    instances = rng.normal(size=(60, 8)) + 20 * groups[:, None]
    places = embeddings.umap_of(instances, 5, 0.1, 0)
    nearest = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(60)
    assert (groups[nearest.argmin(1)] == groups).all()


def test_large_bags_with_settings_that_do_not_fit():
    with pytest.raises(ConfigError, match="features = 'other'"):
        large_bags.run(settings_of(large_bags, features="other"), ON_CPU)
    with pytest.raises(ConfigError, match="methods_of need it"):
        large_bags.run(settings_of(large_bags, methods_of={"strong": ["nothing"]}), ON_CPU)
    with pytest.raises(ConfigError, match="not among rates"):
        large_bags.run(settings_of(large_bags, pictured_rate=0.3), ON_CPU)


def test_ablations():
    settings = settings_of(ablations, methods=FEW, k_sweep=["acmil", "stkim"])
    measurement = ablations.run(settings, ON_CPU)
    check_common_rows(measurement, runs=2)
    means = [np.mean(values(measurement, "auc", method=method)) for method in ("acmil", "stkim")]
    assert values(measurement, "auc_range_over_k") == [pytest.approx(max(means) - min(means))]
    with pytest.raises(ConfigError, match="k_sweep"):
        ablations.run(settings_of(ablations, k_sweep=["nothing"]), ON_CPU)


def test_cost_counts_what_table_7_counts():
    counts = {}
    for cell, extractor in enumerate(("resnet18", "ssl")):
        measurement = cost.run(settings_of(cost, cell, instances=1024, repeat_milliseconds=1), ON_CPU)
        counts[extractor] = values(measurement, "multiply_adds", method="abmil")[0]
        assert values(measurement, "reduction_difference")[0] < 1e-6
        assert values(measurement, "multiply_adds_over_abmil", method="abmil") == [1.0]
        assert values(measurement, "multiply_adds_over_abmil", method="mba")[0] > 1
        assert all(time > 0 for time in values(measurement, "step_time"))
    # By hand: W0, V1 and V2, w, the weighted sum, and the classifier.
    for name, D_feat, L in (("resnet18", 512, 256), ("ssl", 384, 128)):
        assert counts[name] == (1024 * (D_feat * L + 2 * L * 128 + 128 + L) + 2 * L) / 1e6


def test_camelyon16_on_generated_slides():
    settings = settings_of(camelyon16)
    measurement = camelyon16.run(settings, ON_CPU)
    assert all(math.isfinite(row.value) for row in measurement.rows)
    for method in settings.methods:
        for metric in ("auc", "f1_macro", "accuracy", "top10_attention", "epoch"):
            assert len(values(measurement, metric, method=method, selection="best_validation")) == 2
        assert values(measurement, "epoch", method=method, selection="last") == [2, 2]
    assert values(measurement, "auc_masked_at_test", method="acmil")
    assert not values(measurement, "auc_masked_at_test", method="abmil")
    assert everything(measurement) == everything(camelyon16.run(settings, ON_CPU))


def test_camelyon16_with_files_that_a_user_brings(tmp_path, monkeypatch):
    monkeypatch.setenv("REATTEND_DATA", str(tmp_path))
    settings = settings_of(camelyon16, files={"ssl": "features.h5"}, features="ssl", seeds=[1, 2])
    with pytest.raises(DataError, match=r"features\.h5 must be brought"):
        camelyon16.read_slides(settings)
    (tmp_path / "camelyon16").mkdir()
    camelyon16.write_generated(tmp_path / "camelyon16", [1, 2])
    slides, splits = camelyon16.read_slides(settings)
    assert len(slides) == 24
    assert {part: len(names) for part, names in splits[1].items()} == {"train": 12, "val": 4, "test": 8}
    assert splits[1] != splits[2]
    with pytest.raises(ConfigError, match="features = 'other'"):
        camelyon16.read_slides(settings_of(camelyon16, features="other"))
