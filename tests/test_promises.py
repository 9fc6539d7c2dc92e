"""Promises of security, kept by every source file: nothing is unpickled, no archive unpacked blindly, versions are locked."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("common", "papers", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
FORBIDDEN_CALLS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "dill.load", "dill.loads", "pd.read_pickle",
    "pandas.read_pickle", "eval", "exec", "os.system", "os.popen", "shutil.unpack_archive", "yaml.unsafe_load",
    "yaml.full_load",
}  # fmt: skip


def name_of(node):
    """`a.b.c` of a name or attribute, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return ""


def keyword(call, name):
    """The source of a keyword's value, None without it."""
    return next((ast.unparse(entry.value) for entry in call.keywords if entry.arg == name), None)


def problems(code):
    """What a source file does that the suite promises not to."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        if name in FORBIDDEN_CALLS:
            found.append(f"line {node.lineno}: {name}")
        if name == "torch.load" and keyword(node, "weights_only") != "True":
            found.append(f"line {node.lineno}: torch.load without weights_only=True")
        if name in ("np.load", "numpy.load") and keyword(node, "allow_pickle") not in (None, "False"):
            found.append(f"line {node.lineno}: {name} with allow_pickle")
        if name.endswith((".extractall", ".extract")) and not name.startswith("str."):
            found.append(f"line {node.lineno}: {name} unpacks an archive; copy the members that are wanted")
        if name.startswith("subprocess.") and keyword(node, "shell") not in (None, "False"):
            found.append(f"line {node.lineno}: {name} with a shell")
        if keyword(node, "trust_remote_code") not in (None, "False"):
            found.append(f"line {node.lineno}: trust_remote_code")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_file_breaks_a_promise(path):
    assert problems(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import torch\ntorch.load('a.pt')", "line 2: torch.load without weights_only=True"),
        ("torch.load('a.pt', weights_only=False)", "without weights_only"),
        ("np.load('a.npz', allow_pickle=True)", "np.load with allow_pickle"),
        ("pickle.loads(x)", "pickle.loads"),
        ("archive.extractall('here')", "unpacks an archive"),
        ("subprocess.run('ls | wc', shell=True)", "with a shell"),
        ("model(trust_remote_code=True)", "trust_remote_code"),
        ("eval('1')", "eval"),
    ],
)
def test_the_scan_finds_what_it_looks_for(code, words):
    assert any(words in problem for problem in problems(code))


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_dependency_is_locked_by_version_and_hash_and_names_no_address(name):
    text = (ROOT / "envs" / name).read_text()
    requirements = re.split(r"\n(?=\S)", text.strip())
    assert len(requirements) > 50
    for requirement in requirements:
        assert re.match(r"[A-Za-z0-9._\[\]-]+==\S+", requirement), requirement.splitlines()[0]
        assert "--hash=sha256:" in requirement, requirement.splitlines()[0]
    assert "://" not in text


def test_no_tracked_text_names_a_folder_of_the_machine_it_was_written_on():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    home = re.compile(rb"/(?:home|Users)/[a-z][\w.-]*/|/work/(?:main|shared|venv)\b")
    kinds = (".py", ".md", ".yaml", ".smk", ".txt", ".toml", ".csv")
    texts = [ROOT / line for line in listed.stdout.splitlines() if line.endswith(kinds)]
    found = [path for path in texts if path.name != Path(__file__).name and path.is_file() and home.search(path.read_bytes())]
    assert found == []
