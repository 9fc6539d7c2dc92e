"""Mirrors records to MLflow: one experiment a paper, one run a cell. Never the source of a number, never able to lose one.

Cells of one workflow call stand under a parent run: see `common.parent_runs`.
"""

import json
import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from common.files import write_text
from common.provenance import REPOSITORY
from common.records import Record, Row

METRICS_PER_CALL = 1000  # MLflow's limit for one batch
PARAMETERS_PER_CALL = 100
REPETITIONS = ("seed", "trial")  # coordinates over which runs are compared by their mean
PARENT_RUNS = "REATTEND_PARENT_RUNS"  # environment variable of a workflow's jobs: JSON, paper -> id of the parent run


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or `mlflow.db` in the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{REPOSITORY / 'mlflow.db'}"


def switched_off() -> bool:
    """True when the environment variable REATTEND_TRACKING is `off`."""
    return os.environ.get("REATTEND_TRACKING", "on") == "off"


def _database(uri: str) -> Path | None:
    """The file of an sqlite database; None for a server."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def connect() -> Any:
    """An MLflow client with the database in place. A file lock keeps parallel first calls from migrating it twice."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # MLflow's own 7 wait for minutes, once a cell
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from filelock import FileLock
    from mlflow import MlflowClient

    uri = tracking_uri()
    database = _database(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database}.lock"):
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)  # creates and migrates a missing database
            return client
    return MlflowClient(tracking_uri=uri)


def _experiment_description(paper: str) -> str:
    """What the experiment's page says on top, as Markdown."""
    path = REPOSITORY / "papers" / paper / "config.yaml"
    title = yaml.safe_load(path.read_text(encoding="utf-8"))["title"] if path.exists() else paper
    return (
        f"{title}\n\n"
        f"Reproduction in `papers/{paper}`; what was found: `papers/{paper}/README.md`, a copy of which is an artifact of each "
        "parent run.\n\n"
        "- A run `experiment: cell (scale)` is one cell: an experiment at one setting and seed, with parameters, metrics "
        "and `record.json`. To compare cells, tick them and press *Compare*.\n"
        "- Metrics `mean/...` are means over seeds or trials, under names that cells of different methods share.\n"
        "- A run `tables and figures` holds what is made of the cells, and the verdicts on the paper's claims.\n"
        f"- A parent run `scale time {paper}` holds the runs of one `snakemake` call or import."
    )


def experiment_id(client: Any, paper: str) -> str:
    """The id of a paper's experiment in MLflow, which is made where it is missing."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(paper)
    if experiment is None:
        database = _database(tracking_uri())
        location = (database.parent / "mlruns" / paper).as_uri() if database is not None else None
        try:
            tags = {"mlflow.note.content": _experiment_description(paper)}
            return client.create_experiment(paper, artifact_location=location, tags=tags)
        except MlflowException:  # another process created it meanwhile
            experiment = client.get_experiment_by_name(paper)
            if experiment is None:
                raise
    return experiment.experiment_id


def _metric_name(row_metric: str, method: str, setting: dict) -> str:
    """`coverage/last_block/length=2048`: letters that MLflow allows in a key."""
    coordinates = ",".join(f"{key}={value}" for key, value in setting.items())
    name = "/".join(part for part in (row_metric, method, coordinates) if part)
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name.replace("=", "-").replace(",", " "))[:250]


def _comparable(rows: Iterable[Row]) -> dict[str, float]:
    """Means over repetitions, `mean/<metric>`, without the method and coordinates that all rows of the metric share.

    The page that compares runs shows metrics of one name side by side. A cell of one method has that method in every name, so
    without these two such cells would share no name. A metric whose name would not become shorter has none.
    """
    of_metric: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_metric[row.metric].append(row)
    values: dict[str, list[float]] = defaultdict(list)
    for metric, same in of_metric.items():
        one_method = len({row.method for row in same}) == 1
        keys = {key for row in same for key in row.setting}
        shared = {key for key in keys if len({repr(row.setting.get(key)) for row in same}) == 1}
        shared |= {key for key in REPETITIONS if all(key in row.setting for row in same)}
        for row in same:
            kept = {key: value for key, value in row.setting.items() if key not in shared}
            method = "" if one_method else row.method
            if (method, kept) != (row.method, row.setting):
                values[_metric_name(f"mean/{metric}", method, kept)].append(row.value)
    return {name: math.fsum(numbers) / len(numbers) for name, numbers in values.items()}


def _description(record: Record) -> str:
    """What a run's page says on top, as Markdown: what was measured and the unit of each metric."""
    units = {row.metric: "a pure number" if row.unit == "1" else f"in {row.unit}" for row in record.rows}
    listed = ", ".join(f"`{metric}` {unit}" for metric, unit in units.items())
    return f"`{record.identity}` at scale {record.scale}: {listed}"[:5000]


def _milliseconds(moment: str) -> int:
    """A time in ISO format as MLflow keeps it: milliseconds since 1970."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def _parent_tag(paper: str, parent: str | None) -> dict[str, str]:
    """The tag that puts a run under a parent: the given run, or that of this workflow call; empty without either."""
    parent = parent or json.loads(os.environ.get(PARENT_RUNS) or "{}").get(paper)
    return {"mlflow.parentRunId": parent} if parent else {}


def _log(record: Record, folder: Path, parent: str | None = None) -> str:
    client = connect()
    p = record.provenance
    tags = {
        "paper": record.paper,
        "experiment": record.experiment,
        "cell": record.identity,
        "scale": record.scale,
        "git_commit": p.commit,
        "mlflow.source.git.commit": p.commit,
        "git_dirty": str(p.dirty).lower(),
        "device": p.device.name,
        "parameters_sha256": p.parameters_sha256,
        "results_sha256": record.results_sha256,
        **_parent_tag(record.paper, parent),
        **{name: version for name, version in p.versions.items() if name in ("torch", "triton", "transformers")},
    }
    started = _milliseconds(p.started_at)  # the measurement's own times, so that durations mean something
    run = client.create_run(
        experiment_id(client, record.paper),
        start_time=started,
        run_name=f"{record.experiment}: {record.cell} ({record.scale})",
        tags={"mlflow.source.name": p.command, "mlflow.note.content": _description(record), **tags},
    )
    run_id = run.info.run_id
    try:
        _fill(client, run, record, folder)
    except Exception:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, end_time=started + round(p.wall_seconds * 1000))
    return run_id


def _fill(client: Any, run: Any, record: Record, folder: Path) -> None:
    """Log a record's parameters, metrics, data sets and its file into a run."""
    from mlflow.entities import Dataset as DatasetEntity
    from mlflow.entities import DatasetInput, InputTag, Metric, Param

    p, run_id = record.provenance, run.info.run_id
    parameters = [Param(key, str(value)[:6000]) for key, value in {**record.parameters, **record.axes}.items()]
    for start in range(0, len(parameters), PARAMETERS_PER_CALL):
        client.log_batch(run_id, params=parameters[start : start + PARAMETERS_PER_CALL])
    timestamp = run.info.start_time
    metrics = [Metric(_metric_name(row.metric, row.method, row.setting), row.value, timestamp, 0) for row in record.rows]
    metrics += [Metric(name, value, timestamp, 0) for name, value in _comparable(record.rows).items()]
    metrics.append(Metric("wall_seconds", p.wall_seconds, timestamp, 0))
    for start in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL])
    datasets = [
        DatasetInput(
            DatasetEntity(
                name=name, digest=sha256[:32], source_type="registry", source=json.dumps({"file": name, "sha256": sha256})
            ),
            [InputTag("mlflow.data.context", "eval")],
        )
        for name, sha256 in p.data.items()
    ]
    if datasets:
        client.log_inputs(run_id, datasets)
    client.log_artifact(run_id, str(folder / "record.json"))


def mirror(record: Record, folder: Path) -> None:
    """Mirror a record as an MLflow run, once; `tracking.json` beside the record remembers the run.

    A failure is printed and nothing else: the record is already whole.
    """
    marker = folder / "tracking.json"
    if switched_off():
        return
    this = {"results_sha256": record.results_sha256, "started_at": record.provenance.started_at}
    try:
        if marker.exists() and _mirrored(marker) == this:
            return
        write_text(marker, json.dumps({"run_id": _log(record, folder), **this}) + "\n")
    except Exception as error:  # whatever the server or its database raises must not cost a measurement
        print(
            f"warning: MLflow at {tracking_uri()} did not take {record.identity}: {error}. The record is whole.",
            file=sys.stderr,
        )


def is_logged(record: Record) -> bool:
    """Whether the tracking store has a run of this measurement."""
    client = connect()
    started = _milliseconds(record.provenance.started_at)
    same = f"tags.cell = '{record.identity}' and tags.results_sha256 = '{record.results_sha256}'"
    found = client.search_runs([experiment_id(client, record.paper)], f"{same} and attributes.status = 'FINISHED'")
    return any(run.info.start_time == started for run in found)


def import_record(record: Record, folder: Path, parent: str) -> None:
    """Log a recorded record as an MLflow run.

    Args:
        record: of `results/recorded`.
        folder: that holds its `record.json`; nothing is written there.
        parent: id of the run that it is to stand under.
    """
    _log(record, folder, parent)


def _mirrored(marker: Path) -> dict | None:
    """Which measurement a `tracking.json` remembers; None when it is no such file."""
    try:
        known = json.loads(marker.read_text(encoding="utf-8"))
        return {key: known[key] for key in ("results_sha256", "started_at")}
    except (ValueError, TypeError, KeyError):
        return None


def mirror_summary(paper: str, scale: str, folder: Path, verdicts: dict[str, str], parent: str | None = None) -> str | None:
    """Log a paper's tables, figures and verdicts as one run named `tables and figures`.

    Args:
        paper: the paper's name.
        scale: the scale that was run.
        folder: results folder with `tables/` and `figures/`.
        verdicts: claim -> verdict, logged as tags.
        parent: id of the run that it stands under; default: that of this workflow call, if there is one.

    Returns:
        The run's id, or None when tracking is switched off or failed.
    """
    if switched_off():
        return None
    try:
        client = connect()
        tags = {
            "paper": paper,
            "scale": scale,
            **_parent_tag(paper, parent),
            "mlflow.source.name": f"python -m common.present mlflow {paper} --scale {scale}",
            "mlflow.note.content": "\n".join(f"- {claim}: **{verdict}**" for claim, verdict in verdicts.items())[:5000],
            **{f"verdict.{claim}": verdict[:250] for claim, verdict in verdicts.items()},
        }
        run = client.create_run(experiment_id(client, paper), run_name=f"tables and figures ({scale})", tags=tags)
        for part in ("tables", "figures"):
            if (folder / part).is_dir():
                client.log_artifacts(run.info.run_id, str(folder / part), artifact_path=part)
        claims = folder / "tables" / "claims.csv"
        if claims.exists():
            import pandas as pd

            table = pd.read_csv(claims, dtype=str, keep_default_na=False)
            table.insert(1, "Verdict", table.pop("Verdict"))  # beside the claim: the page cuts what stands far right
            client.log_table(run.info.run_id, table, "paper_vs_ours.json")
        client.set_terminated(run.info.run_id)
        return run.info.run_id
    except Exception as error:  # as above: tracking may fail, results may not
        print(f"warning: MLflow at {tracking_uri()} did not take the tables of {paper}: {error}.", file=sys.stderr)
        return None
