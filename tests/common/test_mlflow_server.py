"""MLflow on PostgreSQL as MLFLOW.md says: the page's own commands, real servers, results read back through the client."""

import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient

from common import parent_runs, tracking
from common.mlflow_import import import_paper
from common.provenance import REPOSITORY
from common.publish import recorded_results
from common.records import Row, read_record, write_record
from tests.example_records import make_record

PAPER = "person_reid"  # few records
FOLDERS = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
PROGRAMS = {
    name: shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *FOLDERS])) or ""
    for name in ("initdb", "postgres", "createuser", "createdb")
}
ABSENT = sorted(name for name, path in PROGRAMS.items() if not path)
pytestmark = pytest.mark.skipif(
    bool(ABSENT), reason=f"PostgreSQL's {', '.join(ABSENT)} are missing; Debian's package `postgresql` has them"
)


def block(name):
    """The commands of the page's fenced block with this name."""
    text = (REPOSITORY / "MLFLOW.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name} -->\n```\n(.*?)```", text, re.DOTALL)
    assert found, f"MLFLOW.md has no block {name}"
    return found[1]


def unprivileged():
    """Keywords that start a process as a user whom PostgreSQL accepts: it refuses root."""
    if os.getuid() != 0:
        return {}
    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = users.get("postgres") or users.get("nobody")
    if user is None:
        pytest.skip("PostgreSQL refuses root, and there is no user `postgres` or `nobody` to run it as")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def running(command, log, **options):
    """A process and all that it starts, killed in the end."""
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # PostgreSQL: fast shutdown, which also frees its shared memory
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own group: see start_new_session
        process.wait(timeout=10)


def wait_until(ready, process, log, seconds=120):
    """Wait until `ready()` is true; fail with the process's log when it ends or takes too long."""
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, f"it ended with {process.returncode}:\n{log.read_text()}"
        assert time.monotonic() < end, f"not ready after {seconds} s:\n{log.read_text()}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def driver():
    return pytest.importorskip("psycopg2", reason="psycopg2 is missing; envs/requirements-dev.txt has it")


@pytest.fixture(scope="module")
def database(driver):
    """Address of a database on a PostgreSQL server of its own, made by the page's commands."""
    user = unprivileged()
    # Not pytest's folder, which another user may not enter; and a short path, as a socket's may have 107 letters.
    folder = Path(tempfile.mkdtemp(prefix="reattend-"))
    try:
        if user:
            os.chown(folder, user["user"], user["group"])
        options = {"cwd": folder, **user}
        subprocess.run(
            [PROGRAMS["initdb"], "--pgdata=data", "--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256",
             "--no-sync", "--encoding=UTF8", "--locale=C"],
            check=True, capture_output=True, **options,
        )  # fmt: skip
        port = free_port()
        command = [PROGRAMS["postgres"], "-D", "data", "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-c", "fsync=off"]
        log = folder / "log"
        with running(command, log, **options) as process:
            wait_until(lambda: "ready to accept connections" in log.read_text(), process, log)
            administrator = os.environ | {
                "PATH": os.pathsep.join([os.environ["PATH"], *FOLDERS]),
                "PGHOST": str(folder), "PGPORT": str(port), "PGUSER": "postgres",
            }  # fmt: skip
            subprocess.run(
                ["bash", "-e", "-c", block("database")], input="a secret\na secret\n", text=True, check=True,
                capture_output=True, env=administrator, start_new_session=True, **options,  # no terminal: read from `input`
            )  # fmt: skip
            yield f"postgresql://reattend:a%20secret@127.0.0.1:{port}/reattend"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server(database, tmp_path_factory):
    """The page's MLflow server: its address and its folder of artifacts."""
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    values = {
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_PORT": str(port),
    }
    settings = block("settings")
    for name, value in values.items():
        settings, count = re.subn(rf"(export {name})=\S+", rf"\1={value}", settings)
        assert count == 1, f"MLFLOW.md does not set {name}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    log = folder / "log"
    address = f"http://127.0.0.1:{port}"

    def healthy():
        try:
            return urllib.request.urlopen(f"{address}/health", timeout=5).status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    command = ["bash", "-e", "-c", settings + block("server")]
    with running(command, log, env=environment, cwd=folder) as process, pytest.MonkeyPatch.context() as patch:
        wait_until(healthy, process, log)
        patch.setenv("MLFLOW_TRACKING_URI", address)
        patch.setenv("REATTEND_TRACKING", "on")
        yield MlflowClient(tracking_uri=address), folder / "artifacts"


def runs_of(client, paper):
    """The experiment and its runs by name."""
    experiment = client.get_experiment_by_name(paper)
    return experiment, {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_a_cell_under_its_call_reaches_the_server(server, tmp_path, monkeypatch):
    client, artifacts = server
    rows = [Row(metric="error", value=0.1 + 0.2, unit="1"), Row(metric="time", value=3.5, unit="ms", timing=True)]
    write_record(tmp_path / "record", make_record(rows), {})
    record = read_record(tmp_path / "record" / "record.json")
    call = parent_runs.create_for_call(["example"], "standard", "snakemake papers/example/all", os.getpid())
    monkeypatch.setenv(tracking.PARENT_RUNS, json.dumps(call))
    tracking.mirror(record, tmp_path / "record")
    monkeypatch.delenv(tracking.PARENT_RUNS)
    _, runs = runs_of(client, "example")
    (parent,) = (run for run in runs.values() if run.info.run_id == call["example"])
    cell = runs["measure: seed=0 (standard)"]
    assert len(runs) == 2
    assert cell.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert cell.data.metrics == {"error": 0.1 + 0.2, "time": 3.5, "wall_seconds": 1.0}  # no digit is lost
    assert cell.data.params == {"size": "3", "seed": "0"}
    assert (cell.info.status, parent.info.status) == ("FINISHED", "RUNNING")
    stored = client.download_artifacts(cell.info.run_id, "record.json", str(tmp_path))
    assert Path(stored).read_bytes() == (tmp_path / "record" / "record.json").read_bytes()
    assert [path.parent.parent.name for path in artifacts.rglob("record.json")] == [cell.info.run_id]


def test_recorded_results_are_imported_once_and_read_back(server, database, driver, tmp_path):
    client, _ = server
    newest = recorded_results(PAPER)[0]
    records = {record.identity: record for record in newest.records.records}
    assert import_paper(PAPER) == (len(records), 0)
    assert import_paper(PAPER) == (0, len(records))
    experiment, runs = runs_of(client, PAPER)
    assert experiment.tags["mlflow.note.content"].startswith(newest.config.title)
    (parent,) = (run for run in runs.values() if "imported_from" in run.data.tags)
    assert parent.info.run_name.startswith(f"{newest.scale} 20")
    assert parent.info.status == "FINISHED"
    below = [run for run in runs.values() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(below) == len(runs) - 1 == len(records) + 1
    for run in below:
        if "cell" in run.data.tags:
            record = records.pop(run.data.tags["cell"])
            numbers = [value for name, value in run.data.metrics.items() if not name.startswith("mean/")]
            assert sorted(numbers) == sorted([*(row.value for row in record.rows), record.provenance.wall_seconds])
            assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["record.json"]
    assert not records
    summary = runs[f"tables and figures ({newest.scale})"]
    verdicts = {name: value for name, value in summary.data.tags.items() if name.startswith("verdict.")}
    assert verdicts == {f"verdict.{verdict.claim}": verdict.outcome for verdict in newest.verdicts}
    table = client.download_artifacts(summary.info.run_id, "tables/claims.md", str(tmp_path))
    assert Path(table).read_bytes() == (REPOSITORY / "report" / "tables" / PAPER / "claims.md").read_bytes()

    with driver.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM runs WHERE experiment_id = %s", (int(experiment.experiment_id),))
        assert cursor.fetchone() == (len(runs),)  # it is PostgreSQL that holds them


def test_the_documented_upgrade_keeps_what_is_there(server, database):
    client, _ = server
    before = {experiment.name for experiment in client.search_experiments()}
    (command,) = re.findall(r"`(mlflow db upgrade [^`]+)`", (REPOSITORY / "MLFLOW.md").read_text(encoding="utf-8"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": database, "PATH": path}
    subprocess.run(["bash", "-e", "-c", command], check=True, capture_output=True, env=environment)
    assert {experiment.name for experiment in client.search_experiments()} == before


def test_a_wrong_password_is_refused(database, driver):
    with pytest.raises(driver.OperationalError, match="password authentication failed"):
        driver.connect(database.replace("a%20secret", "another"))
