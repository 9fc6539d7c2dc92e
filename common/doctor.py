"""`snakemake doctor`: what this machine has, which data and weights are found, and what to do about the rest."""

import argparse
import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from common import provenance
from common.configuration import check_parameters, read_paper_config
from common.data.fetch import status
from common.data.registry import load_registry
from common.errors import ReattendError
from common.scale import cuda_devices
from common.tracking import switched_off, tracking_uri
from common.workflow import papers

PINNED = {"torch": "2.11.0", "triton": "3.6.0", "transformers": "5.17.0", "snakemake": "9.27.1"}


def _table(title: str, *headings: str) -> Table:
    """An empty table that wraps long addresses and never cuts them."""
    return Table(*(Column(heading, overflow="fold") for heading in headings), title=title)


def _versions() -> Table:
    table = _table("Environment", "what", "found", "remedy")
    table.add_row("python", platform.python_version(), "")
    for package, pinned in PINNED.items():
        try:
            found = importlib.metadata.version(package)
            table.add_row(package, found, "" if found == pinned else f"results were recorded with {pinned}")
        except importlib.metadata.PackageNotFoundError:
            table.add_row(package, "missing", "pip install --require-hashes -r envs/requirements.txt")
    if cuda_devices():
        device = provenance.device("cuda")
        table.add_row("GPU", f"{device.count} x {device.name}, driver {device.driver}, CUDA {device.cuda}", "")
    else:
        table.add_row("GPU", "none", "scale smoke runs on the CPU; standard needs a CUDA device and its driver")
    free = shutil.disk_usage(".").free / 1e9
    table.add_row("disk", f"{free:.0f} GB free here", "" if free > 3 else "free 3 GB: weights and caches need it")
    table.add_row("MLflow", "off (REATTEND_TRACKING=off)" if switched_off() else tracking_uri(), "")
    mirror = os.environ.get("REATTEND_DATA")
    table.add_row(
        "REATTEND_DATA", mirror or "not set", "" if not mirror or Path(mirror).is_dir() else "this folder does not exist"
    )
    return table


def _data() -> Table:
    table = _table("Data and weights", "data or weights", "file", "state", "where, or what to do")
    for entry in load_registry().datasets:
        for found in status(entry.name):
            table.add_row(entry.name, found.file, found.state, found.detail)
    return table


def _papers() -> Table:
    table = _table("Papers", "paper", "configuration")
    for name in papers():
        path = provenance.REPOSITORY / "papers" / name / "config.yaml"
        try:
            check_parameters(read_paper_config(path), path)
            table.add_row(name, "valid")
        except ReattendError as error:
            table.add_row(name, str(error))
    return table


def main() -> None:
    """Print the tables; exits with 0 as long as it can look."""
    argparse.ArgumentParser(prog="python -m common.doctor", description="What this machine has and lacks.").parse_args()
    console = Console(width=max(100, shutil.get_terminal_size().columns), markup=False)  # brackets in messages are no markup
    for table in (_versions(), _data(), _papers()):
        console.print(table)


if __name__ == "__main__":
    main()
