"""Where numbers come from: digests of sources, the commit, versions, the device."""

import platform
import shutil
import subprocess

import pytest
import torch

from common import provenance


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A small repository: papers/p/a.py imports papers/p/b.py by name, b.py imports c.py relatively and common/x.py."""
    files = {
        "papers/__init__.py": "",
        "papers/p/__init__.py": '"""A paper."""\n',
        "papers/p/a.py": "import json\nfrom papers.p.b import one\n",
        "papers/p/b.py": "from .c import three\nfrom . import d\ndef one():\n    from common import x\n",
        "papers/p/c.py": "three = 3\n",
        "papers/p/d.py": "four = 4\n",
        "papers/p/alone.py": "five = 5\n",
        "common/__init__.py": "",
        "common/x.py": "import papers.p.a\n",  # a cycle
        "json.py": "",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path.resolve())
    forget()
    yield tmp_path
    forget()


def forget():
    """Let the sources be read anew: a process takes them for unchanged."""
    for function in (provenance.source_digest, provenance._imported_modules, provenance._files_of, provenance.commit):
        function.cache_clear()


def digest(module="papers.p.a"):
    forget()
    return provenance.source_digest(module)


@pytest.mark.parametrize(
    "name", ["papers/p/__init__.py", *(f"papers/p/{x}.py" for x in "abcd"), "common/x.py", "common/__init__.py"]
)
def test_the_digest_changes_with_every_imported_module(repository, name):
    before = digest()
    path = repository / name
    path.write_text(path.read_text() + "# changed\n")
    assert digest() != before


@pytest.mark.parametrize("name", ["papers/p/alone.py", "json.py"])
def test_the_digest_ignores_what_is_not_imported(repository, name):
    before = digest()
    (repository / name).write_text("changed = True\n")
    assert digest() == before


def test_the_digest_does_not_depend_on_where_the_checkout_lies(repository, tmp_path_factory, monkeypatch):
    before = digest()
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "checkout"
    shutil.copytree(repository, elsewhere)
    monkeypatch.setattr(provenance, "REPOSITORY", elsewhere)
    assert digest() == before


def git(folder, *arguments):
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def commit():
    provenance.commit.cache_clear()
    return provenance.commit()


def test_the_commit_and_whether_files_differ_from_it(repository):
    git(repository, "init")
    git(repository, "add", ".")
    git(repository, "commit", "-m", "first")
    head, dirty = commit()
    assert len(head) == 40
    assert not dirty
    (repository / "common" / "x.py").write_text("changed = True\n")
    assert commit() == (head, True)


@pytest.mark.parametrize("inside_another", [False, True])
def test_without_git_the_commit_is_what_the_environment_says(repository, monkeypatch, inside_another):
    if inside_another:  # unpacked below another project's repository
        git(repository, "init")
        git(repository, "add", "json.py")
        git(repository, "commit", "-m", "another project")
        monkeypatch.setattr(provenance, "REPOSITORY", repository / "papers")
    monkeypatch.delenv("REATTEND_COMMIT", raising=False)
    assert commit() == ("unknown", True)
    monkeypatch.setenv("REATTEND_COMMIT", "a" * 40)
    assert commit() == ("a" * 40, False)


def test_versions_name_python_and_what_numbers_depend_on():
    found = provenance.versions()
    assert found["python"] == platform.python_version()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"numpy", "transformers", "triton"} <= set(found)


def test_the_cpu_is_described():
    device = provenance.device("cpu")
    assert device.kind == "cpu"
    assert device.name
    assert device.count >= 1
