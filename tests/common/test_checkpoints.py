"""Checkpoints: whole or absent, bound to their key, and a plain word where one is not used."""

import os

import pytest
import torch

from common.checkpoints import Checkpoints
from common.errors import DataError

STATE = {"step": 3, "rate": 0.5, "curve": [{"loss": 1.25}], "weights": {"a": torch.arange(6.0).view(2, 3)}}


def test_what_was_saved_last_is_loaded(tmp_path):
    checkpoints = Checkpoints(tmp_path / "deep" / "checkpoints", "key")
    assert checkpoints.load("training") is None
    checkpoints.save("training", {"step": 1})
    checkpoints.save("training", STATE)
    checkpoints.save("other", {"step": 9})
    loaded = checkpoints.load("training")
    assert loaded is not None
    assert torch.equal(loaded["weights"].pop("a"), STATE["weights"]["a"])
    assert loaded == {**STATE, "weights": {}}
    assert checkpoints.load("other") == {"step": 9}
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["other.pt", "training.pt"]


def test_nothing_is_on_disk_before_the_first_save_and_after_removal(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", "key")
    checkpoints.load("training")
    checkpoints.remove()
    assert not checkpoints.folder.exists()
    checkpoints.save("training", STATE)
    checkpoints.remove()
    assert list(tmp_path.iterdir()) == []
    assert checkpoints.load("training") is None


def test_a_missing_checkpoint_needs_no_word(tmp_path, capsys):
    Checkpoints(tmp_path, "key").load("training")
    assert capsys.readouterr().err == ""


def test_a_checkpoint_of_another_key_is_not_used_and_named(tmp_path, capsys):
    Checkpoints(tmp_path, "old").save("training", STATE)
    assert Checkpoints(tmp_path, "new").load("training") is None
    said = capsys.readouterr().err
    assert f"The checkpoint {tmp_path / 'training.pt'} is not used: other parameters, sources, data" in said
    assert "Starting from the beginning" in said


@pytest.mark.parametrize("damage", [b"", b"no archive", "cut", "list"], ids=str)
def test_a_damaged_checkpoint_is_not_used_and_named(tmp_path, capsys, damage):
    checkpoints = Checkpoints(tmp_path, "key")
    checkpoints.save("training", STATE)
    path = checkpoints.path("training")
    if damage == "list":
        torch.save([1, 2], path)
    else:
        path.write_bytes(path.read_bytes()[:-200] if damage == "cut" else damage)
    assert checkpoints.load("training") is None
    assert f"The checkpoint {path} is not used" in capsys.readouterr().err


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"key": "key", "state": Harmful()}, tmp_path / "training.pt")
    assert Checkpoints(tmp_path, "key").load("training") is None
    assert not (tmp_path / "harm").exists()
    assert "is not used" in capsys.readouterr().err


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, "key")
    checkpoints.save("training", {"step": 1})
    real = torch.save

    def break_off(content, path):
        real(content, path)
        path.write_bytes(path.read_bytes()[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(DataError, match=r"Cannot write .*training\.pt: No space left"):
        checkpoints.save("training", {"step": 2})
    assert checkpoints.load("training") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]
