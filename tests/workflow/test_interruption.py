"""Killed jobs and a killed Snakemake lose nothing: the same command goes on, and gives the numbers of an uninterrupted run."""

import os
import random
import signal
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
    checkout = make_checkout("killed", tracking="off", paper="_template")
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


# Another seed gives other moments; each kill takes about 8 seconds.
SEED = int(os.environ.get("REATTEND_KILL_SEED", "0"))
KILLS = int(os.environ.get("REATTEND_KILLS", "2"))


def final_files(folder):
    """Names below the folder of all that people and later steps read: no logs, no run times, nothing of MLflow."""
    files = [path for path in folder.rglob("*") if path.name[0] != "." and path.name != "tracking.json" and path.is_file()]
    relative = [path.relative_to(folder) for path in files]
    return {path.as_posix() for path in relative if path.parts[0] not in ("logs", "benchmarks")}


def check_files_are_whole(folder, expected):
    """Every file that is there is what an undisturbed run writes; a record may differ in where and when it was made."""
    for name in final_files(folder):
        if name.endswith("record.json"):
            assert read_record(folder / name).results_sha256 == read_record(expected / name).results_sha256, name
        else:
            assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


def test_after_kills_at_random_moments_everything_is_that_of_an_undisturbed_run(finished, make_checkout):
    print(f"REATTEND_KILL_SEED={SEED} REATTEND_KILLS={KILLS}")  # pytest shows it where the test fails
    undisturbed = finished[0].folder / RESULTS
    wanted = {
        name for name in final_files(undisturbed) if name.split("/")[0] in ("inputs.json", "records", "verdicts.json", "tables")
    }
    checkout = make_checkout("killed_at_random", tracking="off", paper="_template")
    results, locks = checkout.folder / RESULTS, checkout.folder / ".snakemake" / "locks"
    # A file is complete for a fifth of a second before it appears, so that kills come between the two as well.
    checkout.edit("common/files.py", "        os.replace(", "        __import__('time').sleep(0.2)\n        os.replace(")
    generator = random.Random(SEED)
    share = (len(wanted) - 3) / KILLS  # the last files are left, so that Snakemake still runs when it is killed
    for number in range(KILLS):  # one in each part of the run; a machine's speed hardly moves moments that files are counted to
        files, delay = int(share * (number + generator.random())), generator.uniform(0, 0.5)
        process = checkout.start("python", "-m", "snakemake", *TARGET, new_session=True)
        deadline = time.monotonic() + 300
        while not (locks.exists() and any(locks.iterdir())) or len(final_files(results)) < files:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(delay)
        assert process.poll() is None, process.communicate()[0]
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        print(f"killed {delay:.2f} s after {files} files: {len(final_files(results))} of {len(wanted)} are there")
        check_files_are_whole(results, undisturbed)
        status, output = checkout.snakemake("--unlock")
        assert status == 0, output
    status, output = checkout.snakemake(*TARGET)
    assert status == 0, output
    check_files_are_whole(results, undisturbed)
    assert set(final_files(results)) == wanted
