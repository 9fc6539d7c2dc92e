"""Everything that is missing is listed at once, before anything is measured."""

import json
import shutil
import sys

import pytest
import yaml

from common import inputs
from common.data.registry import load_registry
from tests.example_records import TEMPLATE


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """A copy of the template; `paper.change(...)` edits its experiment, `change_all` the rest, `paper()` runs the check."""
    folder = tmp_path / "papers" / "_template"
    shutil.copytree(TEMPLATE, folder)
    monkeypatch.setattr(inputs, "REPOSITORY", tmp_path)
    monkeypatch.setattr(inputs, "cuda_devices", lambda: 0)
    monkeypatch.setenv("REATTEND_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("REATTEND_DATA", raising=False)

    class Paper:
        out = tmp_path / "inputs.json"

        def __call__(self, scale="smoke"):
            monkeypatch.setattr(sys, "argv", ["inputs", "_template", "--scale", scale, "--out", str(self.out)])
            inputs.main()

        def change(self, **changes):
            content = yaml.safe_load((folder / "config.yaml").read_text())
            content["experiments"]["softmax_gradient"] |= changes
            (folder / "config.yaml").write_text(yaml.safe_dump(content))

        def change_all(self, **changes):
            content = yaml.safe_load((folder / "config.yaml").read_text()) | changes
            (folder / "config.yaml").write_text(yaml.safe_dump(content))

        def refused(self, capsys, scale="smoke"):
            with pytest.raises(SystemExit) as caught:
                self(scale)
            assert caught.value.code == 2
            assert not self.out.exists()
            return capsys.readouterr().err

    return Paper()


def by_scale(smoke):
    return {"smoke": smoke, "standard": [], "paper": []}


def test_a_paper_that_needs_nothing_is_ready(paper):
    paper()
    assert json.loads(paper.out.read_text()) == {}


def test_what_was_found_is_listed_with_its_digests(paper, monkeypatch, capsys):
    dataset = load_registry().datasets[0]
    paper.change(data=by_scale([dataset.name]))
    fetched = []
    monkeypatch.setattr(inputs, "fetch_needs", fetched.append)
    paper()
    assert fetched == [dataset.name]
    assert json.loads(paper.out.read_text()) == {f"{dataset.name}/{file.name}": file.sha256 for file in dataset.files}
    assert f"softmax_gradient: {dataset.name} verified" in capsys.readouterr().out


def test_everything_missing_is_listed_at_once(paper, tmp_path, monkeypatch, capsys):
    dataset = load_registry().datasets[0]
    path = tmp_path / "data" / dataset.folder / dataset.files[0].name
    path.parent.mkdir(parents=True)
    path.write_text("not what was registered")
    monkeypatch.setenv("REATTEND_DATA", str(tmp_path / "data"))
    paper.change(
        data=by_scale(["no-such-set", f"{dataset.name}/{dataset.files[0].name}", f"{dataset.name}/no-such-file"]),
        device={"smoke": "cuda", "standard": "cpu", "paper": "cpu"},
    )
    said = paper.refused(capsys)
    assert said.startswith("error: Something is missing:")
    for part in ("no-such-set", f"{path} is corrupt", "no-such-file", "needs a CUDA device"):
        assert part in said
    assert len(said.splitlines()) == 5


def test_what_the_user_must_bring_is_said_at_scale_paper(paper, capsys):
    paper.change(bring=["the weights, from their authors"])
    paper("paper")
    assert "softmax_gradient: bring the weights, from their authors" in capsys.readouterr().out
    paper("standard")
    assert "bring" not in capsys.readouterr().out


def test_an_experiment_that_is_not_run_at_a_scale_needs_nothing_there(paper, capsys):
    cuda = {"smoke": "cpu", "standard": "cuda", "paper": "cpu"}
    paper.change(device=cuda, data={"smoke": [], "standard": ["no-such-set"], "paper": []})
    said = paper.refused(capsys, "standard")
    assert "no-such-set" in said
    assert "needs a CUDA device" in said
    paper.change_all(figures={})
    paper.change(scales=["smoke", "paper"])
    paper("standard")
    assert json.loads(paper.out.read_text()) == {}


def test_a_wrong_configuration_stops_before_anything_is_fetched(paper, monkeypatch, capsys):
    monkeypatch.setattr(inputs, "fetch_needs", lambda need: pytest.fail("fetched"))
    paper.change(data=by_scale(["wikitext-2"]), parameters={"d_kk": {"value": 3, "origin": "ours"}})
    said = paper.refused(capsys)
    assert "d_kk: unknown key; did you mean 'd_k'?" in said
    assert "keys: this key is missing" in said


def test_wrong_claims_stop_before_anything_is_fetched(paper, tmp_path, capsys):
    path = tmp_path / "papers" / "_template" / "claims.yaml"
    path.write_text(path.read_text().replace("experiment: softmax_gradient", "experiment: softmax_gradeint"))
    assert "there is no experiment 'softmax_gradeint'; did you mean 'softmax_gradient'?" in paper.refused(capsys)


def test_on_a_cluster_the_gpu_is_not_looked_for_where_the_command_is_typed(paper, monkeypatch, capsys):
    paper.change(device=dict.fromkeys(("smoke", "standard", "paper"), "cuda"))
    monkeypatch.delenv("REATTEND_JOBS", raising=False)
    assert "needs a CUDA device" in paper.refused(capsys)
    monkeypatch.setenv("REATTEND_JOBS", "elsewhere")
    paper()
    assert paper.out.exists()
