"""Promises of security and reliability: nothing is unpickled, no archive unpacked blindly, nothing downloaded without a hash,
versions are locked, and the same command measures the same numbers twice."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.records import read_record

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("common", "papers", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
FORBIDDEN_CALLS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "joblib.load", "dill.load",
    "dill.loads", "marshal.load", "marshal.loads", "shelve.open", "pandas.read_pickle", "eval", "exec", "os.system", "os.popen",
    "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell", "shutil.unpack_archive",
    "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all", "yaml.full_load_all",
}  # fmt: skip
DOWNLOADS = {
    "pooch.retrieve", "pooch.create", "pooch.HTTPDownloader", "urllib.request.urlopen", "urllib.request.urlretrieve",
    "requests.get", "requests.post", "requests.request", "requests.Session", "httpx.get", "httpx.stream", "httpx.Client",
    "http.client.HTTPConnection", "http.client.HTTPSConnection", "torch.hub.load", "torch.hub.load_state_dict_from_url",
    "torch.hub.download_url_to_file", "huggingface_hub.hf_hub_download", "huggingface_hub.snapshot_download",
    "datasets.load_dataset", "gensim.downloader.load", "nltk.download", "sklearn.datasets.fetch_openml",
}  # fmt: skip
# Where downloads are allowed: of registered files, which are compared with their SHA-256, and of a model that the user names.
DOWNLOADERS = {
    "common/data/fetch.py": frozenset({"pooch.HTTPDownloader"}),
    "common/language_models/load.py": frozenset({"huggingface_hub.snapshot_download"}),
}
SAFE_YAML = {"yaml.SafeLoader", "yaml.CSafeLoader"}


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


def imported_names(tree):
    """Name in the file -> where it comes from, such as `loads` -> `pickle.loads` and `np` -> `numpy`."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def problems(code, allowed=frozenset()):
    """What a source file does that the suite promises not to; `allowed` are its downloads."""
    found = []
    tree = ast.parse(code)
    imported = imported_names(tree)
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    safe_yaml = SAFE_YAML | {
        node.name for node in classes if node.bases and {name_of(base) for base in node.bases} <= SAFE_YAML
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        written = name_of(node.func)
        first, dot, rest = written.partition(".")
        name = imported.get(first, first) + dot + rest
        if name in DOWNLOADS - allowed:
            found.append(
                f"line {node.lineno}: {name} downloads; register the file and use common.data.fetch, which checks its hash"
            )
        if name == "yaml.load" and (keyword(node, "Loader") or "") not in safe_yaml:
            found.append(f"line {node.lineno}: yaml.load without a safe loader")
        if name in FORBIDDEN_CALLS:
            found.append(f"line {node.lineno}: {name}")
        if name == "torch.load" and keyword(node, "weights_only") != "True":
            found.append(f"line {node.lineno}: torch.load without weights_only=True")
        if name == "numpy.load" and keyword(node, "allow_pickle") not in (None, "False"):
            found.append(f"line {node.lineno}: {name} with allow_pickle")
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""  # also of what a call returned
        if called in ("extractall", "extract") and not written.endswith("str.extract"):
            found.append(f"line {node.lineno}: {called} unpacks an archive; copy the members that are wanted")
        if name.startswith("subprocess.") and keyword(node, "shell") not in (None, "False"):
            found.append(f"line {node.lineno}: {name} with a shell")
        if keyword(node, "trust_remote_code") not in (None, "False"):
            found.append(f"line {node.lineno}: trust_remote_code")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_file_breaks_a_promise(path):
    allowed = DOWNLOADERS.get(path.relative_to(ROOT).as_posix(), frozenset())
    assert problems(path.read_text(encoding="utf-8"), allowed) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import torch\ntorch.load('a.pt')", "line 2: torch.load without weights_only=True"),
        ("torch.load('a.pt', weights_only=False)", "without weights_only"),
        ("from torch import load\nload('a.pt')", "line 2: torch.load without weights_only=True"),
        ("import numpy as np\nnp.load('a.npz', allow_pickle=True)", "numpy.load with allow_pickle"),
        ("pickle.loads(x)", "pickle.loads"),
        ("import pickle as p\np.load(x)", "line 2: pickle.load"),
        ("from pickle import loads as safe\nsafe(x)", "line 2: pickle.loads"),
        ("import pandas as pd\npd.read_pickle('a')", "pandas.read_pickle"),
        ("yaml.load(x, Loader=yaml.Loader)", "without a safe loader"),
        ("yaml.load(x)", "without a safe loader"),
        ("class Loader(yaml.Loader): pass\nyaml.load(x, Loader=Loader)", "line 2: yaml.load without a safe loader"),
        ("from zipfile import ZipFile\nZipFile('a').extract('b')", "unpacks an archive"),
        ("import urllib.request\nurllib.request.urlretrieve('https://a')", "downloads; register the file"),
        ("from urllib.request import urlopen\nurlopen('https://a')", "line 2: urllib.request.urlopen downloads"),
        ("import pooch\npooch.retrieve('https://a', known_hash=None)", "pooch.retrieve downloads"),
        ("from huggingface_hub import hf_hub_download\nhf_hub_download('a', 'b')", "hf_hub_download downloads"),
        ("archive.extractall('here')", "unpacks an archive"),
        ("subprocess.run('ls | wc', shell=True)", "with a shell"),
        ("model(trust_remote_code=True)", "trust_remote_code"),
        ("eval('1')", "eval"),
    ],
)
def test_the_scan_finds_what_it_looks_for(code, words):
    assert any(words in problem for problem in problems(code))


def lock_problems(text):
    """What is wrong with a file of locked requirements."""
    requirements = [entry for entry in re.split(r"\n(?=\S)", text.strip()) if entry]
    found = [] if len(requirements) > 50 else [f"only {len(requirements)} requirements"]
    for requirement in requirements:
        line = requirement.splitlines()[0]
        if not re.match(r"[A-Za-z0-9._\[\]-]+==\S+", requirement):
            found.append(f"{line}: no exact version")
        if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", requirement):
            found.append(f"{line}: no hash")
    if "://" in text:
        found.append("an address")
    return found


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_dependency_is_locked_by_version_and_hash_and_names_no_address(name):
    assert lock_problems((ROOT / "envs" / name).read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (r"(?m)^torch==\S+", "torch>=2", "torch>=2 .*: no exact version"),
        (r"(?m)^(numpy==\S+.*)(\n +--hash.*)+", r"\1", "numpy==.*: no hash"),
        (r"sha256:[0-9a-f]{64}", "sha256:0", "no hash"),
        (r"\A", "--index-url https://example.org\n", "an address"),
        (r"\A", "package @ https://example.org/package.whl\n", "no exact version"),
        (r"(?s)\Z.*|(?<=\n)colorama.*", "", "only"),
    ],
)
def test_the_check_of_the_lock_finds_what_it_looks_for(old, new, words):
    text = re.sub(old, new, (ROOT / "envs" / "requirements.txt").read_text())
    assert any(re.search(words, problem) for problem in lock_problems(text))


def unlocked_installs(text):
    """Lines that install packages without hashes."""
    return [line for line in text.splitlines() if re.search(r"\bpip install\b", line) and "--require-hashes" not in line]


def test_the_continuous_integration_installs_by_hash_and_runs_these_tests():
    text = (ROOT / ".ci" / "run").read_text()
    assert "pip install" in text
    assert unlocked_installs(text) == []
    assert re.search(r"(?m)^set -euo pipefail$", text)  # a failing step ends it
    assert re.search(r"(?m)^pytest\b(?!.*(?:-k|-m|--ignore|--deselect| tests))", text)
    assert unlocked_installs("  pip install -q torch") == ["  pip install -q torch"]


def test_two_runs_in_different_processes_measure_the_same_numbers(tmp_path):
    # A training of a pointer network: random weights, examples, orders. Python's hashes differ, as between any two processes.
    rows = []
    for run in ("1", "2"):
        command = [
            "-m",
            "papers.pointer_networks.hulls",
            "--scale",
            "smoke",
            "--batch",
            "training=pointer-5",
            "--out",
            tmp_path / run,
        ]
        environment = os.environ | {"PYTHONHASHSEED": run, "REATTEND_TRACKING": "off"}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        record = read_record(tmp_path / run / "hulls" / "training=pointer-5" / "record.json")
        rows.append([json.dumps(row.model_dump()) for row in record.rows if not row.timing])
        rows[-1].append(record.results_sha256)  # arrays and artifacts too
    assert rows[0] == rows[1]
    assert len(rows[0]) > 10


def test_no_tracked_text_names_a_folder_of_the_machine_it_was_written_on():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    home = re.compile(rb"/(?:home|Users)/[a-z][\w.-]*/|/work/(?:main|shared|venv)\b")
    kinds = (".py", ".md", ".yaml", ".smk", ".txt", ".toml", ".csv")
    texts = [ROOT / line for line in listed.stdout.splitlines() if line.endswith(kinds)]
    found = [path for path in texts if path.name != Path(__file__).name and path.is_file() and home.search(path.read_bytes())]
    assert found == []
