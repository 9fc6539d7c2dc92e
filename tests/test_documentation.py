"""Every command that the documentation prints works as printed: it is run here, or the test that runs it is named.

`WAYS` says for every command how it is executed. A command that nobody classified is a failure, and so is a way that no command
needs any more.
"""

import ast
import functools
import io
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import benchmarks.__main__ as benchmark_command
from benchmarks.registry import BENCHMARKS
from common.configuration import batches_of, read_paper_config
from common.errors import MissingHardwareError
from common.provenance import REPOSITORY
from common.workflow import papers

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
    code = re.sub(r"(^|\s)#.*$", "", line)
    return [part.strip() for part in code.split("&&") if part.strip()]


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
        commands += [
            command for line in prose_of(path).splitlines() for cell in line.split(" | ") for command in commands_in_code(cell)
        ]
        for command in commands:
            documents = found.setdefault(command, [])
            name = str(path.relative_to(REPOSITORY))
            if name not in documents:
                documents.append(name)
    return found


COMMANDS = collect()


def in_process(command: str, monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    """Exit status of `python -m module ...` run in this process, which has imported the libraries already."""
    words = shlex.split(command) + list(more)
    assert words[:2] == ["python", "-m"]
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", [words[2], *words[3:]])
    try:
        with warnings.catch_warnings():  # the module may be imported already
            warnings.simplefilter("ignore", RuntimeWarning)
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@dataclass
class Tools:
    """What a way of executing a command may use."""

    monkeypatch: pytest.MonkeyPatch
    folder: Path
    planned: Callable[[], str]
    targets: Callable[[], list[str]]


def experiment_starts(command: str, tools: Tools) -> None:
    """The module answers as a command line; its experiment, and its batch where one is named, exist."""
    assert in_process(command, tools.monkeypatch, "--help") == 0
    _, _, module, *options = command.split()
    _, paper, experiment = module.split(".")
    config = read_paper_config(REPOSITORY / "papers" / paper / "config.yaml")
    assert experiment in config.experiments, f"{paper} has no experiment {experiment}"
    given = dict(zip(options[::2], options[1::2], strict=True))
    if "--batch" in given:
        assert given["--scale"] == "standard"
        assert given["--batch"] in batches_of(config, experiment, "standard")


def experiment_runs(command: str, tools: Tools) -> None:
    """The experiment measures, and its records are there."""
    assert in_process(command, tools.monkeypatch, "--out", str(tools.folder)) == 0
    assert list(tools.folder.glob("*/*/record.json"))


def benchmark_is_understood(command: str, tools: Tools) -> None:
    """All arguments are understood; then the command asks for a GPU. The run on a GPU is in `tests/benchmarks`."""

    def refuse() -> None:
        raise MissingHardwareError("no GPU for this test")

    tools.monkeypatch.setattr(benchmark_command, "require_cuda", refuse)
    assert benchmark_command.main(command.split()[3:]) == 2
    # argparse leaves with the same number, but by an exception: what is not understood does not come here.


def any_benchmark_is_understood(command: str, tools: Tools) -> None:
    """The same for `<kernel>`: of each of them."""
    for name in BENCHMARKS:
        small = {"kernel_profile": " --cases lightning_attention:2048"}.get(name, "")
        benchmark_is_understood(command.replace("<kernel>", name).replace("<hardware>", "h") + small, tools)


def target_is_planned(command: str, tools: Tools) -> None:
    """Snakemake plans the target at scale standard; `snakemake` alone is all papers."""
    target = ([word for word in command.split()[1:] if not word.startswith("-")] or ["all"])[0]
    names = [f"papers/{paper}/all" for paper in papers()] if "<name>" in target else [target]
    for name in names:
        assert re.search(rf"^ *{re.escape(name)} +1$", tools.planned(), flags=re.MULTILINE), f"{name} is not planned"


def targets_are_listed(command: str, tools: Tools) -> None:
    """The command itself ran, and lists every paper and the targets of the suite."""
    assert command == "snakemake --list-target-rules"
    assert {"all", "doctor", "report", "mlflow_import", *(f"papers/{name}/all" for name in papers())} <= set(tools.targets())


def options_are_taken(command: str, tools: Tools) -> None:
    """Snakemake plans with the options as they are printed, for rules that it has. `test_slurm.py` shows that they matter."""
    _, *arguments = shlex.split(command)
    arguments.insert(arguments.index("--config") + 1, f"results={tools.folder / 'results'}")
    output = snakemake(*arguments, "--dry-run")
    for rule in re.findall(r"(papers/\w+/\w+):\w+=", command):
        assert re.search(rf"^{rule} +\d+$", output, flags=re.MULTILINE), f"there is no rule {rule}"


def lock_is_made(command: str, tools: Tools) -> None:
    """The lock of `pyproject.toml` is the committed one: the same versions of the same packages."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed: it makes the locks and is no part of the environment")
    (tools.folder / "envs").mkdir()
    for name in ("pyproject.toml", "envs/requirements.txt", "envs/requirements-dev.txt"):
        shutil.copy2(REPOSITORY / name, tools.folder / name)
    done = subprocess.run(
        shlex.split(command), cwd=tools.folder, capture_output=True, text=True, check=False, timeout=300
    )  # uv keeps the versions of a lock that is there
    if done.returncode and re.search(r"error sending request|Failed to fetch|dns error|Could not connect", done.stderr):
        pytest.skip("no package index answers: uv asks it for what a package needs")
    assert done.returncode == 0, done.stderr
    name = command.split()[-1]
    assert pins((tools.folder / name).read_text()) == pins((REPOSITORY / name).read_text())


def pins(lock: str) -> list[str]:
    """`name==version` of every package of a lock."""
    return re.findall(r"^[\w.-]+==[^\s;]+", lock, flags=re.MULTILINE)


def plugin_is_the_locked_one(command: str, tools: Tools) -> None:
    """The command asks for what the environment of the tests holds: pip finds it there and needs no index."""
    del tools
    words = command.split()
    done = subprocess.run([sys.executable, "-m", *words, "--no-index", "-q"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    assert set(words[2:]) <= set(pins((REPOSITORY / "envs/requirements-dev.txt").read_text()))


def package_is_locked(command: str, tools: Tools) -> None:
    """The locked development environment has the package."""
    del tools
    names = {pin.split("==")[0] for pin in pins((REPOSITORY / "envs/requirements-dev.txt").read_text())}
    assert set(command.split()[2:]) <= names


def any_experiment_starts(command: str, tools: Tools) -> None:
    """The same for `papers.<name>.<experiment>`, of the template."""
    experiment_starts(command.replace("<name>.<experiment>", "_template.softmax_gradient"), tools)


def torchrun_module_starts(command: str, tools: Tools) -> None:
    """The arguments are understood and the configuration has them; without torchrun's processes the command says so."""
    _, _, _, _, module, *options = command.split()
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
        tools.monkeypatch.delenv(name, raising=False)
    tools.monkeypatch.setattr(sys, "stderr", said := io.StringIO())
    options[options.index("folder")] = str(tools.folder)
    assert in_process(f"python -m {module} {shlex.join(options)}", tools.monkeypatch) == 2
    assert "LOCAL_RANK is not set: start this with `torchrun" in said.getvalue()


def module_starts(command: str, tools: Tools) -> None:
    """The module answers as a command line."""
    assert in_process(command, tools.monkeypatch, "--help") == 0


@dataclass(frozen=True)
class Way:
    """How the commands that match a pattern are executed.

    Attributes:
        pattern: of whole commands.
        run: executes the command here, as far as it can be.
        ci: words of a line of `.ci/run`, which executes it.
        tests: `file::test` of the tests that execute it, or what it executes.
        reason: why it is not executed here as it is printed.
    """

    pattern: str
    run: Callable[[str, Tools], None] | None = None
    ci: str = ""
    tests: tuple[str, ...] = ()
    reason: str = ""


TARGETS = "tests/workflow/test_targets.py::test_one_target_makes_everything_and_says_where_it_lies"
GENERIC = "tests/workflow/test_slurm.py::test_another_scheduler_is_reached_by_its_submit_command"
SLURM = "tests/workflow/test_slurm.py::test_a_paper_runs_through_slurm"
SERVER = "tests/common/test_mlflow_server.py::"
EXPERIMENT = r"python -m papers\.\w+\.\w+"
WAYS = (
    # The environment, and what is checked before a commit
    Way(r"python3 -m venv \.venv", ci='python3 -m venv "$work/venv"'),
    Way(r"\. \.venv/bin/activate", ci='. "$work/venv/bin/activate"'),
    Way(
        r"pip install (-q )?--require-hashes -r envs/requirements\.txt",
        ci="pip install -q --require-hashes -r envs/requirements.txt",
    ),
    Way(
        r"pip install (-q )?--require-hashes -r envs/requirements-dev\.txt",
        ci="pip install -q --require-hashes -r envs/requirements-dev.txt",
    ),
    Way(r"pip install snakemake-executor-plugin-\S+", run=plugin_is_the_locked_one),
    Way(
        r"pip download",
        tests=("tests/common/data/test_fetch.py::test_wheel_by_pip",),
        reason="what a loader does, no command to type",
    ),
    Way(r"uv pip compile .*", run=lock_is_made),
    Way(r'pytest( -m "not workflow")?', ci="pytest -n 2", reason="it is running; all tests hold those without workflow"),
    Way(r"ruff check \.", ci="ruff check ."),
    Way(r"ruff format --check \.", ci="ruff format --check ."),
    Way(r"basedpyright", ci="(basedpyright &&"),
    Way(r"snakefmt --check .*", ci="snakefmt --check Snakefile common/paper.smk papers/*/Snakefile"),
    # Targets of Snakemake
    Way(r"snakemake", run=target_is_planned, ci='snakemake "${targets[@]}"', reason="all papers take hours"),
    Way(r"snakemake papers/[\w<>]+/all( --config scale=\w+)?", run=target_is_planned, tests=(TARGETS,), reason="takes minutes"),
    Way(
        r"snakemake papers/\w+/\w+ --profile profiles/slurm.*", run=target_is_planned, tests=(SLURM,), reason="needs a cluster"
    ),
    Way(r"snakemake doctor", run=target_is_planned, tests=("tests/common/test_doctor.py::report",), reason="takes minutes"),
    Way(r"snakemake report", run=target_is_planned, ci="python -m common.site --out", reason="writes into the checkout"),
    Way(
        r"snakemake mlflow_import",
        run=target_is_planned,
        tests=("tests/common/test_publish.py::test_recorded_results_become_mlflow_runs",),
        reason="takes minutes",
    ),
    Way(r"snakemake --list-target-rules", run=targets_are_listed),
    Way(
        r"snakemake --unlock",
        tests=("tests/workflow/test_interruption.py::test_killed_jobs_and_a_killed_snakemake_lose_nothing",),
        reason="needs a lock that somebody left",
    ),
    Way(
        r"snakemake papers/\w+/all --config scale=standard --(resources gpu=\d+|set-resources .*)",
        run=options_are_taken,
        reason="takes hours",
    ),
    Way(r"snakemake papers/\w+/all --profile profiles/generic .*", tests=(GENERIC,), reason="needs Slurm"),
    Way(r"snakemake --lint", tests=("tests/workflow/test_targets.py::test_lint_is_quiet_and_the_format_is_snakefmts",)),
    # Modules
    Way(EXPERIMENT + " --scale smoke", run=experiment_runs),
    Way(EXPERIMENT + "( --scale standard --batch [^ ]+)?", run=experiment_starts, reason="takes a GPU, or minutes"),
    Way(
        r"torchrun --nproc-per-node 4 -m papers\..*",
        run=torchrun_module_starts,
        tests=(
            "tests/common/training/test_data_parallel.py::run_under_torchrun",
            "tests/papers/lightning_attention/test_experiments.py::train_on_gpus",
        ),
        reason="needs four GPUs",
    ),
    Way(r"torchrun --nproc-per-node 4 -m \.\.\.", tests=("tests/common/training/test_data_parallel.py::run_under_torchrun",)),
    Way(
        r"python -m benchmarks <kernel> --out .*",
        run=any_benchmark_is_understood,
        tests=("tests/benchmarks/test_benchmarks.py::SMALL",),
        reason="needs a GPU",
    ),
    Way(
        r"python -m benchmarks [a-z].*",
        run=benchmark_is_understood,
        tests=("tests/benchmarks/test_benchmarks.py::SMALL",),
        reason="needs a GPU",
    ),
    Way(
        r"python -m common\.publish record <name>",
        tests=("tests/common/test_publish.py::test_records_are_copied_byte_for_byte_and_nothing_else",),
        reason="copies what was measured at scale standard",
    ),
    Way(r"python -m common\.publish tables( --check)?", ci="python -m common.publish tables --check"),
    Way(r"python -m common\.publish benchmarks", ci="python -m common.publish benchmarks --check"),
    Way(EXPERIMENT.replace(r"\w+\.\w+", "<name>.<experiment>"), run=any_experiment_starts, reason="takes a GPU, or minutes"),
    # A server of MLflow
    Way(r"pip install psycopg2-binary", run=package_is_locked),
    Way(r"create(user|db) .*", tests=(SERVER + "database",), reason="needs PostgreSQL"),
    Way(r"(export MLFLOW_\w+=.*|mlflow server .*)", tests=(SERVER + "server",), reason="needs PostgreSQL"),
    Way(
        r"mlflow db upgrade .*",
        tests=(SERVER + "test_the_documented_upgrade_keeps_what_is_there",),
        reason="needs PostgreSQL",
    ),
    Way(
        r"python -m common\.mlflow_import --results results",
        run=module_starts,
        tests=("tests/common/test_parent_runs.py::import_results",),
        reason="copies what was measured",
    ),
    Way(r"mlflow ui .*", tests=("tests/test_documentation.py::test_the_pages_of_mlflow_open",)),
)
# `python -m papers.x.y` that is no experiment
OTHERS = {"python -m papers.gaam.prepare": Way("", run=module_starts, reason="fetches hundreds of megabytes of third parties")}


def way_of(command: str) -> Way:
    """How a command is executed."""
    if command in OTHERS:
        return OTHERS[command]
    ways = [way for way in WAYS if re.fullmatch(way.pattern, command)]
    assert ways, (
        f"{', '.join(COMMANDS[command])} prints `{command}`, and no test executes it: add a way to tests/test_documentation.py"
    )
    assert len(ways) == 1, f"`{command}` has {len(ways)} ways in tests/test_documentation.py"
    return ways[0]


def has(file: Path, name: str) -> bool:
    """Whether a test file defines or uses a name."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return any(name in (getattr(node, "name", None), getattr(node, "id", None)) for node in nodes)


def snakemake(*arguments: str) -> str:
    """Output of Snakemake in this checkout, of a call that makes nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Snakemake's plan for every target that the documentation names, at scale standard; made once."""
    results = tmp_path_factory.mktemp("plan") / "results"
    every = [f"papers/{name}/all" for name in papers()]

    @functools.cache
    def plan() -> str:
        return snakemake(
            "all", "doctor", "report", "mlflow_import", *every, "--dry-run", "--config", "scale=standard", f"results={results}"
        )  # fmt: skip

    return plan


@pytest.fixture(scope="module")
def targets():
    """What `snakemake --list-target-rules` prints, line by line; asked once."""
    return functools.cache(lambda: snakemake("--list-target-rules").splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_executed(command, monkeypatch, tmp_path, planned, targets):
    way = way_of(command)
    assert way.run or way.ci or way.tests, f"nothing executes `{command}`"
    if way.ci:
        assert way.ci in CONTINUOUS_INTEGRATION, f".ci/run does not hold {way.ci!r}, which executes `{command}`"
    for test in way.tests:
        file, name = test.split("::")
        assert has(REPOSITORY / file, name), f"{test}, which executes `{command}`, does not exist"
    if way.run:
        way.run(command, Tools(monkeypatch, tmp_path, planned, targets))


def test_no_way_is_left_over():
    unused = [way.pattern for way in WAYS if not any(re.fullmatch(way.pattern, command) for command in COMMANDS)]
    assert not unused
    assert set(OTHERS) <= set(COMMANDS)


def test_a_command_that_nobody_classified_is_named():
    COMMANDS["snakemake --never-heard-of"] = ["README.md"]
    try:
        with pytest.raises(AssertionError, match=r"README\.md prints `snakemake --never-heard-of`, and no test executes it"):
            way_of("snakemake --never-heard-of")
    finally:
        del COMMANDS["snakemake --never-heard-of"]


def test_commands_are_found_in_lines_and_in_tables():
    assert commands_of_line('a -b "c" && d   # why && not') == ['a -b "c"', "d"]
    printed = "type `pip install x`, then `snakemake y --z`; `common/` holds it"
    assert commands_in_code(printed) == ["pip install x", "snakemake y --z"]
    shortened = "`python -m papers.p.one`, `.two`, `three`"
    assert commands_in_code(shortened) == [f"python -m papers.p.{name}" for name in ("one", "two", "three")]


def test_every_paper_is_run_by_the_continuous_integration():
    """Which is what stands behind `snakemake papers/<name>/all`: `.ci/run`'s own lines name the targets."""
    lines = re.search(r"^targets=\(\)\n.*?^done$", CONTINUOUS_INTEGRATION, re.MULTILINE | re.DOTALL)
    assert lines
    found = subprocess.run(
        ["bash", "-euc", lines[0] + '\nprintf "%s\\n" "${targets[@]}"'],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    assert sorted(found.stdout.split()) == sorted(f"papers/{name}/all" for name in papers() if name != "_template")
    assert re.search(
        r'^REATTEND_TRACKING=off snakemake "\$\{targets\[@\]\}" --config scale=smoke', CONTINUOUS_INTEGRATION, re.MULTILINE
    )
    assert "snakemake papers/_template/all --config scale=smoke" in CONTINUOUS_INTEGRATION


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.workflow
def test_the_pages_of_mlflow_open(tmp_path):
    (command,) = (command for command in COMMANDS if command.startswith("mlflow ui"))
    port = free_port()
    lighter = os.environ | {"MLFLOW_WORKERS": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # four processes otherwise
    with (tmp_path / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *command.split(), "--port", str(port)],
            cwd=tmp_path, env=lighter, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 300  # it starts several processes, which import for half a minute
        while True:
            assert server.poll() is None, (tmp_path / "log.txt").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log.txt").read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                    page = answer.read().decode()
                break
            except OSError:
                time.sleep(0.5)
        assert "<title>MLflow</title>" in page
        assert (tmp_path / "mlflow.db").exists()
    finally:
        below = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
        server.terminate()
        server.wait(timeout=60)
        for process in below:
            if process.is_running():
                process.kill()
