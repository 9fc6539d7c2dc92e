"""The mirror in MLflow: complete, made once, safe with many writers, and never able to cost a result."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from common import tracking
from common.records import Row, read_record, write_record
from tests.example_records import PROVENANCE, make_record, measure_template

ROWS = [
    Row(metric="error", value=0.5, unit="1", method="ours", setting={"length": 8, "kind": "a=b,c"}),
    Row(metric="error", value=0.25, unit="1", method="theirs", setting={"length": 8}),
    Row(metric="time", value=3.5, unit="ms", timing=True),
]


def record_in(folder, **changes):
    provenance = PROVENANCE.model_copy(update={"data": {"books/moby.txt": "a" * 64, "books/emma.txt": "b" * 64}})
    write_record(folder, make_record(ROWS, **{"provenance": provenance, **changes}), {})
    return read_record(folder / "record.json")


def runs_of(uri, paper="example"):
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(paper)
    return client, client.search_runs([experiment.experiment_id]) if experiment else []


def test_a_record_becomes_one_finished_run_with_all_it_holds(tmp_path, database):
    record = record_in(tmp_path / "record", parameters={"size": 3, "words": "x" * 7000, "taus": [0.5, 0.9]})
    tracking.mirror(record, tmp_path / "record")
    client, (run,) = runs_of(database)
    assert run.info.run_name == "measure: seed=0 (standard)"
    assert run.info.status == "FINISHED"
    assert run.info.start_time == 1767225600000  # 2026-01-01 in UTC, when it was measured
    assert run.info.end_time == run.info.start_time + 1000  # and how long that took
    described = "`example/measure/seed=0` at scale standard: `error` a pure number, `time` in ms"
    assert run.data.tags["mlflow.note.content"] == described
    expected = {
        "paper": "example",
        "experiment": "measure",
        "cell": "example/measure/seed=0",
        "scale": "standard",
        "git_commit": "0" * 40,
        "git_dirty": "false",
        "device": "a processor",
        "parameters_sha256": "1" * 64,
        "results_sha256": record.results_sha256,
        "mlflow.source.name": PROVENANCE.command,
    }
    assert expected.items() <= run.data.tags.items()
    assert run.data.params == {"size": "3", "words": "x" * 6000, "taus": "[0.5, 0.9]", "seed": "0"}
    assert run.data.metrics == {
        "error/ours/length-8 kind-a-b c": 0.5,
        "error/theirs/length-8": 0.25,
        "mean/error/ours/kind-a-b c": 0.5,  # all errors are of one length
        "mean/error/theirs": 0.25,
        "time": 3.5,
        "wall_seconds": 1.0,
    }
    assert run.inputs is not None
    datasets = {entry.dataset.name: entry for entry in run.inputs.dataset_inputs}
    assert {name: entry.dataset.digest for name, entry in datasets.items()} == {
        "books/moby.txt": "a" * 32,
        "books/emma.txt": "b" * 32,
    }
    assert json.loads(datasets["books/moby.txt"].dataset.source)["sha256"] == "a" * 64
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["record.json"]
    stored = client.download_artifacts(run.info.run_id, "record.json", str(tmp_path / "tracking"))
    assert Path(stored).read_bytes() == (tmp_path / "record" / "record.json").read_bytes()
    assert (tmp_path / "tracking" / "mlruns").is_dir()  # artifacts lie beside the database


def test_a_record_is_mirrored_once_and_a_new_measurement_again(tmp_path, database):
    folder = tmp_path / "record"
    for _ in range(2):
        tracking.mirror(record_in(folder), folder)
    assert len(runs_of(database)[1]) == 1
    later = PROVENANCE.model_copy(update={"started_at": "2026-01-02T00:00:00+00:00"})
    tracking.mirror(record_in(folder, provenance=later), folder)
    assert len(runs_of(database)[1]) == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", "3"])
def test_a_damaged_marker_costs_nothing(tmp_path, database, content):
    record = record_in(tmp_path / "record")
    (tmp_path / "record" / "tracking.json").write_text(content)
    tracking.mirror(record, tmp_path / "record")
    assert len(runs_of(database)[1]) == 1
    assert json.loads((tmp_path / "record" / "tracking.json").read_text())["results_sha256"] == record.results_sha256


def test_cells_of_different_methods_share_names_of_means(tmp_path, database):
    for method, shift in (("ours", 0.0), ("theirs", 10.0)):
        rows = [
            Row(metric="loss", value=shift + seed + 4 * split, unit="1", method=method, setting={"split": split, "seed": seed})
            for split in (0, 1)
            for seed in (0, 1)
        ]
        rows.append(Row(metric="auc", value=shift, unit="1", method=method, setting={"seed": 0}))
        rows.append(Row(metric="auc", value=shift + 1, unit="1", method=method))  # not of a seed: no mean with one that is
        write_record(tmp_path / method, make_record(rows, cell=f"method={method}"), {})
        tracking.mirror(read_record(tmp_path / method / "record.json"), tmp_path / method)
    means = {
        run.data.tags["cell"]: {name: value for name, value in run.data.metrics.items() if name.startswith("mean/")}
        for run in runs_of(database)[1]
    }
    assert means == {
        "example/measure/method=ours": {
            "mean/loss/split-0": 0.5, "mean/loss/split-1": 4.5, "mean/auc/seed-0": 0, "mean/auc": 1,
        },
        "example/measure/method=theirs": {
            "mean/loss/split-0": 10.5, "mean/loss/split-1": 14.5, "mean/auc/seed-0": 10, "mean/auc": 11,
        },
    }  # fmt: skip


def test_many_metrics_and_parameters_are_logged_in_batches(tmp_path, database):
    rows = [Row(metric="error", value=i, unit="1", setting={"i": i}) for i in range(2300)]
    parameters = {f"p{i}": i for i in range(250)}
    write_record(tmp_path / "record", make_record(rows, parameters=parameters), {})
    tracking.mirror(read_record(tmp_path / "record" / "record.json"), tmp_path / "record")
    (run,) = runs_of(database)[1]
    assert len(run.data.metrics) == 2301
    assert run.data.metrics["error/i-2299"] == 2299
    assert len(run.data.params) == 251


def test_switched_off_it_writes_nothing(tmp_path, missing_database, monkeypatch):
    monkeypatch.setenv("REATTEND_TRACKING", "off")
    tracking.mirror(record_in(tmp_path / "record"), tmp_path / "record")
    assert tracking.mirror_summary("example", "smoke", tmp_path, {}) is None
    assert not (tmp_path / "tracking").exists()
    assert not (tmp_path / "record" / "tracking.json").exists()


@pytest.mark.parametrize(
    "uri",
    ["sqlite:////proc/nowhere/mlflow.db", "nonsense://host/path", "http://127.0.0.1:9"],
    ids=["unwritable", "unknown kind", "nobody answers"],
)
def test_a_broken_address_never_costs_a_result_and_is_said(tmp_path, database, monkeypatch, capsys, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    record = record_in(tmp_path / "record")
    tracking.mirror(record, tmp_path / "record")
    warning = f"warning: MLflow at {uri} did not take example/measure/seed=0"
    said = capsys.readouterr().err
    assert warning in said
    assert "The record is whole." in said
    assert read_record(tmp_path / "record" / "record.json") == record
    assert tracking.mirror_summary("example", "smoke", tmp_path, {}) is None
    assert f"warning: MLflow at {uri} did not take the tables of example" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)  # later, when it answers again
    tracking.mirror(record, tmp_path / "record")
    assert len(runs_of(database)[1]) == 1


def test_a_failure_half_way_is_marked_as_failed_and_tried_again(tmp_path, database, monkeypatch, capsys):
    record = record_in(tmp_path / "record")

    def failing(self, *arguments, **keywords):
        raise OSError("the disk of the server is full")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", failing)
        tracking.mirror(record, tmp_path / "record")
    assert "the disk of the server is full" in capsys.readouterr().err
    tracking.mirror(record, tmp_path / "record")
    assert sorted(run.info.status for run in runs_of(database)[1]) == ["FAILED", "FINISHED"]


def test_a_batch_goes_on_when_tracking_fails(tmp_path, database, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://host/path")
    assert len(measure_template(tmp_path, "smoke")) == 5
    assert capsys.readouterr().err.count("did not take _template/softmax_gradient/") == 5


def test_tables_figures_and_verdicts_become_one_run(tmp_path, database):
    for name in ("tables/claims.csv", "tables/claims.md", "figures/curve.svg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("Claim,Paper,Verdict\nholds,3 of 4,reproduced\n" if name.endswith("csv") else "text")
    run_id = tracking.mirror_summary("example", "standard", tmp_path, {"holds": "reproduced"})
    client, (run,) = runs_of(database)
    assert run_id is not None
    assert run.info.run_id == run_id
    assert (run.info.run_name, run.info.status) == ("tables and figures (standard)", "FINISHED")
    assert run.data.tags["verdict.holds"] == "reproduced"
    assert run.data.tags["mlflow.note.content"] == "- holds: **reproduced**"
    assert {file.path for file in client.list_artifacts(run_id, "tables")} == {"tables/claims.csv", "tables/claims.md"}
    assert [file.path for file in client.list_artifacts(run_id, "figures")] == ["figures/curve.svg"]
    table = client.load_table(run.info.experiment_id, "paper_vs_ours.json", [run_id])
    pd.testing.assert_frame_equal(table, pd.DataFrame({"Claim": ["holds"], "Verdict": ["reproduced"], "Paper": ["3 of 4"]}))


def test_four_processes_on_a_missing_database_lose_nothing_and_share_their_parent(tmp_path, missing_database, monkeypatch):
    script = (
        "import sys\nfrom pathlib import Path\nfrom common.records import read_record\nfrom common.tracking import mirror\n"
        "folder = Path(sys.argv[1])\nmirror(read_record(folder / 'record.json'), folder)\n"
    )
    monkeypatch.setenv(tracking.PARENT_RUNS, json.dumps({"example": "0" * 32, "other": "1" * 32}))  # as the workflow does
    folders = [tmp_path / str(i) for i in range(4)]
    for i, folder in enumerate(folders):
        record_in(folder, cell=f"seed={i}", axes={"seed": i})
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(folder)], stderr=subprocess.PIPE, text=True) for folder in folders
    ]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert "warning: MLflow" not in "".join(said)
    runs = runs_of(missing_database)[1]
    assert sorted(run.data.params["seed"] for run in runs) == [str(i) for i in range(4)]
    assert {len(run.data.metrics) for run in runs} == {6}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {"0" * 32}


def test_without_an_address_the_database_lies_in_the_repository(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.tracking_uri() == f"sqlite:///{tracking.REPOSITORY / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking.tracking_uri() == "http://server:5000"


def test_a_recorded_measurement_is_known_again_and_nothing_is_written_beside_it(tmp_path, database):
    record = record_in(tmp_path / "record")
    before = sorted(path.name for path in (tmp_path / "record").iterdir())
    assert not tracking.is_logged(record)
    tracking.import_record(record, tmp_path / "record", parent="0" * 32)
    assert tracking.is_logged(record)
    again = record_in(tmp_path / "again", provenance=PROVENANCE.model_copy(update={"started_at": "2026-01-02T00:00:00+00:00"}))
    assert not tracking.is_logged(again)  # the same numbers, measured on another day
    client, (run,) = runs_of(database)
    assert run.data.tags["mlflow.parentRunId"] == "0" * 32
    assert sorted(path.name for path in (tmp_path / "record").iterdir()) == before
    client.set_terminated(run.info.run_id, "FAILED")  # an import that stopped half way
    assert not tracking.is_logged(record)
