"""Experiments in one process: the same records as one by one, and clear refusals."""

import os
import subprocess
import sys

import pytest

from common import measure
from common.provenance import REPOSITORY
from common.records import RecordSet


@pytest.fixture
def call(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("REATTEND_TRACKING", "off")

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["measure", *map(str, arguments)])
        try:
            measure.main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        said = capsys.readouterr()
        return status, said.out + said.err

    return command


def test_the_records_are_those_of_the_experiment_run_alone(tmp_path, call):
    assert call("_template", "softmax_gradient/all", "--scale", "smoke", "--out", tmp_path / "together")[0] == 0
    subprocess.run(
        [sys.executable, "-m", "papers._template.softmax_gradient", "--scale", "smoke", "--out", str(tmp_path / "alone")],
        cwd=REPOSITORY,
        env=os.environ | {"REATTEND_TRACKING": "off"},
        check=True,
        capture_output=True,
    )
    together, alone = (
        {record.identity: (record.results_sha256, record.provenance.source_sha256) for record in RecordSet(folder).records}
        for folder in (tmp_path / "together", tmp_path / "alone")
    )
    assert len(together) == 5
    assert together == alone
    index = "softmax_gradient/all.index.json"
    assert (tmp_path / "together" / index).read_bytes() == (tmp_path / "alone" / index).read_bytes()


def test_unknown_jobs_and_foreign_configurations_are_refused_before_any_work(tmp_path, call):
    status, said = call(
        "_template", "softmax_gradient/all", "softmax_gradient/al", "--scale", "smoke", "--out", tmp_path / "out"
    )
    assert status == 2
    assert "_template has no job softmax_gradient/al at scale smoke; its jobs are softmax_gradient/all." in said
    config = REPOSITORY / "papers" / "pbs_attn" / "config.yaml"
    status, said = call("_template", "coverage/all", "--scale", "smoke", "--config", config, "--out", tmp_path / "out")
    assert status == 2
    assert "does not describe papers/_template" in said
    assert not (tmp_path / "out").exists()
