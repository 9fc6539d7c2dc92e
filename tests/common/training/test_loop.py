"""Learning curves, checkpoints and resume, also after kill -9."""

import os
import subprocess
import sys
import time

import pytest
import torch

from common.checkpoints import Checkpoints
from common.errors import InputError
from common.progress import Progress
from common.provenance import REPOSITORY
from common.training import evenly_spaced, train
from tests.common.training.small_problem import ADAM, parameters_of, replica, same


def without_seconds(curve):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in curve]


@pytest.mark.parametrize(
    ("steps", "count", "expected"), [(10, 5, [2, 4, 6, 8, 10]), (10, 3, [3, 7, 10]), (2, 5, [1, 2]), (1, 1, [1])]
)
def test_evenly_spaced(steps, count, expected):
    assert evenly_spaced(steps, count) == expected


def test_curves_have_a_row_for_every_chosen_step_and_the_last():
    seen = []

    def evaluate(one):
        assert not one.network.training
        seen.append((one.name, one.step))
        return {"accuracy": torch.tensor(one.step / 100)}

    curves = train(
        [replica("a", curve_steps=[1, 10]), replica("b", ADAM, steps=5)],
        evaluate=evaluate,
    )
    assert [(row["step"], row["examples"]) for row in curves["a"]] == [(1, 4), (10, 40), (25, 100)]
    assert [(row["step"], row["examples"]) for row in curves["b"]] == [(5, 40)]
    assert sorted(seen) == [("a", 1), ("a", 10), ("a", 25), ("b", 5)]
    assert all(row["accuracy"] == pytest.approx(row["step"] / 100) for row in curves["a"])
    seconds = [row["seconds"] for row in curves["a"]]
    assert 0 < seconds[0] < seconds[1] < seconds[2]


def test_a_rows_loss_is_the_mean_since_the_last_row():
    every = train([replica(curve_steps=range(1, 26))])["sgd"]
    some = train([replica(curve_steps=[7, 8])])["sgd"]
    losses = [row["loss"] for row in every]
    assert some[0]["loss"] == pytest.approx(sum(losses[:7]) / 7, rel=1e-12)
    assert some[1]["loss"] == losses[7]
    assert some[2]["loss"] == pytest.approx(sum(losses[8:]) / 17, rel=1e-12)


def test_networks_are_left_in_evaluation_mode():
    one = replica()
    assert one.network.training
    train([one])
    assert not one.network.training
    assert all(parameter.grad is None for parameter in one.network.parameters())


def first_parameter(one):
    return {"first": next(one.network.parameters()).flatten()[0].item()}


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop", [3, 10, 25])
def test_an_interrupted_training_goes_on_to_the_same_bits(tmp_path, stop):
    def replicas():
        return [replica("a", curve_steps=range(1, 26)), replica("b", ADAM, steps=31, curve_steps=[6])]

    def stop_at(one):
        if one.name == "a" and one.step == stop:
            raise StoppedError
        return first_parameter(one)

    expected = replicas()
    curves = train(expected, evaluate=first_parameter)
    checkpoints = Checkpoints(tmp_path, "key")
    with pytest.raises(StoppedError):
        train(replicas(), evaluate=stop_at, checkpoints=checkpoints, save_seconds=0)
    again = replicas()
    resumed = train(again, evaluate=first_parameter, checkpoints=checkpoints, save_seconds=1e9)
    for one, other in zip(expected, again, strict=True):
        assert same(parameters_of(one), parameters_of(other))
        assert without_seconds(curves[one.name]) == without_seconds(resumed[one.name])
    seconds = [row["seconds"] for row in resumed["a"]]
    assert seconds == sorted(seconds)


def test_a_finished_training_is_not_repeated(tmp_path):
    checkpoints = Checkpoints(tmp_path, "key")
    first = replica()
    curve = train([first], checkpoints=checkpoints)["sgd"]
    again = replica(seed=8)
    assert train([again], evaluate=lambda one: pytest.fail("nothing is left"), checkpoints=checkpoints)["sgd"] == curve
    assert same(parameters_of(first), parameters_of(again))


def test_a_checkpoint_of_another_key_is_not_resumed_and_named(tmp_path, capsys):
    train([replica(seed=8)], checkpoints=Checkpoints(tmp_path, "old"))
    expected, again = replica(), replica()
    train([expected])
    train([again], checkpoints=Checkpoints(tmp_path, "new"))
    assert "is not used: other parameters" in capsys.readouterr().err
    assert same(parameters_of(expected), parameters_of(again))


def test_progress_counts_the_steps_of_all_replicas(tmp_path, capsys):
    train([replica("a"), replica("b", steps=5)], progress=Progress("cell", 30), checkpoints=Checkpoints(tmp_path, "key"))
    assert "[cell] 30/30 a" in capsys.readouterr().err
    progress = Progress("cell", 30)
    train([replica("a"), replica("b", steps=5)], progress=progress, checkpoints=Checkpoints(tmp_path, "key"))
    assert progress.done == 30
    assert "30/30 resumed" in capsys.readouterr().err


def test_bad_input(tmp_path):
    checkpoints = Checkpoints(tmp_path, "key")
    train([replica("a", steps=1)], checkpoints=checkpoints)
    for call, message in [
        (lambda: train([]), "give at least one"),
        (lambda: train([replica("a"), replica("a")]), r"replicas are called \['a', 'a'\]"),
        (lambda: train([replica("b")], checkpoints=checkpoints), r"training\.pt holds \['a'\], not \['b'\]"),
    ]:
        with pytest.raises(InputError, match=message):
            call()


SCRIPT = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from common.checkpoints import Checkpoints
from common.training import train
from tests.common.training.small_problem import ADAM, parameters_of, replica

nap = float(sys.argv[1])

def evaluate(one):
    time.sleep(nap)
    return {"bias": one.network.head.bias.item()}

for folder in map(Path, sys.argv[2:]):
    replicas = [replica("a", steps=60, curve_steps=range(1, 61)), replica("b", ADAM, steps=40, curve_steps=range(1, 41))]
    curves = train(replicas, evaluate=evaluate, checkpoints=Checkpoints(folder, "key"), save_seconds=0)
    for rows in curves.values():
        for row in rows:
            del row["seconds"]
    torch.save({"parameters": [parameters_of(one) for one in replicas], "curves": curves}, folder / "result.pt")
"""


def test_after_kill_9_training_goes_on_to_the_same_bits(tmp_path):
    def start(nap, *folders):
        command = [sys.executable, "-c", SCRIPT, str(nap), *(str(tmp_path / folder) for folder in folders)]
        return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)

    def saved_step():
        state = Checkpoints(tmp_path / "killed", "key").load("training")
        return state["replicas"]["a"]["step"] if state else 0

    victim = start(0.05, "killed")
    deadline = time.monotonic() + 120
    while saved_step() < 10:
        assert victim.poll() is None, victim.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    victim.kill()
    victim.communicate()
    assert 10 <= saved_step() < 60
    process = start(0, "killed", "whole")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    resumed, whole = (torch.load(tmp_path / folder / "result.pt", weights_only=True) for folder in ("killed", "whole"))
    assert resumed["curves"] == whole["curves"]
    for one, other in zip(resumed["parameters"], whole["parameters"], strict=True):
        assert same(one, other)


KILL_SEED = int(os.environ.get("REATTEND_KILL_SEED", "0"))  # another seed gives other moments

# Each child of this process kills itself at a step and a place of its own: between two steps, with half of a checkpoint
# written, with all of it written, or with the checkpoint just in place. Forked, as importing takes a fresh process seconds.
KILLED_AGAIN_AND_AGAIN = """
import os, random, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from common.checkpoints import Checkpoints
from common.training import train
from tests.common.training.small_problem import ADAM, parameters_of, replica

folder, generator = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
save, replace = torch.save, os.replace

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def training(place=None, step=0):
    replicas = [replica("a", steps=60, curve_steps=range(1, 61)), replica("b", ADAM, steps=40, curve_steps=range(1, 41))]
    first = replicas[0]

    def evaluate(one):
        if place == "between" and one is first and one.step == step:
            die()
        return {"bias": one.network.head.bias.item()}

    def broken_save(content, path):
        save(content, path)
        if place == "half" and first.step >= step:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            die()

    def broken_replace(source, target):
        if place == "before" and first.step >= step:
            die()
        replace(source, target)
        if place == "after" and first.step >= step:
            die()

    torch.save, os.replace = broken_save, broken_replace
    curves = train(replicas, evaluate=evaluate, checkpoints=Checkpoints(folder, "key"), save_seconds=0)
    for rows in curves.values():
        for row in rows:
            del row["seconds"]
    place = None
    torch.save({"parameters": [parameters_of(one) for one in replicas], "curves": curves}, folder / "result.pt")

def child(*arguments):
    process = os.fork()
    if process == 0:
        try:
            training(*arguments)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(process, 0)[1]

train([replica(steps=1), replica("adam", ADAM, steps=1)])  # imports what optimisers import late: once, not in each child
for step in sorted(generator.sample(range(1, 60), 8)):
    place = generator.choice(["between", "half", "before", "after"])
    status = child(place, step)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (place, step, status)
    state = Checkpoints(folder, "key").load("training")
    reached = state["replicas"]["a"]["step"] if state else 0
    print(place, step, reached, flush=True)
    assert reached == (step if place == "after" else step - 1)
assert child() == 0
"""


def test_after_many_kills_at_random_steps_training_goes_on_to_the_same_bits(tmp_path):
    expected = [replica("a", steps=60, curve_steps=range(1, 61)), replica("b", ADAM, steps=40, curve_steps=range(1, 41))]
    curves = train(expected, evaluate=lambda one: {"bias": parameters_of(one)["head.bias"].item()})
    command = [sys.executable, "-c", KILLED_AGAIN_AND_AGAIN, str(tmp_path), str(KILL_SEED)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, f"REATTEND_KILL_SEED={KILL_SEED}\n{run.stdout}\n{run.stderr}"
    assert "not used" not in run.stderr  # no damaged checkpoint was ever seen
    found = torch.load(tmp_path / "result.pt", weights_only=True)
    assert {name: without_seconds(rows) for name, rows in curves.items()} == found["curves"]
    for one, parameters in zip(expected, found["parameters"], strict=True):
        assert same(parameters_of(one), parameters)
