"""One target makes a paper's tables, figures and report, makes nothing twice, and makes again what a change touches."""

import json
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from common.provenance import REPOSITORY
from tests.workflow.conftest import RESULTS, jobs

pytestmark = pytest.mark.workflow

TARGET = ("papers/_template/all", "--config", "scale=smoke")


def test_one_target_makes_everything_and_says_where_it_lies(finished):
    checkout, output = finished
    results = checkout.folder / RESULTS
    for name in ("report.html", "verdicts.json", "inputs.json", "figures/gradient_against_dimension.svg"):
        assert (results / name).stat().st_size > 0
    for name in ("claims", "evidence", "reported", "reported_timing"):
        for suffix in ("md", "csv", "tex"):
            assert (results / "tables" / f"{name}.{suffix}").stat().st_size > 0
    assert "scale: smoke (asked for)" in output
    words = output[output.index("_template at scale smoke:") :]
    for path in ("tables/claims.md", "figures/", "report.html", "records/"):
        assert f"{RESULTS}/{path}" in words
    assert f"mlflow ui --backend-store-uri {checkout.database}" in words
    assert jobs(output) == ["all", "cells", "figures", "inputs", "mlflow", "report", "tables", "verdicts"]


def test_progress_is_visible_and_every_job_has_its_log(finished):
    checkout, output = finished
    results = checkout.folder / RESULTS
    assert "Measuring softmax_gradient" in output
    assert "[_template/softmax_gradient] 5/5 seed=4 (measured)" in output
    assert "5/5 seed=4 (measured)" in (results / "logs/cells_1.log").read_text()
    logs = {str(path.relative_to(results / "logs")) for path in (results / "logs").rglob("*.log")}
    assert {"inputs.log", "verdicts.log", "tables.log", "report.log", "mlflow.log", "figures.log", "cells_1.log"} <= logs


def test_each_cell_and_the_tables_are_runs_of_mlflow(finished):
    checkout, _ = finished
    client = MlflowClient(tracking_uri=checkout.database)
    experiment = client.get_experiment_by_name("_template")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    cells = {run.data.tags["cell"]: run for run in runs if "cell" in run.data.tags}
    assert sorted(cells) == [f"_template/softmax_gradient/seed={seed}" for seed in range(5)]
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    (summary,) = (run for run in runs if "cell" not in run.data.tags and run is not parent)
    assert (checkout.folder / RESULTS / "mlflow_run.txt").read_text().strip() == summary.info.run_id
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs if run is not parent} == {parent.info.run_id}
    assert str(parent.info.run_name).startswith("smoke 20")
    assert "snakemake papers/_template/all --config scale=smoke" in parent.data.tags["mlflow.source.name"]
    record = json.loads((checkout.folder / RESULTS / "records/softmax_gradient/seed=3/record.json").read_text())
    assert cells["_template/softmax_gradient/seed=3"].data.tags["results_sha256"] == record["results_sha256"]


def test_a_second_call_does_nothing(finished):
    checkout, _ = finished
    status, output = checkout.snakemake(*TARGET)
    assert status == 0
    assert "Nothing to be done" in output


def test_a_change_makes_again_what_depends_on_it(finished, tmp_path):
    checkout = finished[0].copy(tmp_path / "changed", tracking="off")
    config, after_cells = "papers/_template/config.yaml", ["all", "cells", "figures", "mlflow", "report", "tables", "verdicts"]
    changes = [
        ([(config, "smoke: [4, 64]", "smoke: [4, 32]")], after_cells),
        ([("papers/_template/scaled_dot_product.py", "scale = 1 /", "scale = 1.0 /")], after_cells),
        ([(config, "thin lines are seeds", "thin lines are single seeds")], ["all", "mlflow", "report"]),
        ([(config, "smoke: [4, 64]", "smoke: [4,  64]"), (config, "standard: [4, 16, 64, 256]", "standard: [4, 16]")], []),
    ]
    for edits, expected in changes:
        for edit in edits:
            checkout.edit(*edit)
        status, output = checkout.snakemake(*TARGET, "--dry-run")
        assert status == 0, output
        assert (jobs(output) if "Job stats:" in output else []) == expected, edits
        for path, old, new in edits:
            checkout.edit(path, new, old)

    records = {path: path.stat().st_mtime_ns for path in checkout.folder.rglob("record.json")}
    checkout.edit("papers/_template/claims.yaml", "extremely small gradients.", "very small gradients.")
    status, output = checkout.snakemake(*TARGET)
    assert status == 0, output
    assert jobs(output) == ["all", "mlflow", "report", "tables", "verdicts"]
    assert "very small gradients" in (checkout.folder / RESULTS / "tables/claims.csv").read_text()
    assert {path: path.stat().st_mtime_ns for path in records} == records


def test_lint_is_quiet_and_the_format_is_snakefmts(finished):
    status, output = finished[0].snakemake("--lint")
    assert "Congratulations, your workflow is in a good condition!" in output
    assert status == 0
    files = ["Snakefile", "common/paper.smk", *map(str, sorted((REPOSITORY / "papers").glob("*/Snakefile")))]
    done = subprocess.run(
        [sys.executable, "-m", "snakefmt.snakefmt", "--check", *files],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
