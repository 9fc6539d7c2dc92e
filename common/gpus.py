"""Gives a command GPUs that no other job uses: `python -m common.gpus COUNT COMMAND ...`.

Snakemake counts GPUs and does not say which one a job has, so jobs that run at once would all take the first. This takes a lock
per GPU, shows the command those alone (`CUDA_VISIBLE_DEVICES`), and becomes the command. The lock belongs to the process: the
kernel opens it when that ends, however it ends, so a killed job leaves nothing behind.

Where there is no choice (one GPU, or those that a cluster scheduler assigned) nothing is locked.
"""

import argparse
import fcntl
import os
import sys
import tempfile
import time
from pathlib import Path

from common.errors import ConfigError, DataError, MissingHardwareError, ReattendError

WAIT_SECONDS = 0.5


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` takes them: those it lists, else `0`, `1`, ..."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        from common.scale import cuda_devices  # which takes longer to import than all else here

        return [str(number) for number in range(cuda_devices())]
    return [name.strip() for name in listed.split(",") if name.strip()]


def lock_folder() -> Path:
    """Where the locks of this user are on this machine: one folder for all checkouts, so that they share the GPUs, too.

    Raises:
        DataError: the folder cannot be made, or belongs to somebody else.
    """
    folder = Path(tempfile.gettempdir()) / f"reattend-gpus-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise DataError(
            f"The folder of the GPU locks cannot be made: {error}. Set TMPDIR to a folder that you can write."
        ) from None
    if owner != os.getuid() or folder.is_symlink():
        raise DataError(f"{folder} is not a folder of yours. Remove it, or set TMPDIR to a folder that only you can write.")
    return folder


def try_to_take(gpus: list[str], count: int, folder: Path) -> tuple[list[str], list[int]]:
    """Lock `count` of the GPUs, or none.

    Args:
        gpus: names of the GPUs to choose from.
        count: how many are needed.
        folder: of the locks.

    Returns:
        The names, and the open files that hold the locks; both empty where fewer than `count` are free. The files stay open in
        a program that this process becomes, and the locks with them.
    """
    taken: list[str] = []
    files: list[int] = []
    for name in gpus:
        file = os.open(folder / f"{name.replace('/', '-')}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        taken.append(name)
        files.append(file)
        if len(taken) == count:
            for held in files:
                os.set_inheritable(held, True)
            return taken, files
    for held in files:  # all or none: two jobs with half of what they need would wait for each other
        os.close(held)
    return [], []


def take(count: int, gpus: list[str], folder: Path) -> list[str]:
    """Names of `count` GPUs that are locked for this process until it ends; waits until so many are free.

    Args:
        count: how many.
        gpus: names of the GPUs to choose from.
        folder: of the locks.

    Raises:
        MissingHardwareError: there are fewer than `count`.
    """
    if len(gpus) < count:
        raise MissingHardwareError(
            f"This job needs {count} GPU{'s' if count > 1 else ''} and sees {len(gpus)}"
            f" (CUDA_VISIBLE_DEVICES is {os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}). "
            "Run it where a GPU is, or add `--config scale=smoke` for the CPU version."
        )
    if len(gpus) == count:  # no choice: one GPU, or those that a scheduler assigned, which may be other devices in every job
        return gpus
    taken, _ = try_to_take(gpus, count, folder)
    if not taken:
        print(f"All of GPU {', '.join(gpus)} are in use by other jobs; waiting.", file=sys.stderr, flush=True)
    while not taken:
        time.sleep(WAIT_SECONDS)
        taken, _ = try_to_take(gpus, count, folder)
    return taken


def main() -> None:
    """Command line: see the module's text. Exits with 2 and one clear message when there are too few GPUs."""
    parser = argparse.ArgumentParser(prog="python -m common.gpus", description="Run a command on GPUs that no other job uses.")
    parser.add_argument("count", type=int, help="how many GPUs")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run")
    arguments = parser.parse_args()
    try:
        if arguments.count < 1 or not arguments.command:
            raise ConfigError("Give a number of GPUs from 1 and a command: python -m common.gpus 1 python train.py")
        taken = take(arguments.count, visible_gpus(), lock_folder())
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
        print(f"GPU {', '.join(taken)}", file=sys.stderr, flush=True)
        try:
            os.execvp(arguments.command[0], arguments.command)
        except OSError as error:
            raise ConfigError(f"{arguments.command[0]} cannot be started: {error.strerror}.") from None
    except ReattendError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
