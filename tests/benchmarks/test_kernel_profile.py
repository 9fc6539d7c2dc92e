"""Profiles: ncu's table becomes rows, and what is missing or unknown is said."""

import argparse
import shutil

import pytest

from benchmarks.__main__ import main
from benchmarks.kernel_profile import METRICS, call_of, rows_of, run
from common.errors import DataError, InputError

LONG, SHORT, LAUNCH = (
    "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio",
    "smsp__average_warps_issue_stalled_wait_per_issue_active.ratio",
    "Kernel Name",
)
VALUES = {"gpu__time_duration.sum": "1,020,000", "launch__registers_per_thread": "255", LONG: "3.5", SHORT: "0.5"}


def table(without=()):
    """What ncu prints: its own lines, a header, units, and one launch."""
    columns = [name for name in [LAUNCH, *(metric for metric, _ in METRICS.values()), LONG, SHORT] if name not in without]
    values = [VALUES.get(name, "50") for name in columns]
    values[0] = "void _output_kernel<1>(float *)"

    def line(cells):
        return ",".join(f'"{cell}"' for cell in cells)

    return "\n".join(["==PROF== Connected", line(columns), line([""] * len(columns)), line(values)])


def test_a_launch_becomes_a_row():
    (row,) = rows_of("lightning_attention:2048", table())
    assert row["kernel"] == "_output_kernel"
    assert row["ms"] == pytest.approx(1.02)
    assert row["registers"] == 255
    assert row["memory_share"] == pytest.approx(0.5)
    assert row["waits_most_for"] == "long_scoreboard"
    assert row["failed"] is None


def test_a_metric_that_ncu_did_not_measure_is_named():
    (row,) = rows_of("lightning_attention:2048", table(without=["gpu__time_duration.sum"]))
    assert row["ms"] is None
    assert row["failed"] == "ncu did not measure gpu__time_duration.sum"


def test_no_launch_is_an_error_that_shows_what_ncu_said():
    with pytest.raises(DataError, match="no permission"):
        rows_of("lightning_attention:2048", "==ERROR== no permission")


@pytest.mark.parametrize(
    "case",
    ["", "softmax:8", "lightning_attention:3", "lightning_attention:0", "block_sparse_attention:100:0.5",
     "block_sparse_attention:128:0", "block_sparse_attention:128:x"],
)  # fmt: skip
def test_an_unknown_case_is_refused_before_anything_runs(case):
    with pytest.raises(InputError, match="is not known"):
        call_of(case)


def test_the_command_needs_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["kernel_profile"]) == 2
    assert "none is visible" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(shutil.which("ncu") is None, reason="Nsight Compute is not installed")
def test_a_real_profile():
    rows = run(argparse.Namespace(cases=["lightning_attention:131072"]))
    assert "_output_kernel" in {row["kernel"] for row in rows}
    assert all(row["failed"] is None and float(row["ms"] or 0) > 0 for row in rows)
