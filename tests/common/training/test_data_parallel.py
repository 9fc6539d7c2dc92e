"""Processes that share a training do what one process does, and go on after a stop; bad input."""

import json
import subprocess
import sys

import pytest
import torch

from common.checkpoints import Checkpoints
from common.errors import InputError
from common.provenance import REPOSITORY
from common.training import DataParallel, data_parallel, train
from tests.common.training.small_problem import ADAM, SGD, parameters_of, replica, same

STEPS = 12

SCRIPT = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from common.checkpoints import Checkpoints
from common.training import data_parallel, train
from tests.common.training.small_problem import ADAM, parameters_of, replica

class Stop(Exception):
    pass

def curve_of(one, folder, evaluate=None, save_seconds=1e9):
    return train([one], evaluate=evaluate, checkpoints=Checkpoints(folder, "key"), save_seconds=save_seconds)[one.name]

with data_parallel(sys.argv[2]) as processes:
    folder = Path(sys.argv[1])

    def make():
        return replica("a", ADAM, steps=12, curve_steps=range(1, 13), parallel=processes, device=processes.device)

    whole = make()
    curve = curve_of(whole, folder / "whole")

    def stop(one):
        if one.step == 7:
            raise Stop
        return {}

    try:
        curve_of(make(), folder / "stopped", stop, save_seconds=0)
    except Stop:
        pass
    torch.distributed.barrier()
    resumed = make()
    curve_of(resumed, folder / "stopped")
    result = {"curve": [row["loss"] for row in curve], "whole": parameters_of(whole), "resumed": parameters_of(resumed)}
    torch.save(result, folder / f"{processes.rank}.pt")
    (folder / f"{processes.rank}.json").write_text(json.dumps({"size": processes.size, "share": str(processes.share(8))}))
"""


def run_under_torchrun(processes, *arguments):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--no-python",
        sys.executable, "-c", SCRIPT, *map(str, arguments),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_do_the_steps_of_one_and_resume(tmp_path):
    run_under_torchrun(2, tmp_path, "cpu")
    alone = replica("a", ADAM, steps=STEPS, curve_steps=range(1, STEPS + 1))
    curve = train([alone])["a"]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert same(first["whole"], second["whole"])
    assert same(first["resumed"], first["whole"])
    assert same(second["resumed"], second["whole"])
    for name, parameter in parameters_of(alone).items():
        torch.testing.assert_close(first["whole"][name], parameter, rtol=1e-4, atol=1e-5)
    assert first["curve"] == second["curve"]
    assert first["curve"] == pytest.approx([row["loss"] for row in curve], rel=1e-4)
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert told == [{"size": 2, "share": "slice(0, 4, None)"}, {"size": 2, "share": "slice(4, 8, None)"}]
    assert Checkpoints(tmp_path / "whole", "key").load("training") is not None


@pytest.mark.gpu
def test_processes_with_a_gpu_each_do_the_steps_of_one(tmp_path):
    processes = min(2, torch.cuda.device_count())
    run_under_torchrun(processes, tmp_path, "cuda")
    alone = replica("a", ADAM, steps=STEPS, curve_steps=range(1, STEPS + 1), device="cuda")
    train([alone])
    for rank in range(processes):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert same(found["resumed"], found["whole"])
        for name, parameter in parameters_of(alone).items():
            torch.testing.assert_close(found["whole"][name], parameter, rtol=1e-3, atol=1e-4)


def test_bad_input(monkeypatch):
    two = DataParallel(0, 2, torch.device("cpu"))
    with pytest.raises(InputError, match="batch_size is 3 and 2 processes share it"):
        replica(recipe=SGD.model_copy(update={"batch_size": 3}), parallel=two)
    with pytest.raises(InputError, match="processes share the training of one replica"):
        train([replica("a", parallel=two), replica("b", parallel=two)])
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(InputError, match="LOCAL_RANK is not set: start this with `torchrun"), data_parallel("cpu"):
        pass
