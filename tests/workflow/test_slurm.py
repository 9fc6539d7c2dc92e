"""A paper through a real Slurm: daemons on this machine, started and stopped here, with a stand-in for two GPUs.

Runs as root where Debian's slurm-wlm and munge are installed and Slurm has no configuration yet. Nothing that is there is
changed.
"""

import functools
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from common.provenance import REPOSITORY
from common.records import RecordSet
from tests.workflow.conftest import RESULTS

pytestmark = pytest.mark.workflow

ETC = Path("/etc/slurm")
DAEMONS = ("munged", "slurmctld", "slurmd")
PROGRAMS = (*DAEMONS, "sbatch", "srun", "squeue", "scontrol", "runuser")
QUICK = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5")
MEMORY_MB = 16_000  # offered, and not taken from anyone


def why_not() -> str:
    """What keeps Slurm from starting here; empty when nothing does."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed: apt-get install slurm-wlm munge"
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "snakemake-executor-plugin-slurm is not installed: it is part of envs/requirements-dev.txt"
    if os.geteuid() != 0:
        return "only root may start Slurm's daemons"
    there = [str(ETC / name) for name in ("slurm.conf", "gres.conf", "cgroup.conf") if (ETC / name).exists()]
    if there:
        return f"{', '.join(there)} exists: somebody else's Slurm is left alone"
    running = {process.info["name"] for process in psutil.process_iter(["name"])} & set(DAEMONS)
    if running:
        return f"{', '.join(sorted(running))} is running already"
    if not Path("/etc/munge/munge.key").exists():
        return "/etc/munge/munge.key is missing: mungekey --create"
    return ""


def configuration(host: str, state: Path) -> str:
    """`slurm.conf` of one node with four processors and two GPUs that no process limits."""
    return f"""ClusterName=reattend
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={state}/state
SlurmdSpoolDir={state}/spool
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2
MpiDefault=none
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory={MEMORY_MB} Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def wait_until(true, what: str, seconds: float = 30) -> None:
    """Wait for something that takes a moment. Fails with its name."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} does not happen within {seconds} s"
        time.sleep(0.2)


@contextmanager
def daemon(name: str, log: Path, *command: str):
    """A daemon in the foreground, killed with all that it started."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in below:
            if child.is_running():
                child.send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Slurm on this machine."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().split(".")[0]
    names = {  # stand-ins for GPUs: enough to be given out
        "slurm.conf": configuration(host, folder),
        "gres.conf": f"NodeName={host} Name=gpu File=/dev/null\nNodeName={host} Name=gpu File=/dev/zero\n",
    }
    with ExitStack() as stack:
        for name, text in names.items():
            with (ETC / name).open("x") as file:  # never over one that is there
                stack.callback((ETC / name).unlink)
                file.write(text)
        made = not Path("/run/munge").exists()
        subprocess.run(["install", "-d", "-o", "munge", "-g", "munge", "/run/munge"], check=True)
        if made:
            stack.callback(shutil.rmtree, "/run/munge")
        stack.enter_context(daemon("munged", folder / "munged.log", "runuser", "-u", "munge", "--", "munged", "--foreground"))
        wait_until(lambda: Path("/run/munge/munge.socket.2").exists(), "munged starts")
        stack.enter_context(daemon("slurmctld", folder / "slurmctld.log", "slurmctld", "-D", "-i"))
        stack.enter_context(daemon("slurmd", folder / "slurmd.log", "slurmd", "-D", "-N", host))
        idle = functools.partial(subprocess.run, ["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, check=False)
        try:
            wait_until(lambda: idle().stdout.strip() in ("idle", "mix", "alloc"), "the node of Slurm is ready")
        except AssertionError as error:
            logs = "\n".join((folder / f"{name}.log").read_text(errors="replace")[-1500:] for name in DAEMONS)
            raise AssertionError(f"{error}\n{logs}") from None
        yield host


ON_GPU = """\
import os

import torch

from common import provenance
from common.experiment import Measurement, main
from papers.on_gpu.template_experiment import Settings

# The stand-in has no driver.
torch.cuda.is_available = lambda: True
torch.cuda.reset_peak_memory_stats = lambda: None
torch.cuda.max_memory_allocated = lambda: 0
provenance.device = lambda kind, device=provenance.device: device("cpu").model_copy(update={"kind": kind})


def run(settings, context):
    measurement = Measurement()
    measurement.add("gpu", int(os.environ["CUDA_VISIBLE_DEVICES"]))
    return measurement


if __name__ == "__main__":
    main(run, Settings)
"""


@pytest.fixture(scope="module")
def checkout(make_checkout):
    """A checkout with two papers, the template and one that asks for a GPU: each job reads the Snakefiles twice."""
    checkout = make_checkout("slurm", tracking="off")
    for path in (checkout.folder / "papers").iterdir():
        if path.is_dir() and path.name != "_template":
            shutil.rmtree(path)
    folder = checkout.folder / "papers" / "on_gpu"
    shutil.copytree(checkout.folder / "papers" / "_template", folder)
    for path in folder.glob("*.py"):
        path.write_text(path.read_text().replace("papers._template", "papers.on_gpu"))
    (folder / "softmax_gradient.py").rename(folder / "template_experiment.py")
    (folder / "softmax_gradient.py").write_text(ON_GPU)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    entry = config["experiments"]["softmax_gradient"]
    entry |= {"device": dict.fromkeys(("smoke", "standard", "paper"), "cuda"), "minutes": 7, "memory_gigabytes": 3}
    config |= {"paper": "on_gpu", "figures": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "claims.yaml").write_text("claims: []\n")
    return checkout


def slurm_jobs() -> list[dict[str, str]]:
    """All jobs that Slurm remembers, by field, in the order of their numbers."""
    done = subprocess.run(["scontrol", "show", "jobs", "--oneliner"], capture_output=True, text=True, check=True)
    found = [dict(re.findall(r"(\w[\w/:]*)=(\S*)", line)) for line in done.stdout.splitlines() if line.startswith("JobId=")]
    return sorted(found, key=lambda job: int(job["JobId"]))


def test_a_paper_runs_through_slurm(slurm, checkout):
    before = {job["JobId"] for job in slurm_jobs()}
    command = ("papers/_template/all", "--profile", "profiles/slurm", "--config", "scale=smoke")
    printed = " ".join(("snakemake", *command)).replace("_template", "pbs_attn").replace("smoke", "standard")
    for name in ("README.md", "CLUSTER.md"):
        assert printed in (REPOSITORY / name).read_text(encoding="utf-8")
    override = ("--set-resources", "papers/on_gpu/cells:runtime=9")
    status, output = checkout.snakemake("papers/on_gpu/cells", *command, *QUICK, *override)
    assert status == 0, output

    # What is measured, judged and drawn went through Slurm; what needs the network did not.
    submitted = {job["Comment"].split("_", 1)[1]: job for job in slurm_jobs() if job["JobId"] not in before}
    plain, on_gpu = submitted.pop("papers/_template/cells"), submitted.pop("papers/on_gpu/cells")
    (name,) = submitted
    assert name.startswith("results_of__template_")
    for job in (plain, on_gpu, submitted[name]):
        assert job["JobState"] == "COMPLETED"
        assert f"has been submitted with SLURM jobid {job['JobId']}" in output
        assert (job["Partition"], job["NumCPUs"]) == ("main", "2")
    assert (checkout.folder / "results/_template/smoke/inputs.json").exists()

    # Time and memory as in config.yaml (2 minutes and 2 GB, 7 minutes and 3 GB), or as they are asked for on the command line.
    assert (plain["TimeLimit"], plain["MinMemoryNode"]) == ("00:02:00", "2G")
    assert (on_gpu["TimeLimit"], on_gpu["MinMemoryNode"]) == ("00:09:00", "3G")
    assert "gpu" not in str(plain)
    assert on_gpu["TresPerJob"] == "gres:gpu:1"
    records = RecordSet(checkout.folder / "results/on_gpu/smoke/records", "softmax_gradient").records
    assert len(records) == 5
    assert {record.rows[0].value for record in records} <= {0.0, 1.0}  # one of the two, for all cells of the job

    results = checkout.folder / RESULTS
    assert len(RecordSet(results / "records", "softmax_gradient").records) == 5
    for path in (
        "verdicts.json",
        "tables/claims.md",
        "figures/gradient_against_dimension.svg",
        "report.html",
        "mlflow_run.txt",
    ):
        assert (results / path).stat().st_size > 0
    assert "_template at scale smoke:" in output


def test_another_scheduler_is_reached_by_its_submit_command(slurm, checkout):
    """`profiles/generic`, whose commands are Slurm's."""
    if importlib.util.find_spec("snakemake_executor_plugin_cluster_generic") is None:
        pytest.skip("snakemake-executor-plugin-cluster-generic is not installed: it is part of envs/requirements-dev.txt")
    before = {job["JobId"] for job in slurm_jobs()}
    command = ("papers/on_gpu/cells", "--profile", "profiles/generic", "--config", "scale=smoke", "results=generic")
    status, output = checkout.snakemake(*command, "--seconds-between-status-checks", "1", "--latency-wait", "5")
    assert status == 0, output
    (job,) = (job for job in slurm_jobs() if job["JobId"] not in before)
    assert job["JobName"].startswith("reattend.")
    assert (job["JobState"], job["TimeLimit"], job["MinMemoryNode"], job["NumCPUs"]) == ("COMPLETED", "00:07:00", "3G", "2")
    assert "gpu:1" in job["TresPerNode"]
    assert len(RecordSet(checkout.folder / "generic/on_gpu/smoke/records", "softmax_gradient").records) == 5


def test_on_a_cluster_the_scale_must_be_said(slurm, checkout):
    before = slurm_jobs()
    status, output = checkout.snakemake("papers/_template/all", "--profile", "profiles/slurm", "--forceall", *QUICK)
    assert status != 0
    assert "add `--config scale=standard`" in output
    assert "Traceback" not in output
    assert slurm_jobs() == before
