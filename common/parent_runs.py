"""Parent runs in MLflow: for each `snakemake` call and paper one run, under which the call's cells and tables stand.

The workflow makes them before its jobs start, so that no two jobs race for one, and hands their ids on in an environment
variable. Jobs of a cluster inherit it; a job that does not get it logs a run without a parent.
"""

import argparse
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

import psutil

from common.provenance import REPOSITORY, commit
from common.tracking import PARENT_RUNS, connect, experiment_id, switched_off, tracking_uri


def papers_logged_by(rules: Iterable[str]) -> list[str]:
    """Papers of which the rules `papers/<name>/<rule>` log anything: those that measure, and those that log tables."""
    parts = [rule.split("/") for rule in rules]
    return sorted({p[1] for p in parts if len(p) == 3 and (p[2] == "mlflow" or p[2].startswith("cells"))})


def start(papers: Iterable[str], scale: str) -> None:
    """Make the parent runs of this `snakemake` call and put their ids into the environment of its jobs.

    A failure is printed and nothing else: jobs then log runs without a parent.

    Args:
        papers: names of the papers that the call will log.
        scale: the scale of the call.
    """
    os.environ.pop(PARENT_RUNS, None)  # of a call that started this one: its cells are not ours
    papers = list(papers)
    if papers and not switched_off():
        command = shlex.join(["snakemake", *sys.argv[1:]])
        os.environ[PARENT_RUNS] = _in_another_process("start", f"--scale={scale}", f"--command={command}", *papers)


def finish(status: Literal["FINISHED", "FAILED"]) -> None:
    """End the parent runs of this `snakemake` call. A failure is printed and nothing else."""
    run_ids = json.loads(os.environ.pop(PARENT_RUNS, None) or "{}").values()
    if run_ids:
        _in_another_process("finish", f"--status={status}", *run_ids)


def _in_another_process(*arguments: str) -> str:
    """What this module's command line prints. Snakemake's own process has `common/` itself on its path, which hides modules."""
    command = [sys.executable, "-m", "common.parent_runs", *arguments]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines()
    return printed[-1] if printed else "{}"


def create(client: Any, paper: str, scale: str, moment: datetime, about: str, tags: dict[str, str]) -> str:
    """Make a parent run with the paper's README; it stays `RUNNING` until someone ends it.

    Args:
        client: an MLflow client.
        paper: the paper's name.
        scale: the scale of the cells.
        moment: when the first of them started, as far as known; with time zone.
        about: what the runs below have in common, as Markdown.
        tags: more tags.

    Returns:
        The run's id.
    """
    run = client.create_run(
        experiment_id(client, paper),
        start_time=round(moment.timestamp() * 1000),
        run_name=f"{scale} {moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} {paper}",  # the page cuts names after 16 letters
        tags={"paper": paper, "scale": scale, "mlflow.note.content": about, **tags},
    )
    readme = REPOSITORY / "papers" / paper / "README.md"
    if readme.exists():
        client.log_artifact(run.info.run_id, str(readme))
    return run.info.run_id


def create_for_call(papers: Iterable[str], scale: str, command: str, process: int) -> dict[str, str]:
    """Make the parent runs of a call, and mark as killed those that earlier processes of this machine left `RUNNING`.

    Args:
        papers: names of the papers that the call will log.
        scale: the scale of the call.
        command: the call as typed.
        process: id of the process that will end the runs.

    Returns:
        Paper -> id of its parent run.
    """
    client, host = connect(), socket.gethostname()
    sha, dirty = commit()
    tags = {
        "process": f"{host}:{process}",
        "git_commit": sha,
        "git_dirty": str(dirty).lower(),
        "mlflow.source.name": command,
        "mlflow.source.git.commit": sha,
    }
    now, runs = datetime.now(UTC), {}
    for paper in papers:
        mark_killed(client, paper, host)
        runs[paper] = create(client, paper, scale, now, f"What one call logged: `{command}`", tags)
    return runs


def mark_killed(client: Any, paper: str, host: str) -> None:
    """End parent runs of a paper whose process on this machine is gone; those of other machines are left as they are."""
    running = f"attributes.status = 'RUNNING' and tags.process LIKE '{host}:%'"
    for run in client.search_runs([experiment_id(client, paper)], running):
        if not psutil.pid_exists(int(run.data.tags["process"].rpartition(":")[2])):
            client.set_terminated(run.info.run_id, "KILLED")


def main() -> None:
    """Command line of `start` and `finish`; prints paper -> id of its parent run as JSON."""
    parser = argparse.ArgumentParser(prog="python -m common.parent_runs", description="Parent runs of a workflow's call.")
    parser.add_argument("what", choices=["start", "finish"])
    parser.add_argument("names", nargs="+", help="papers (start) or ids of runs (finish)")
    parser.add_argument("--scale", default="")
    parser.add_argument("--command", default="", help="the call as typed")
    parser.add_argument("--status", default="FINISHED")
    arguments = parser.parse_args()
    runs: dict[str, str] = {}
    try:
        if arguments.what == "start":
            runs = create_for_call(arguments.names, arguments.scale, arguments.command, os.getppid())
        else:
            client = connect()
            for run_id in arguments.names:
                client.set_terminated(run_id, arguments.status)
    except Exception as error:  # as in tracking: it may fail, results may not
        failed = "made no parent run" if arguments.what == "start" else "did not end its parent runs"
        print(f"warning: MLflow at {tracking_uri()} {failed}: {error}.", file=sys.stderr)
    print(json.dumps(runs))


if __name__ == "__main__":
    main()
