"""Where numbers come from: commit, sources, versions, device."""

import ast
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

from common.records import Device

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "triton", "transformers", "torchvision", "numpy", "scipy", "gensim", "snakemake", "mlflow-skinny")


def _output_of(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def commit() -> tuple[str, bool]:
    """The commit of this checkout and whether files differ from it.

    A tree without git (an archive, a container) gets its commit from the environment variable REATTEND_COMMIT, set by whoever
    unpacked it; without either the commit is `unknown`, and counts as changed.
    """
    root, head = _output_of("git", "rev-parse", "--show-toplevel"), _output_of("git", "rev-parse", "HEAD")
    if root and head and Path(root).resolve() == REPOSITORY:  # not another project's repository around this tree
        return head, bool(_output_of("git", "status", "--porcelain", "--untracked-files=no"))
    return os.environ.get("REATTEND_COMMIT", "unknown"), "REATTEND_COMMIT" not in os.environ


@cache
def _imported_modules(path: Path) -> frozenset[str]:
    names: set[str] = set()
    package = path.relative_to(REPOSITORY).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(name for name in names if name.split(".")[0] in ("common", "papers", "benchmarks"))


@cache
def _files_of(module: str) -> tuple[Path, ...]:
    """The module's file and the `__init__` of each package above it, as far as they are in this repository."""
    parts = module.split(".")
    candidates = [REPOSITORY.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
    return tuple(path for path in [*candidates, REPOSITORY.joinpath(*parts).with_suffix(".py")] if path.exists())


@cache
def source_digest(module: str) -> str:
    """SHA-256 over a module and every module of this repository that it imports, directly or not.

    Args:
        module: dotted name, for example `papers.pbs_attn.coverage`.
    """
    waiting, seen = list(_files_of(module)), set[Path]()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in _imported_modules(path):
            waiting += _files_of(name)
    digest = hashlib.sha256()
    for path in sorted(seen):
        digest.update(str(path.relative_to(REPOSITORY)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Python and the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def device(kind: str) -> Device:
    """Describe the machine that computes.

    Args:
        kind: `cpu` or `cuda`.
    """
    import torch

    if kind == "cuda":
        properties = torch.cuda.get_device_properties(0)
        driver = _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        return Device(
            name=properties.name,
            kind="cuda",
            count=torch.cuda.device_count(),
            driver=driver.splitlines()[0] if driver else None,
            cuda=torch.version.cuda,
            capability=f"{properties.major}.{properties.minor}",
            processor=_processor(),
        )
    return Device(name=_processor(), kind="cpu", count=os.cpu_count() or 1, processor=_processor())
