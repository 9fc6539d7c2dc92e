"""Parent runs: one a call and paper, shared by all its processes, ended with a status, and never able to cost a result."""

import json
import os
import socket
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from common import parent_runs, tracking
from common.errors import DataError
from common.mlflow_import import import_paper, import_results
from common.provenance import REPOSITORY
from common.publish import recorded_results
from common.records import Row, read_record, write_record
from tests.example_records import make_record

COMMAND = "snakemake papers/example/all"


@pytest.fixture
def store(database):
    return MlflowClient(tracking_uri=database)


def record_in(folder, paper, seed=0):
    write_record(folder, make_record([Row(metric="error", value=seed, unit="1")], paper=paper, cell=f"seed={seed}"), {})
    return read_record(folder / "record.json")


def runs_of(client, paper):
    return client.search_runs([client.get_experiment_by_name(paper).experiment_id])


def parent_id(run):
    return run.data.tags.get("mlflow.parentRunId")


def test_a_call_logs_papers_that_measure_or_make_tables():
    rules = ["papers/b/cells_2", "papers/b/report", "papers/a/mlflow", "papers/c/report", "papers/_t/cells", "mlflow_import"]
    assert parent_runs.papers_logged_by(rules) == ["_t", "a", "b"]
    assert parent_runs.papers_logged_by(["all", "report", "doctor"]) == []


def test_a_call_has_one_parent_for_each_paper_until_it_ends(store, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["snakemake", "papers/shared/all", "--config", "scale=smoke"])
    parent_runs.start(["shared", "other"], "smoke")
    ids = json.loads(os.environ[tracking.PARENT_RUNS])
    assert sorted(ids) == ["other", "shared"]
    tracking.mirror(record_in(tmp_path / "record", "shared"), tmp_path / "record")
    tracking.mirror_summary("shared", "smoke", tmp_path, {})
    runs = {run.info.run_id: run for run in runs_of(store, "shared")}
    parent = runs.pop(ids["shared"])
    assert sorted(run.info.run_name for run in runs.values()) == ["measure: seed=0 (standard)", "tables and figures (smoke)"]
    assert {parent_id(run) for run in runs.values()} == {ids["shared"]}
    assert parent_id(parent) is None
    assert parent.info.status == "RUNNING"
    assert parent.info.run_name.startswith("smoke 20")
    assert parent.data.tags["mlflow.source.name"] == "snakemake papers/shared/all --config scale=smoke"
    assert parent.data.tags["process"] == f"{socket.gethostname()}:{os.getpid()}"
    parent_runs.finish("FAILED")
    assert tracking.PARENT_RUNS not in os.environ
    assert {store.get_run(run_id).info.status for run_id in ids.values()} == {"FAILED"}


def test_a_cell_outside_a_call_or_of_another_paper_has_no_parent(store, tmp_path, monkeypatch):
    tracking.mirror(record_in(tmp_path / "alone", "alone"), tmp_path / "alone")
    monkeypatch.setenv(tracking.PARENT_RUNS, json.dumps({"other": "0" * 32}))
    tracking.mirror(record_in(tmp_path / "stranger", "alone", seed=1), tmp_path / "stranger")
    assert [parent_id(run) for run in runs_of(store, "alone")] == [None, None]


def test_a_killed_call_is_marked_and_not_joined_and_those_that_may_live_are_left(store):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    killed = parent_runs.create_for_call(["killed"], "smoke", COMMAND, gone.pid)["killed"]
    living = parent_runs.create_for_call(["killed"], "smoke", COMMAND, os.getpid())["killed"]
    store.set_tag(living, "note", "this process lives")
    elsewhere = parent_runs.create_for_call(["killed"], "smoke", COMMAND, os.getpid())["killed"]
    store.set_tag(elsewhere, "process", f"{socket.gethostname()}2:{gone.pid}")
    following = parent_runs.create_for_call(["killed"], "smoke", COMMAND, os.getpid())["killed"]
    status = {run.info.run_id: run.info.status for run in runs_of(store, "killed")}
    assert status == {killed: "KILLED", living: "RUNNING", elsewhere: "RUNNING", following: "RUNNING"}


def test_switched_off_or_with_nothing_to_log_no_parent_is_made(store, monkeypatch):
    monkeypatch.setenv(tracking.PARENT_RUNS, json.dumps({"example": "0" * 32}))  # of a call that started this one
    parent_runs.start([], "smoke")
    assert tracking.PARENT_RUNS not in os.environ
    monkeypatch.setenv("REATTEND_TRACKING", "off")
    parent_runs.start(["off"], "smoke")
    assert tracking.PARENT_RUNS not in os.environ
    parent_runs.finish("FINISHED")
    assert store.get_experiment_by_name("off") is None


def test_a_server_that_does_not_answer_costs_a_warning_and_cells_are_logged_later(store, tmp_path, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        parent_runs.start(["unanswered"], "smoke")
    assert "warning: MLflow at http://127.0.0.1:9 made no parent run" in capfd.readouterr().err
    tracking.mirror(record_in(tmp_path, "unanswered"), tmp_path)
    (run,) = runs_of(store, "unanswered")
    assert parent_id(run) is None
    parent_runs.finish("FINISHED")


def test_an_import_goes_on_below_its_first_parent(store, tmp_path):
    newest = recorded_results("oat")[0]
    records = newest.records.records
    assert import_paper("oat") == (len(records), 0)
    runs = runs_of(store, "oat")
    (parent,) = (run for run in runs if parent_id(run) is None)
    assert parent.data.tags["imported_from"] == f"results/recorded/{newest.hardware}/oat/{newest.scale}"
    assert [file.path for file in store.list_artifacts(parent.info.run_id)] == ["README.md"]
    starts = [run.info.start_time for run in runs if "cell" in run.data.tags]
    assert parent.info.start_time == min(starts)
    assert parent.info.end_time > max(starts)
    lost = next(run for run in runs if "cell" in run.data.tags)  # as if the import had stopped before it
    store.delete_run(lost.info.run_id)
    assert import_paper("oat") == (1, len(records) - 1)
    assert {parent_id(run) for run in runs_of(store, "oat")} == {None, parent.info.run_id}
    described = store.get_experiment_by_name("oat").tags["mlflow.note.content"]
    assert described.startswith(newest.config.title)
    assert "papers/oat/README.md" in described


def test_own_results_are_imported_with_their_verdicts(store, tmp_path):
    recorded = recorded_results("person_reid")[0]
    own = tmp_path / "person_reid" / recorded.scale
    own.mkdir(parents=True)
    (own / "records").symlink_to(recorded.records.root)
    (own / "verdicts.json").write_bytes((REPOSITORY / "report/tables/person_reid/verdicts.json").read_bytes())
    count = len(recorded.records.records)
    assert import_results("person_reid", tmp_path) == (count, 0)
    assert import_results("person_reid", tmp_path) == (0, count)
    (parent,) = (run for run in runs_of(store, "person_reid") if parent_id(run) is None)
    assert parent.data.tags["imported_from"] == f"{socket.gethostname()}:{own}"
    with pytest.raises(DataError, match=r"oat holds no current record. Run `snakemake papers/oat/all`"):
        import_results("oat", tmp_path)
