"""Results as MLflow runs, without measuring: `snakemake mlflow_import`, or `python -m common.mlflow_import [<paper> ...]`.

One run a record, for each paper one named `tables and figures`, all below one parent run. By default what is recorded in this
repository; with `--results` what this machine measured, for example to copy it from a laptop to a server (MLFLOW_TRACKING_URI).
What the tracking store has already is left as it is, so that it may be run again.
"""

import argparse
import shutil
import socket
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, get_args

from common import parent_runs, tracking
from common.claims import read_verdicts
from common.configuration import read_paper_config
from common.errors import DataError, ReattendError
from common.experiment import stop_with_message
from common.present import paper_records
from common.provenance import REPOSITORY
from common.publish import recorded_results
from common.records import Record, RecordSet, Scale
from common.workflow import papers


def import_paper(paper: str) -> tuple[int, int]:
    """Log the newest recorded results of a paper.

    Returns:
        How many runs were made of records, and how many were there already.

    Raises:
        DataError: nothing is recorded of the paper, or tracking is switched off.
        ConfigError: as `recorded_results`.
    """
    found = recorded_results(paper)
    if not found:
        raise DataError(f"Nothing is recorded of {paper}.")
    newest = found[0]
    with tempfile.TemporaryDirectory() as temporary:
        for part in ("tables", "figures"):
            source = REPOSITORY / "report" / part / paper
            if source.is_dir():
                shutil.copytree(source, Path(temporary) / part)
        verdicts = Path(temporary) / "tables" / "verdicts.json"
        origin = f"results/recorded/{newest.hardware}/{paper}/{newest.scale}"
        return _import(paper, newest.scale, newest.records, origin, Path(temporary), verdicts)


def import_results(paper: str, results: Path) -> tuple[int, int]:
    """Log what was measured here of a paper, at every scale.

    Args:
        paper: the paper's name.
        results: folder of results, with `<paper>/<scale>/records`.

    Returns:
        How many runs were made of records, and how many were there already.

    Raises:
        DataError: the folder has no records of the paper, a record is damaged, or tracking is switched off.
        ConfigError: the paper's configuration is wrong.
    """
    config = read_paper_config(REPOSITORY / "papers" / paper / "config.yaml")
    made = there = 0
    for scale in get_args(Scale):
        folder = results / paper / scale
        records = paper_records(config, scale, folder / "records")
        if records.records:
            origin = f"{socket.gethostname()}:{folder.absolute()}"
            counts = _import(paper, scale, records, origin, folder, folder / "verdicts.json")
            made, there = made + counts[0], there + counts[1]
    if not made + there:
        raise DataError(f"{results / paper} holds no current record. Run `snakemake papers/{paper}/all` first.")
    return made, there


def _import(paper: str, scale: Scale, records: RecordSet, origin: str, presented: Path, verdicts: Path) -> tuple[int, int]:
    """Log what is missing of a set of records, with `tables/` and `figures/` of a folder."""
    if tracking.switched_off():
        raise DataError("REATTEND_TRACKING is off; unset it to import into MLflow.")
    missing = [record for record in records.records if not tracking.is_logged(record)]
    if missing:
        outcomes = {v.claim: v.outcome for v in read_verdicts(verdicts)}
        client = tracking.connect()
        parent = _parent(client, paper, scale, records.records, origin)
        for record in missing:
            tracking.import_record(record, records.root / record.experiment / record.cell, parent)
        tracking.mirror_summary(paper, scale, presented, outcomes, parent)
        last = max(_started(r) + timedelta(seconds=r.provenance.wall_seconds) for r in records.records)
        client.set_terminated(parent, end_time=round(last.timestamp() * 1000))
    return len(missing), len(records.records) - len(missing)


def _started(record: Record) -> datetime:
    return datetime.fromisoformat(record.provenance.started_at)


def _parent(client: Any, paper: str, scale: str, records: list[Record], origin: str) -> str:
    """The parent run of an import: that of an earlier, partial import from the same place, or a new one."""
    earlier = client.search_runs(
        [tracking.experiment_id(client, paper)], f"tags.scale = '{scale}' and tags.imported_from LIKE '%'"
    )
    for run in earlier:
        if run.data.tags["imported_from"] == origin:
            return run.info.run_id
    first = min(_started(record) for record in records)
    tags = {"imported_from": origin, "mlflow.source.name": f"python -m common.mlflow_import {paper}"}
    return parent_runs.create(client, paper, scale, first, f"Imported from `{origin}`", tags)


def main() -> None:
    """Command line: see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m common.mlflow_import", description="Results as MLflow runs.")
    parser.add_argument("papers", nargs="*", help="default: all that there are results of")
    parser.add_argument(
        "--results", type=Path, help="folder of own results, `results` unless you chose another; default: recorded ones"
    )
    arguments = parser.parse_args()
    results: Path | None = arguments.results

    def has_results(paper: str) -> bool:
        if paper.startswith("_"):
            return False
        return bool(recorded_results(paper)) if results is None else (results / paper).is_dir()

    try:
        wanted = arguments.papers or [name for name in papers() if has_results(name)]
        if not wanted:
            raise DataError(f"There are no results in {results or 'results/recorded'}.")
        for paper in wanted:
            made, there = import_paper(paper) if results is None else import_results(paper, results)
            print(f"{paper}: {made} runs made, {there} were there already", flush=True)
    except ReattendError as error:
        stop_with_message(error)


if __name__ == "__main__":
    main()
