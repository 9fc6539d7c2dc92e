"""The experiments on tiny settings: what is trained and measured is what the configuration says."""

import itertools
import math

import pytest
import torch

from common.checkpoints import Checkpoints
from common.errors import ConfigError, InputError
from common.experiment import Context
from papers.pointer_networks import hulls, tour_baselines, tours, triangulations
from papers.pointer_networks.examples import Examples
from papers.pointer_networks.generate import test_examples as draw_test_examples
from papers.pointer_networks.generate import uniform_points
from papers.pointer_networks.learning import read_test_set
from papers.pointer_networks.tour_references import mean_of_parts, reference_lengths

ON_CPU = Context(device="cpu", label="test")


def digest(task, n, count):
    if task == "travelling_salesman":
        points = uniform_points("test", task, n, count, 0)
        return Examples(points, torch.zeros(count, 1, dtype=torch.int64)).digest()
    return draw_test_examples(task, n, count, 0).digest()


def settings_of(module, task, lengths, tested, *, training=None, **more):
    line = {
        "method": "pointer", "lengths": lengths, "tested": tested, "examples": 256 * len(lengths), "epochs": 1,
        "recipes": {"modern": 2, "faithful": 1}, "solver": None, "order": "canonical", **(training or {}),
    }  # fmt: skip
    return module.Settings.model_validate(
        {
            "training": "a", "trainings": {"a": line}, "hidden_size": 16, "precision": "float32", "scores": "plain",
            "data_seed": 0, "validation": 16, "curve_rows": 2,
            "test_sets": {n: {"count": 40, "sha256": digest(task, n, 40)} for n in tested}, "decodings": {"free": [1, 2]},
            **more,
        }
    )  # fmt: skip


def rows_of(measurement, metric):
    return [row for row in measurement.rows if row.metric == metric]


def values(measurement):
    return [(row.metric, row.method, row.setting, row.value) for row in measurement.rows if not row.timing]


@pytest.mark.parametrize("method", ["pointer", "attention", "lstm"])
def test_hulls_of_every_method_recipe_seed_and_decoding(method):
    settings = settings_of(
        hulls, "convex_hull", [5], [5], training={"method": method}, decodings={"free": [1, 2], "valid": [2]}
    )
    measurement = hulls.run(settings, ON_CPU)
    places = {
        (row.setting["recipe"], row.setting["seed"], row.setting["decoding"], row.setting["beam"])
        for row in rows_of(measurement, "accuracy")
    }
    replicas = [("modern", 0), ("modern", 1), ("faithful", 0)]
    assert places == {(*one, *how) for one, how in itertools.product(replicas, [("free", 1), ("free", 2), ("valid", 2)])}
    assert {row.method for row in measurement.rows} == {method}
    curve = [row for row in rows_of(measurement, "training_loss") if row.setting["recipe"] == "faithful"]
    assert [row.setting["examples"] for row in curve] == [128, 256]
    assert all(math.isfinite(row.value) for row in curve)
    assert len(rows_of(measurement, "validation_accuracy")) == 6
    restricted = [row for row in rows_of(measurement, "not_simple") if row.setting["decoding"] == "valid"]
    assert all(row.value < 100 for row in restricted)
    assert ("attention_5" in measurement.arrays) == (method == "pointer")
    if method == "pointer":
        attention = measurement.arrays["attention_5"]
        assert attention.shape[1] == 6
        assert attention.sum(1) == pytest.approx(1, abs=1e-5)


def test_a_network_of_several_lengths_is_tested_beyond_them_and_twice_the_same():
    settings = settings_of(hulls, "convex_hull", [5, 6], [6, 9])
    first, second = (hulls.run(settings, ON_CPU) for _ in range(2))
    assert {row.setting["n"] for row in rows_of(first, "accuracy")} == {6, 9}
    assert values(first) == values(second)


def test_an_interrupted_cell_goes_on_and_gives_the_same_numbers(tmp_path, monkeypatch):
    settings = settings_of(hulls, "convex_hull", [5], [5])
    context = Context(device="cpu", label="test", checkpoints=Checkpoints(tmp_path, "key"))
    uninterrupted = hulls.run(settings, ON_CPU)

    class KilledError(Exception):
        pass

    def killed(*_, **__):
        raise KilledError

    monkeypatch.setattr(hulls, "test_all", killed)
    with pytest.raises(KilledError):
        hulls.run(settings, context)
    monkeypatch.undo()
    assert (tmp_path / "training.pt").exists()
    assert values(hulls.run(settings, context)) == values(uninterrupted)


def test_triangulations():
    measurement = triangulations.run(settings_of(triangulations, "delaunay", [5], [5], decodings={"free": [1]}), ON_CPU)
    assert {row.unit for row in rows_of(measurement, "coverage")} == {"%"}
    assert all(0 <= row.value <= 100 for row in rows_of(measurement, "coverage"))


def test_triangulations_and_hulls_in_random_order():
    random = {"order": "random", "recipes": {"modern": 1}}
    for module, task in ((hulls, "convex_hull"), (triangulations, "delaunay")):
        canonical = module.run(settings_of(module, task, [5], [5], training={"recipes": {"modern": 1}}), ON_CPU)
        shuffled = module.run(settings_of(module, task, [5], [5], training=random), ON_CPU)
        losses = [rows_of(measurement, "training_loss")[-1].value for measurement in (canonical, shuffled)]
        assert losses[0] != losses[1]


def test_tours_over_the_reference_and_by_part():
    settings = settings_of(
        tours, "travelling_salesman", [5], [5, 6], decodings={"free": [1], "valid": [2]}, paired_lengths=[6], parts=4
    )
    measurement = tours.run(settings, ON_CPU)
    for row in rows_of(measurement, "length_ratio"):
        n = int(row.setting["n"])
        points = uniform_points("test", "travelling_salesman", n, 40, 0)
        length = next(
            other.value for other in rows_of(measurement, "length") if other.setting == row.setting
        )  # the restricted one: its setting says so
        assert row.value == pytest.approx(length / brute_force(points).mean().item())
        assert row.value >= 1
    parts = [row for row in rows_of(measurement, "length_of_part") if row.setting["recipe"] == "faithful"]
    assert [row.setting["part"] for row in parts] == [0, 1, 2, 3]
    whole = [row for row in rows_of(measurement, "length") if row.setting["recipe"] == "faithful" and row.setting["n"] == 6]
    restricted = next(row.value for row in whole if row.setting["decoding"] == "valid")
    assert sum(row.value for row in parts) / 4 == pytest.approx(restricted)
    assert all(row.value == 0 for row in rows_of(measurement, "invalid") if row.setting["decoding"] == "valid")


def brute_force(points):
    """Shortest closed tours by trying all: float64 [B]."""
    n = points.shape[1]
    orders = torch.tensor([(0, *rest) for rest in itertools.permutations(range(1, n))])
    stops = points.double()[:, orders]
    return (stops - stops.roll(-1, 2)).norm(dim=3).sum(2).amin(1)


def test_baselines_beside_the_reference():
    settings = tour_baselines.Settings(
        n=6, counts={6: 40}, data_seed=0, solvers=["held_karp", "a1", "a2", "a3"], parts=4
    )  # fmt: skip
    measurement = tour_baselines.run(settings, ON_CPU)
    best = brute_force(uniform_points("test", "travelling_salesman", 6, 40, 0)).mean().item()
    lengths = {row.method: row.value for row in rows_of(measurement, "length")}
    assert lengths["reference"] == pytest.approx(best)
    assert lengths["held_karp"] == pytest.approx(best)
    assert all(length >= best - 1e-9 for length in lengths.values())
    beyond = tour_baselines.run(settings.model_copy(update={"n": 13, "counts": {13: 4}, "parts": 2}), ON_CPU)
    assert "held_karp" not in {row.method for row in beyond.rows}
    by_method = {row.method: row.value for row in rows_of(beyond, "length")}
    assert by_method["reference"] <= min(by_method["a2"], by_method["a3"]) + 1e-12


def test_reference_lengths_are_exact_for_few_cities():
    points = uniform_points("test", "travelling_salesman", 7, 5, 3)
    assert reference_lengths(points).tolist() == pytest.approx(brute_force(points).tolist())


def test_means_of_parts():
    assert mean_of_parts(torch.tensor([1.0, 3.0, 5.0, 7.0]), 2) == [2.0, 6.0]
    for parts in (0, 3):
        with pytest.raises(InputError, match=f"parts is {parts} for 4 values"):
            mean_of_parts(torch.ones(4), parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": "b"}, "training = 'b' is not among trainings: a"),
        ({"recipe": "old"}, "names \\['old'\\]; known are faithful"),
        ({"tested": [9]}, "tested names \\[9\\], which test_sets lacks"),
    ],
)
def test_wrong_settings(change, message):
    settings = settings_of(hulls, "convex_hull", [5], [5])
    line = settings.trainings["a"]
    if "recipe" in change:
        line = line.model_copy(update={"recipes": {change["recipe"]: 1}})
    if "tested" in change:
        line = line.model_copy(update={"tested": change["tested"]})
    settings = settings.model_copy(update={"trainings": {"a": line}, "training": change.get("training", "a")})
    with pytest.raises(ConfigError, match=message):
        hulls.run(settings, ON_CPU)


def test_a_test_set_that_is_not_the_recorded_one_is_refused():
    settings = settings_of(hulls, "convex_hull", [5], [5]).model_copy(update={"data_seed": 1})
    with pytest.raises(ConfigError, match=r"test_sets\.5\.sha256 is '[0-9a-f]{64}' and the test set drawn here has"):
        read_test_set(settings, hulls.RULES, 5, "cpu")


def test_decoding_gives_up_beyond_every_true_output():
    assert hulls.RULES.longest(50, 20) == 40
    assert hulls.RULES.longest(5, 7) == 7
    assert triangulations.RULES.longest(5, 10) == 16  # 5 triangles at most, and the end
    assert tours.RULES.longest(10, 12) == 12


@pytest.mark.gpu
def test_a_cell_on_gpu_gives_the_same_numbers_twice():
    settings = settings_of(hulls, "convex_hull", [5, 6], [6]).model_copy(update={"precision": "bfloat16"})
    first, second = (hulls.run(settings, Context(device="cuda", label="test")) for _ in range(2))
    assert values(first) == values(second)
