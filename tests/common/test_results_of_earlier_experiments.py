"""Experiments that start from another's results: their order, what they are given, and when they are measured again."""

import pytest
import torch
import yaml

from common import present
from common.configuration import PaperConfig, cells_of
from common.errors import ConfigError, DataError
from common.experiment import Context, Measurement, earlier_results, run_batch
from common.records import RecordSet, read_record
from common.workflow import PaperPlan
from papers._template.softmax_gradient import Settings
from tests.example_records import TEMPLATE

TRAINING, TEST = "softmax_gradient", "measured_later"


def content(**after):
    """The template's configuration with an experiment more; `after` by experiment."""
    template = yaml.safe_load((TEMPLATE / "config.yaml").read_text())
    first = {**template["experiments"][TRAINING], "cells": {"seed": {"value": [0, 1], "origin": "ours"}}}
    experiments = {TRAINING: first, TEST: {**first, "cells": {"seed": {"value": [7], "origin": "ours"}}}}
    for name, others in after.items():
        experiments[name] = {**experiments[name], "after": others}
    return {**template, "experiments": experiments, "figures": {}}


@pytest.fixture
def config():
    return PaperConfig.model_validate(content(measured_later=[TRAINING]))


class Train:
    """Stands for an experiment that trains: its artifact holds one weight a cell."""

    weight = 1.0

    def __call__(self, settings, context):
        measurement = Measurement(artifacts={"weights": {"W": torch.full((2, 3), self.weight + settings.seed).mT}})
        measurement.add("loss", 0.5)
        return measurement


class UseWeights:
    """Stands for an experiment that tests what was trained."""

    def __init__(self):
        self.calls = 0

    def __call__(self, settings, context):
        self.calls += 1
        records = context.results_of(TRAINING)
        measurement = Measurement()
        for record in records.records:
            measurement.add("weight", records.artifact(record, "weights")["W"][0, 0], cell=record.cell)
        return measurement


def run_all(config, experiment, run, out):
    earlier = earlier_results(config, experiment, "smoke", out)
    cells = cells_of(config, experiment, "smoke")
    return run_batch(run, Settings, cells, config.experiments[experiment], out, again=False, earlier=earlier)


def test_an_experiment_is_given_what_the_one_before_made(tmp_path, config):
    trained = run_all(config, TRAINING, Train(), tmp_path)
    (record,) = run_all(config, TEST, UseWeights(), tmp_path)
    assert [row.value for row in record.rows] == [1.0, 2.0]
    assert record.provenance.after == {f"{TRAINING}/{one.cell}": one.results_sha256 for one in trained}
    assert trained[0].provenance.after == {}


def test_new_weights_renew_the_records_that_started_from_the_old_ones(tmp_path, config):
    train, use = Train(), UseWeights()
    for expected, weight in ((1, 1.0), (1, 1.0), (2, 3.0)):
        train.weight = weight
        run_batch(train, Settings, cells_of(config, TRAINING, "smoke"), config.experiments[TRAINING], tmp_path, again=True)
        (record,) = run_all(config, TEST, use, tmp_path)
        assert use.calls == expected
        assert record.rows[0].value == weight


def test_reports_refuse_records_that_started_from_other_weights(tmp_path, config):
    train = Train()
    run_all(config, TRAINING, train, tmp_path)
    run_all(config, TEST, UseWeights(), tmp_path)
    assert len(present.paper_records(config, "smoke", tmp_path)) == 3
    train.weight = 3.0
    run_batch(train, Settings, cells_of(config, TRAINING, "smoke"), config.experiments[TRAINING], tmp_path, again=True)
    with pytest.raises(DataError, match=r"measured_later/seed=7 started from other results of softmax_gradient"):
        present.paper_records(config, "smoke", tmp_path)


@pytest.mark.parametrize("damage", ["absent", "one cell", "artifact lost", "artifact changed", "parameters"])
def test_without_current_results_the_message_has_the_command_that_makes_them(tmp_path, config, damage):
    if damage != "absent":
        run_all(config, TRAINING, Train(), tmp_path)
    folder = tmp_path / TRAINING / "seed=1"
    artifact = folder / "artifacts" / "weights.safetensors"
    if damage == "one cell":
        (folder / "record.json").unlink()
    elif damage == "artifact lost":
        artifact.unlink()
    elif damage == "artifact changed":
        artifact.write_bytes(artifact.read_bytes()[:-1] + b"\1")
    elif damage == "parameters":
        config.experiments[TRAINING].parameters["keys"].value = 8
    command = f"python -m papers._template.softmax_gradient --scale smoke --out {tmp_path}"
    with pytest.raises(DataError, match=rf"starts from the results of softmax_gradient.*seed=1\)\. Make them first: {command}"):
        earlier_results(config, TEST, "smoke", tmp_path)


def test_a_lost_artifact_is_made_again(tmp_path, config):
    run_all(config, TRAINING, Train(), tmp_path)
    artifact = tmp_path / TRAINING / "seed=0" / "artifacts" / "weights.safetensors"
    before = artifact.read_bytes()
    artifact.unlink()
    run_all(config, TRAINING, Train(), tmp_path)
    assert artifact.read_bytes() == before


def test_a_record_names_its_artifacts_and_needs_no_file_to_be_read(tmp_path, config):
    record = run_all(config, TRAINING, Train(), tmp_path)[0]
    folder = tmp_path / TRAINING / "seed=0"
    (folder / "artifacts" / "weights.safetensors").unlink()  # as in published records
    assert read_record(folder / "record.json").artifacts == record.artifacts
    records = RecordSet(tmp_path, TRAINING)
    with pytest.raises(DataError, match="has no artifact 'gates'; it has: weights"):
        records.artifact(records.records[0], "gates")
    with pytest.raises(DataError, match=r"weights\.safetensors is missing or differs from its record"):
        records.artifact(records.records[0], "weights")


def test_results_that_the_configuration_does_not_name_are_not_given():
    with pytest.raises(ConfigError, match=r"coverage all asks for the results of 'training'.*after: \[training\]"):
        Context(device="cpu", label="coverage all").results_of("training")


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ({TEST: ["softmax_gradeint"]}, "comes after 'softmax_gradeint', which is not defined; did you mean 'softmax_gradient'"),
        ({TEST: [TRAINING], TRAINING: [TEST]}, "`after` goes in a circle"),
        ({TEST: [TEST]}, "goes in a circle: measured_later after measured_later"),
    ],
)
def test_unknown_names_and_circles_are_refused(after, message):
    with pytest.raises(ValueError, match=message):
        PaperConfig.model_validate(content(**after))


def test_the_workflow_waits_for_every_job_of_the_experiment_before(config):
    plan = PaperPlan("_template", "smoke")
    assert plan.earlier_batches(TRAINING) == []
    plan.config = PaperConfig.model_validate(content(measured_later=[TRAINING]))
    plan.config.experiments[TRAINING].one_job_per = ["seed"]
    assert plan.earlier_batches(TEST) == [(TRAINING, "seed=0"), (TRAINING, "seed=1")]
