"""Recorded results as MLflow runs: `snakemake mlflow_import`, or `python -m common.mlflow_import [<paper> ...]`.

For browsing what was recorded without measuring anything: one run a record, and for each paper one named `tables and figures`.
What the tracking store has already is left as it is, so that it may be run again.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from common import tracking
from common.claims import read_verdicts
from common.errors import DataError, ReattendError
from common.experiment import stop_with_message
from common.provenance import REPOSITORY
from common.publish import recorded_results
from common.workflow import papers


def import_paper(paper: str) -> tuple[int, int]:
    """Log the newest recorded results of a paper.

    Returns:
        How many runs were made, and how many were there already.

    Raises:
        DataError: nothing is recorded of the paper, or tracking is switched off.
        ConfigError: as `recorded_results`.
    """
    if tracking.switched_off():
        raise DataError("REATTEND_TRACKING is off; unset it to import into MLflow.")
    found = recorded_results(paper)
    if not found:
        raise DataError(f"Nothing is recorded of {paper}.")
    newest = found[0]
    made = 0
    for record in newest.records.records:
        made += tracking.import_record(record, newest.records.root / record.experiment / record.cell)
    if made:
        with tempfile.TemporaryDirectory() as temporary:
            for part in ("tables", "figures"):
                source = REPOSITORY / "report" / part / paper
                if source.is_dir():
                    shutil.copytree(source, Path(temporary) / part)
            verdicts = {v.claim: v.outcome for v in read_verdicts(Path(temporary) / "tables" / "verdicts.json")}
            tracking.mirror_summary(paper, newest.scale, Path(temporary), verdicts)
    return made, len(newest.records.records) - made


def main() -> None:
    """Command line: see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m common.mlflow_import", description="Recorded results as MLflow runs.")
    parser.add_argument("papers", nargs="*", help="default: all with recorded results")
    arguments = parser.parse_args()
    try:
        wanted = arguments.papers or [name for name in papers() if not name.startswith("_") and recorded_results(name)]
        for paper in wanted:
            made, there = import_paper(paper)
            print(f"{paper}: {made} runs made, {there} were there already", flush=True)
    except ReattendError as error:
        stop_with_message(error)


if __name__ == "__main__":
    main()
