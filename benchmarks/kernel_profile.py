"""What a kernel waits for: every launch of one call under Nsight Compute (`ncu`), which must be on the PATH.

`python -m benchmarks.kernel_profile CASE` makes that one call; the benchmark starts it under `ncu`.
"""

import argparse
import csv
import io
import shutil
import subprocess
import sys
from collections.abc import Callable

import torch

from benchmarks import block_sparse_attention, lightning_attention
from benchmarks.registry import Row, benchmark
from common.errors import DataError, InputError, MissingHardwareError

SECTIONS = ("SpeedOfLight", "Occupancy", "LaunchStats", "WarpStateStats")
METRICS = {
    "ms": ("gpu__time_duration.sum", 1e-6),  # of nanoseconds
    "memory_share": ("gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed", 0.01),
    "compute_share": ("sm__throughput.avg.pct_of_peak_sustained_elapsed", 0.01),
    "warps_share": ("sm__warps_active.avg.pct_of_peak_sustained_active", 0.01),
    "registers": ("launch__registers_per_thread", 1.0),
    "programs": ("launch__grid_size", 1.0),
}
"""Column of a row -> metric of ncu, and the factor to its unit. Shares are of what the machine can sustain."""

STALL, STALL_END = "smsp__average_warps_issue_stalled_", "_per_issue_active.ratio"
DEFAULT_CASES = [
    "block_sparse_attention:8192:0.05",
    "block_sparse_attention:32768:0.05",
    "block_sparse_attention:32768:0.5",
    "block_sparse_attention:131072:0.1",
    "lightning_attention:2048",
    "lightning_attention:131072",
]


def call_of(case: str) -> Callable[[], Callable[[], object]]:
    """What prepares the call that a case names, on the inputs of the kernel's own benchmark.

    Args:
        case: `block_sparse_attention:LENGTH:DENSITY`, or `lightning_attention:LENGTH` (forward, 131,072 tokens in all).

    Raises:
        InputError: it names none.
    """
    try:
        match case.split(":"):
            case ["block_sparse_attention", length, density]:
                N, share = int(length), float(density)
                if N >= 128 and N % 128 == 0 and 0 < share <= 1:
                    return lambda: block_sparse_attention.ours(
                        block_sparse_attention.Problem.draw(N, share, 32, 8, 128, seed=0)
                    )
            case ["lightning_attention", length]:
                N = int(length)
                if N >= 1 and 131072 % N == 0:
                    return lambda: lightning_attention.KERNELS["ours"].call(
                        lightning_attention.Problem.draw(131072 // N, N, 16, 128, seed=0), backward=False
                    )
    except ValueError:
        pass
    raise InputError(
        f"case {case!r} is not known; write block_sparse_attention:LENGTH:DENSITY with a multiple of 128 and a density in "
        "(0, 1], or lightning_attention:LENGTH with a length that divides 131072."
    )


def make_one_call(case: str) -> None:
    """Compile and warm up, then make the call that `ncu` watches."""
    call = call_of(case)()
    call()
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    call()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


def rows_of(case: str, table: str) -> list[Row]:
    """The rows of one case from ncu's table, one for each launch.

    Args:
        case: its name.
        table: what `ncu --csv --page raw --print-units base` printed: lines of other programs, a header, a line of units, and a
            line for each launch.

    Raises:
        DataError: there is no launch in it.
    """
    lines = [line for line in table.splitlines() if line.startswith('"')]
    launches = list(csv.DictReader(io.StringIO("\n".join(lines))))[1:]
    if not launches:
        raise DataError(f"ncu reported no launch for {case}. It printed: {table.strip()[-500:]}")
    rows: list[Row] = []
    for launch in launches:
        row: Row = {"case": case, "kernel": launch["Kernel Name"].split("(")[0].split("<")[0].removeprefix("void ")}
        missing = [metric for metric, _ in METRICS.values() if metric not in launch]
        for name, (metric, factor) in METRICS.items():
            row[name] = None if metric in missing else float(launch[metric].replace(",", "")) * factor
        stalls = {
            name[len(STALL) : -len(STALL_END)]: float(value.replace(",", ""))
            for name, value in launch.items()
            if name.startswith(STALL) and name.endswith(STALL_END)
        }
        row["waits_most_for"] = max(stalls, key=lambda name: stalls[name]) if stalls else None
        row["failed"] = f"ncu did not measure {', '.join(missing)}" if missing else None
        rows.append(row)
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--cases", nargs="+", default=DEFAULT_CASES, help="such as block_sparse_attention:32768:0.05")


@benchmark("kernel_profile", add_arguments)
def run(args: argparse.Namespace) -> list[Row]:
    """Time, load of memory and multiprocessors, and what warps wait for, by Nsight Compute."""
    for case in args.cases:
        call_of(case)
    if shutil.which("ncu") is None:
        raise MissingHardwareError("ncu is not on the PATH; install NVIDIA Nsight Compute, which comes with the CUDA toolkit.")
    rows: list[Row] = []
    for case in args.cases:
        command = ["ncu", "--csv", "--page", "raw", "--print-units", "base", "--profile-from-start", "off"]
        command += ["--clock-control", "none"]  # at the clock that kernels run at
        for section in SECTIONS:
            command += ["--section", section]
        done = subprocess.run(
            [*command, sys.executable, "-m", "benchmarks.kernel_profile", case], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DataError(f"ncu failed for {case}: {(done.stderr.strip() or done.stdout.strip())[-500:]}")
        rows += rows_of(case, done.stdout)
    return rows


if __name__ == "__main__":
    make_one_call(sys.argv[1])
