"""Copies of this checkout in which real Snakemake runs, without touching the tree under test."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.provenance import REPOSITORY

PARTS = ("Snakefile", "common", "config", "envs", "papers", "profiles", "report/templates")
RESULTS = Path("results/_template/smoke")


@dataclass
class Checkout:
    """A copied checkout with its own cache and MLflow database."""

    folder: Path
    tracking: str = "on"

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder / 'tracking' / 'mlflow.db'}"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("REATTEND_", "MLFLOW_", "PYTEST_"))}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": self.database,
            "REATTEND_TRACKING": self.tracking,
            "REATTEND_CACHE": str(self.folder / "cache"),
        }

    def start(self, *command: str, new_session: bool = False) -> subprocess.Popen:
        """Start a command in the checkout; both streams in one. In a session of its own it can be killed with all below it."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=new_session,
        )

    def run(self, *command: str) -> tuple[int, str]:
        """Exit status and output of a command."""
        process = self.start(*command)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def snakemake(self, *arguments: str) -> tuple[int, str]:
        return self.run(sys.executable, "-m", "snakemake", *arguments)

    def python(self, *arguments: str) -> tuple[int, str]:
        return self.run(sys.executable, *arguments)

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{path} has changed: this test looks for {old!r}"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    def copy(self, folder: Path, tracking: str = "on") -> "Checkout":
        """A copy with results and Snakemake's memory of them."""
        shutil.copytree(self.folder, folder)
        return Checkout(folder, tracking)


def jobs(output: str) -> list[str]:
    """The jobs of one paper in Snakemake's table, without the paper's name."""
    table = output.split("Job stats:")[1]
    return sorted(re.findall(r"^papers/\w+/(\w+) +\d+$", table.split("\ntotal")[0], flags=re.MULTILINE))


@pytest.fixture(scope="session")
def make_checkout(tmp_path_factory):
    """Makes checkouts: `make_checkout("name")`, or with one paper alone, where Snakemake starts in a third of the time."""

    def make(name: str, tracking: str = "on", paper: str | None = None) -> Checkout:
        folder = tmp_path_factory.mktemp(name) / "checkout"

        def left_out(parent: str, names: list[str]) -> set[str]:
            others = Path(parent) == REPOSITORY / "papers" and paper is not None
            return {name for name in names if name == "__pycache__" or (others and name not in ("__init__.py", paper))}

        for part in PARTS:
            source, target = REPOSITORY / part, folder / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=left_out)
            else:
                shutil.copy2(source, target)
        return Checkout(folder, tracking)

    return make


@pytest.fixture(scope="session")
def finished(make_checkout):
    """A checkout after `snakemake papers/_template/all --config scale=smoke`, and what was printed. Not to be changed."""
    checkout = make_checkout("finished")
    status, output = checkout.snakemake("papers/_template/all", "--config", "scale=smoke")
    assert status == 0, output
    return checkout, output
