"""GPUs are spread over jobs: no two share one, a killed job gives its own back. GPUs are made up, processes are real."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest

from common import gpus
from common.errors import DataError, MissingHardwareError
from common.provenance import REPOSITORY

# Writes when it has which GPU, and holds it until it is told to end.
HOLDER = """\
import os, sys, time
from pathlib import Path
folder, name, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
begin = time.monotonic()
(folder / f"{name}.begin").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
time.sleep(seconds)
(folder / f"{name}.end").write_text(f"{os.environ['CUDA_VISIBLE_DEVICES']} {begin} {time.monotonic()}")
"""


@pytest.fixture
def start(tmp_path):
    """Starts `python -m common.gpus COUNT python HOLDER`; ends all that still runs."""
    (tmp_path / "holder.py").write_text(HOLDER)
    (tmp_path / "locks").mkdir()
    started = []

    def start(name, seconds, visible="0,1,2", count=1):
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": visible, "TMPDIR": str(tmp_path / "locks")}
        holder = [sys.executable, str(tmp_path / "holder.py"), str(tmp_path), name, str(seconds)]
        process = subprocess.Popen(
            [sys.executable, "-m", "common.gpus", str(count), *holder],
            cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(path, seconds=60):
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path.name} does not appear"
        time.sleep(0.02)
    return path.read_text()


def test_no_two_jobs_share_a_gpu_and_all_gpus_are_used(start, tmp_path):
    jobs = [start(f"job{number}", 0.4) for number in range(7)]
    outputs = [job.communicate(timeout=120)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 7, outputs
    held = [(tmp_path / f"job{number}.end").read_text().split() for number in range(7)]
    assert {gpu for gpu, _, _ in held} == {"0", "1", "2"}
    for gpu in "012":
        times = sorted((float(begin), float(end)) for which, begin, end in held if which == gpu)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(times)), times


def test_a_killed_job_gives_its_gpu_back(start, tmp_path):
    victim, other = start("victim", 120, "4,5"), start("other", 120, "4,5")
    freed, kept = wait_for(tmp_path / "victim.begin"), wait_for(tmp_path / "other.begin")
    assert {freed, kept} == {"4", "5"}
    waiting = start("waiting", 0, "4,5")
    assert "All of GPU 4, 5 are in use" in waiting.stdout.readline()
    victim.send_signal(signal.SIGKILL)
    assert waiting.communicate(timeout=60)[0].strip() == f"GPU {freed}"
    assert wait_for(tmp_path / "waiting.end").split()[0] == freed
    assert other.poll() is None


def test_what_a_job_started_keeps_the_gpu_until_it_ends(start, tmp_path):
    """The lock belongs to all processes of the job: the GPU is not free as long as one of them computes on it."""
    script = tmp_path / "holder.py"
    script.write_text(
        "import subprocess, sys, os\n"
        "from pathlib import Path\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'], close_fds=False)\n"
        "Path(sys.argv[1], sys.argv[2] + '.begin').write_text(f'{child.pid} ' + os.environ['CUDA_VISIBLE_DEVICES'])\n"
    )
    start("parent", 0, "4,5").wait(timeout=60)
    child, gpu = wait_for(tmp_path / "parent.begin").split()
    try:
        folder = tmp_path / "locks" / f"reattend-gpus-{os.getuid()}"
        (free,), files = gpus.try_to_take(["4", "5"], 1, folder)
        assert free != gpu
        assert gpus.try_to_take(["4", "5"], 1, folder) == ([], [])
        for file in files:
            os.close(file)
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_all_or_none_are_taken(tmp_path):
    first, files = gpus.try_to_take(["0", "1", "2"], 2, tmp_path)
    assert first == ["0", "1"]
    assert gpus.try_to_take(["0", "1", "2"], 2, tmp_path) == ([], [])
    third, more = gpus.try_to_take(["0", "1", "2"], 1, tmp_path)
    assert third == ["2"]
    for file in (*files, *more):
        os.close(file)
    assert gpus.try_to_take(["0", "1", "2"], 3, tmp_path)[0] == ["0", "1", "2"]


def test_without_a_choice_nothing_is_locked(tmp_path):
    assert gpus.take(1, ["GPU-5d3f"], tmp_path) == ["GPU-5d3f"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("listed", "names"), [(None, ["0", "1", "2"]), ("", []), ("3, GPU-ab", ["3", "GPU-ab"])])
def test_the_list_of_the_user_or_scheduler_comes_first(monkeypatch, listed, names):
    monkeypatch.setattr("common.scale.cuda_devices", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert gpus.visible_gpus() == names


def test_too_few_gpus_are_one_message(tmp_path):
    with pytest.raises(MissingHardwareError, match=r"This job needs 2 GPUs and sees 1 .*scale=smoke"):
        gpus.take(2, ["0"], tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["0", "true"], "a number of GPUs from 1 and"), (["1"], "and a command"), (["1", "no-such-program"], "cannot be started")],
)
def test_mistakes_are_one_message(monkeypatch, capsys, tmp_path, arguments, words):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(gpus, "lock_folder", lambda: tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpus", *arguments])
    with pytest.raises(SystemExit) as stopped:
        gpus.main()
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_a_folder_of_locks_that_is_a_link_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    assert gpus.lock_folder().stat().st_mode & 0o777 == 0o700
    gpus.lock_folder().rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"reattend-gpus-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is not a folder of yours"):
        gpus.lock_folder()
