"""Killed jobs and a killed Snakemake lose nothing: the same command goes on, and gives the numbers of an uninterrupted run."""

import time

import psutil
import pytest

from common.records import read_record
from tests.workflow.conftest import RESULTS

pytestmark = pytest.mark.workflow

TARGET = ("papers/_template/tables", "--config", "scale=smoke")
MODULE = "common.measure"


def start_and_wait_for(checkout, seed):
    """Start Snakemake and wait until a cell's record is there; returns the process and all processes below it."""
    process = checkout.start("python", "-m", "snakemake", *TARGET)
    record = checkout.folder / RESULTS / f"records/softmax_gradient/seed={seed}/record.json"
    deadline = time.monotonic() + 300  # a busy machine starts a process slowly
    while not record.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, psutil.Process(process.pid).children(recursive=True)


def test_killed_jobs_and_a_killed_snakemake_lose_nothing(finished, make_checkout):
    uninterrupted = finished[0].folder / RESULTS
    checkout = make_checkout("killed", tracking="off")
    results = checkout.folder / RESULTS
    slow = "    measurement = Measurement()\n"
    checkout.edit("papers/_template/softmax_gradient.py", slow, slow + "    __import__('time').sleep(0.6)\n")

    # kill -9 of the job
    process, below = start_and_wait_for(checkout, seed=0)
    (job,) = (p for p in below if MODULE in p.cmdline() and "python" in p.name())
    job.kill()
    output = process.communicate(timeout=300)[0]
    assert process.returncode != 0
    assert "Error in rule papers/_template/cells" in output
    assert not (results / "records/softmax_gradient/all.index.json").exists()
    first = results / "records/softmax_gradient/seed=0/record.json"
    first_written = first.stat().st_mtime_ns

    # kill -9 of Snakemake together with its job
    process, below = start_and_wait_for(checkout, seed=2)
    for victim in (psutil.Process(process.pid), *below):
        victim.kill()
    process.communicate(timeout=300)
    kept = [seed for seed in range(5) if (results / f"records/softmax_gradient/seed={seed}/record.json").exists()]
    assert kept[:3] == [0, 1, 2]
    assert len(kept) < 5

    status, output = checkout.snakemake(*TARGET)
    assert status != 0
    assert "LockException" in output
    assert "--unlock" in output
    status, output = checkout.snakemake("--unlock")
    assert status == 0, output
    status, output = checkout.snakemake(*TARGET)
    assert status == 0, output
    for seed in range(5):
        assert f"seed={seed} ({'kept: nothing it depends on changed' if seed in kept else 'measured'})" in output
    assert first.stat().st_mtime_ns == first_written

    # The same numbers as without any interruption, and the same tables to the byte: also what "same seed, same numbers" means.
    for seed in range(5):
        ours, theirs = (read_record(r / f"records/softmax_gradient/seed={seed}/record.json") for r in (results, uninterrupted))
        assert ours.results_sha256 == theirs.results_sha256
    for path in sorted((uninterrupted / "tables").iterdir()):
        assert (results / "tables" / path.name).read_bytes() == path.read_bytes(), path.name
