"""Every command that the documentation prints works as printed: it is run here, or the test that runs it is named.

`WAYS` says for every command how it is executed. A command that nobody classified is a failure, and so is a way that no command
needs any more.
"""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import benchmarks.__main__ as benchmark_command
from benchmarks.registry import BENCHMARKS
from common.configuration import batches_of, read_paper_config
from common.errors import MissingHardwareError
from common.provenance import REPOSITORY
from common.workflow import PaperPlan, papers
from tests.workflow.conftest import Checkout

GENERATED = ("report", "results")
DOCUMENTS = sorted(
    path
    for path in REPOSITORY.rglob("*.md")
    if not any(part.startswith(".") or part in GENERATED for part in path.relative_to(REPOSITORY).parts)
)
PROGRAMS = (
    "basedpyright", "kubectl", "mlflow", "pip", "pytest", "python", "python3", "ruff", "sbatch", "scontrol", "snakefmt",
    "snakemake", "squeue", "torchrun", "uv", ".",
)  # fmt: skip
SHELLS = ("", "bash", "sh", "shell", "console")
CONTINUOUS_INTEGRATION = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, what it says it is, and its text."""

    document: str
    line: int
    language: str
    text: str


def blocks_of(path: Path) -> list[Block]:
    """The fenced blocks of a document."""
    found, begun = [], None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence = re.match(r" *```(.*)$", line)
        if fence and begun is None:
            begun = (number, fence[1].strip(), [])
        elif fence and begun is not None:
            found.append(Block(str(path.relative_to(REPOSITORY)), begun[0], begun[1], "\n".join(begun[2])))
            begun = None
        elif begun is not None:
            begun[2].append(line)
    assert begun is None, f"{path}: the block of line {begun and begun[0]} does not end"
    return found


def prose_of(path: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def commands_of_line(line: str) -> list[str]:
    """The commands of a line of shell: `a && b  # why` are two."""
    return [re.sub(r"\s+#.*$", "", part).strip() for part in line.split("&&") if re.sub(r"(^|\s)#.*$", "", part).strip()]


def commands_in_code(cell: str) -> list[str]:
    """The commands among the code spans of a piece of prose; `.perplexity` after `python -m papers.x.coverage` is one, too."""
    found, before = [], ""
    for span in re.findall(r"`([^`\n]+)`", cell):
        words = span.split()
        if words and words[0] in PROGRAMS and words[0] != ".":
            found += commands_of_line(span)
            before = found[-1]
        elif re.fullmatch(r"\.?[a-z_]+", span) and re.fullmatch(r"python -m papers\.\w+\.\w+", before):
            found.append(f"{before.rsplit('.', 1)[0]}.{span.lstrip('.')}")
    return found


def collect() -> dict[str, list[str]]:
    """Command -> the documents that print it."""
    found: dict[str, list[str]] = {}
    for path in DOCUMENTS:
        commands = [
            command
            for block in blocks_of(path)
            if block.language in SHELLS
            for line in block.text.replace("\\\n", " ").splitlines()
            for command in commands_of_line(line)
        ]
        commands += [command for line in prose_of(path).splitlines() for cell in line.split(" | ") for command in commands_in_code(cell)]
        for command in commands:
            documents = found.setdefault(command, [])
            name = str(path.relative_to(REPOSITORY))
            if name not in documents:
                documents.append(name)
    return found


COMMANDS = collect()
