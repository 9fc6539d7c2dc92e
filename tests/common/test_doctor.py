import sys

import pytest

from common import doctor
from common.data.registry import load_registry
from common.workflow import papers


@pytest.fixture
def report(monkeypatch, capsys, tmp_path):
    """What the doctor says on a machine without data, as one line of words."""
    monkeypatch.setenv("REATTEND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "400")

    def call(data=None):
        monkeypatch.setenv("REATTEND_DATA", str(data)) if data else monkeypatch.delenv("REATTEND_DATA", raising=False)
        monkeypatch.setattr(sys, "argv", ["doctor"])
        doctor.main()
        return " ".join(capsys.readouterr().out.split())

    return call


def test_it_names_the_machine_every_paper_and_all_missing_data_with_the_remedy(report):
    said = report()
    assert "python" in said
    assert "disk" in said
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in said
    for name in papers():
        assert f"│ {name} │ valid" in said
    for entry in load_registry().datasets:
        assert f"│ {entry.name} │" in said
    assert "│ missing │ will come from" in said


def test_addresses_are_wrapped_and_never_cut(report, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    said = report()
    assert "https://" in said
    assert "…" not in said


def test_a_mirror_that_is_no_folder_is_named(report, tmp_path):
    said = report(tmp_path / "nowhere")
    assert "this folder does not exist" in said
    assert "is not a folder" in said


def test_a_corrupt_file_is_named(report, tmp_path):
    entry = next(entry for entry in load_registry().datasets if entry.files)
    path = tmp_path / "data" / entry.folder / entry.files[0].name
    path.parent.mkdir(parents=True)
    path.write_text("not what was registered")
    said = report(tmp_path / "data")
    assert f"{entry.files[0].name} │ corrupt │ {path} is corrupt" in said


def test_a_wrong_configuration_is_shown_as_it_is_written(report, monkeypatch):
    def refuse(path):
        raise doctor.ReattendError(f"{path.name}: cells.text = [red]: [bold] is no setting")

    monkeypatch.setattr(doctor, "read_paper_config", refuse)
    assert "config.yaml: cells.text = [red]: [bold] is no setting" in report()
