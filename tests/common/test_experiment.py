"""What stands around a measurement: which records are kept, which are measured again, and what a user is told."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml

from common import experiment, provenance
from common.checkpoints import Checkpoints
from common.configuration import cells_of, read_paper_config
from common.data import needs
from common.errors import DataError, MissingHardwareError
from common.experiment import Measurement, measure, run_batch
from common.records import read_record
from papers._template import softmax_gradient
from papers._template.softmax_gradient import Settings
from tests.example_records import TEMPLATE, measure_template


@pytest.fixture
def entry():
    return read_paper_config(TEMPLATE / "config.yaml").experiments["softmax_gradient"]


@pytest.fixture
def cells():
    return cells_of(read_paper_config(TEMPLATE / "config.yaml"), "softmax_gradient", "smoke")[:2]


class CountingRun:
    """Stands for an experiment's `run`: counts its calls and measures the seed."""

    def __init__(self):
        self.seeds = []

    def __call__(self, settings, context):
        self.seeds.append(settings.seed)
        measurement = Measurement()
        measurement.add("seed", settings.seed)
        return measurement


def test_current_records_are_kept_and_the_rest_is_measured(tmp_path, cells, entry, capsys):
    run = CountingRun()
    run_batch(run, Settings, cells[:1], entry, tmp_path, again=False)
    records = run_batch(run, Settings, cells, entry, tmp_path, again=False)
    assert run.seeds == [0, 1]
    assert [record.rows[0].value for record in records] == [0, 1]
    said = capsys.readouterr().err
    assert "1/2 seed=0 (kept: nothing it depends on changed)" in said
    assert "2/2 seed=1 (measured)" in said


def test_again_measures_everything(tmp_path, cells, entry):
    run = CountingRun()
    for again in (False, True):
        run_batch(run, Settings, cells, entry, tmp_path, again=again)
    assert run.seeds == [0, 1, 0, 1]


def changed_parameter(cells, entry, monkeypatch):
    return [cell.model_copy(update={"parameters": {**cell.parameters, "keys": 8}}) for cell in cells], entry


def changed_source(cells, entry, monkeypatch):
    monkeypatch.setattr(provenance, "source_digest", lambda module: "changed")
    return cells, entry


def changed_data(cells, entry, monkeypatch):
    monkeypatch.setattr(needs, "digests_of_needs", lambda names: {"set/file": "3" * 64})
    return cells, entry


@pytest.mark.parametrize("change", [changed_parameter, changed_source, changed_data])
def test_records_are_measured_again_when_what_they_depend_on_changes(tmp_path, cells, entry, monkeypatch, change):
    run = CountingRun()
    run_batch(run, Settings, cells, entry, tmp_path, again=False)
    cells, entry = change(cells, entry, monkeypatch)
    for _ in range(2):  # once measured, the new ones are current
        run_batch(run, Settings, cells, entry, tmp_path, again=False)
    assert run.seeds == [0, 1, 0, 1]


def test_a_record_of_another_kind_of_device_is_not_current(tmp_path, cells, entry, monkeypatch):
    run_batch(CountingRun(), Settings, cells, entry, tmp_path, again=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_gpu = entry.model_copy(update={"device": entry.device.model_copy(update={"smoke": "cuda"})})
    with pytest.raises(MissingHardwareError):
        run_batch(CountingRun(), Settings, cells, on_gpu, tmp_path, again=False)


@pytest.mark.parametrize("damage", ["", "{}", "cut"])
def test_a_damaged_record_is_measured_again(tmp_path, cells, entry, damage):
    run = CountingRun()
    run_batch(run, Settings, cells, entry, tmp_path, again=False)
    path = tmp_path / "softmax_gradient" / "seed=0" / "record.json"
    path.write_text(path.read_text()[:-20] if damage == "cut" else damage)
    run_batch(run, Settings, cells, entry, tmp_path, again=False)
    assert run.seeds == [0, 1, 0]
    assert read_record(path).rows[0].value == 0


def test_a_record_says_where_it_comes_from(tmp_path):
    record = measure_template(tmp_path, "smoke")[3]
    p = record.provenance
    assert record.identity == "_template/softmax_gradient/seed=3"
    assert record.axes == {"seed": 3}
    assert p.command == "python -m papers._template.softmax_gradient --scale smoke"
    assert p.source_sha256 == provenance.source_digest("papers._template.softmax_gradient")
    assert (p.device.kind, p.data) == ("cpu", {})
    assert p.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert p.wall_seconds >= 0
    assert p.peak_memory_bytes > 50e6


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    first, second = ([r.results_sha256 for r in measure_template(tmp_path / name, "smoke")] for name in "ab")
    assert first == second
    assert len(set(first)) == 5


class InterruptedRun(CountingRun):
    """Counts in a checkpoint; its first call is interrupted after two counts."""

    def __call__(self, settings, context):
        state = context.checkpoints.load("count") or {"count": 0}
        self.folder, self.found = context.checkpoints.folder, state["count"]
        for count in range(state["count"] + 1, 4):
            context.checkpoints.save("count", {"count": count})
            if count == 2 and not self.seeds:
                self.seeds.append(settings.seed)
                raise KeyboardInterrupt
        return super().__call__(settings, context)


def test_checkpoints_outlive_an_interruption_and_end_with_the_record(tmp_path, cells, entry):
    run = InterruptedRun()
    with pytest.raises(KeyboardInterrupt):
        run_batch(run, Settings, cells[:1], entry, tmp_path, again=False)
    assert (run.found, run.folder.exists()) == (0, True)
    assert run.folder.parent == tmp_path / "softmax_gradient" / "seed=0"
    run_batch(run, Settings, cells[:1], entry, tmp_path, again=False)
    assert (run.found, run.folder.exists()) == (2, False)
    assert (run.folder.parent / "record.json").exists()


@pytest.mark.parametrize("change", [changed_parameter, changed_source, changed_data])
def test_checkpoints_made_from_something_else_are_not_used(tmp_path, cells, entry, monkeypatch, capsys, change):
    run = InterruptedRun()
    with pytest.raises(KeyboardInterrupt):
        run_batch(run, Settings, cells[:1], entry, tmp_path, again=False)
    cells, entry = change(cells, entry, monkeypatch)
    run_batch(run, Settings, cells[:1], entry, tmp_path, again=False)
    assert run.found == 0
    assert "count.pt is not used: other parameters, sources, data" in capsys.readouterr().err


def test_checkpoints_left_beside_a_finished_record_are_deleted(tmp_path, cells, entry):
    run_batch(CountingRun(), Settings, cells[:1], entry, tmp_path, again=False)
    left = Checkpoints(tmp_path / "softmax_gradient" / "seed=0" / "checkpoints", "key")
    left.save("count", {"count": 2})  # as after a kill between writing the record and deleting them
    run_batch(CountingRun(), Settings, cells[:1], entry, tmp_path, again=False)
    assert not left.folder.exists()


def test_a_cell_that_keeps_nothing_has_no_folder_of_checkpoints(tmp_path, cells, entry):
    run_batch(CountingRun(), Settings, cells[:1], entry, tmp_path, again=False)
    assert not (tmp_path / "softmax_gradient" / "seed=0" / "checkpoints").exists()


def test_an_experiment_without_rows_is_an_error_and_leaves_no_record(tmp_path, cells, entry):
    with pytest.raises(DataError, match="returned no rows for the cell seed=0"):
        measure(
            lambda settings, context: Measurement(), Settings(seed=0, d_k=[4], keys=2, queries=2), cells[0], entry, tmp_path
        )
    assert list(tmp_path.iterdir()) == []


def test_a_missing_gpu_is_named_with_the_remedy(tmp_path, cells, entry, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    entry = entry.model_copy(update={"device": entry.device.model_copy(update={"smoke": "cuda"})})
    with pytest.raises(
        MissingHardwareError, match=r"_template/softmax_gradient at scale smoke needs a CUDA device.*scale=smoke"
    ):
        measure(CountingRun(), Settings(seed=0, d_k=[4], keys=2, queries=2), cells[0], entry, tmp_path)


@pytest.fixture
def command_line(monkeypatch):
    """Runs the experiment's `main` as `python -m papers._template.softmax_gradient` would."""

    def call(*arguments):
        spec = SimpleNamespace(name="papers._template.softmax_gradient")
        monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec, __doc__="A question?"))
        monkeypatch.setattr(sys, "argv", ["softmax_gradient", *map(str, arguments)])
        experiment.main(softmax_gradient.run, Settings)

    return call


def test_the_command_line_writes_records_and_an_index(tmp_path, command_line):
    command_line("--scale", "smoke", "--out", tmp_path)
    index = json.loads((tmp_path / "softmax_gradient" / "all.index.json").read_text())
    assert [line["cell"] for line in index] == [f"seed={seed}" for seed in range(5)]
    for line in index:
        record = read_record(tmp_path / "softmax_gradient" / line["cell"] / "record.json")
        assert record.results_sha256 == line["results_sha256"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "papers/nowhere/config.yaml"], "papers/nowhere/config.yaml does not exist"),
        (["--config", "papers/pbs_attn/config.yaml"], "does not describe papers/_template/softmax_gradient.py"),
        (["--batch", "seed=9"], "--batch seed=9: softmax_gradient has the batches all at scale smoke"),
        (["--out", "pyproject.toml"], "Cannot write"),
    ],
)
def test_what_the_user_can_mend_is_one_message_and_status_2(command_line, capsys, tmp_path, arguments, message):
    out = [] if "--out" in arguments else ["--out", tmp_path]
    with pytest.raises(SystemExit) as caught:
        command_line("--scale", "smoke", *arguments, *out)
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_a_scale_that_an_experiment_is_not_run_at_is_named_with_those_it_is(command_line, capsys, tmp_path):
    content = yaml.safe_load((TEMPLATE / "config.yaml").read_text()) | {"figures": {}}
    content["experiments"]["softmax_gradient"]["scales"] = ["smoke", "paper"]
    folder = tmp_path / "_template"
    folder.mkdir()
    (folder / "softmax_gradient.py").touch()
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit):
        command_line("--scale", "standard", "--config", folder / "config.yaml", "--out", tmp_path)
    assert "softmax_gradient is not run at scale standard; it is run at scale smoke and paper" in capsys.readouterr().err


def test_a_mistake_in_a_process_of_its_own_shows_no_traceback(tmp_path):
    command = [sys.executable, "-m", "papers._template.softmax_gradient", "--scale", "smoke"]
    done = subprocess.run([*command, "--config", tmp_path / "c.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "does not exist" in done.stderr


def test_a_context_counts_steps_under_the_cells_name(capsys):
    progress = experiment.Context(device="cpu", label="measure seed=0").progress(1)
    progress.step("done")
    assert capsys.readouterr().err.startswith("[measure seed=0] 1/1 done")


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        Measurement().add("error", float("nan"))
