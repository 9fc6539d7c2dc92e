"""The loop: replicas side by side, learning curves, checkpoints, resume."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsFloat

from common.checkpoints import Checkpoints
from common.errors import InputError
from common.progress import Progress
from common.training.replica import Replica

# step, examples, seconds, loss, and whatever the evaluation returned
CurveRow = dict[str, Any]
Evaluate = Callable[[Replica], Mapping[str, SupportsFloat]]

NAP = 2e-4  # seconds to wait when every replica has enough work queued


def evenly_spaced(steps: int, count: int) -> list[int]:
    """`count` numbers of finished steps, evenly spaced, the last one `steps`; fewer where there are not so many steps."""
    return sorted({max(1, round(steps * number / count)) for number in range(1, count + 1)})


def train(
    replicas: Sequence[Replica],
    *,
    evaluate: Evaluate | None = None,
    checkpoints: Checkpoints | None = None,
    name: str = "training",
    save_seconds: float = 60.0,
    progress: Progress | None = None,
) -> dict[str, list[CurveRow]]:
    """Train replicas side by side until each has done its steps.

    A checkpoint that belongs to the same parameters and sources is resumed: on the CPU the numbers are those of an
    uninterrupted training, bit by bit. One that cannot be used is named in a printed line.

    Processes that share a training (`Replica.parallel`) call this alike, with one replica and one folder of checkpoints that
    all of them see; rank 0 writes it.

    Args:
        replicas: with different names; may stand on different devices.
        evaluate: called at every row of a learning curve, with the network in evaluation mode; returns numbers for the row.
            Must not change the replica. Its work on a CUDA device comes after the replica's steps.
        checkpoints: where to save and resume; None does neither.
        name: of the checkpoint.
        save_seconds: between two checkpoints; the last step always makes one.
        progress: counts steps of all replicas.

    Returns:
        Replica name -> learning curve; the networks hold their last parameters and are in evaluation mode. A row has `step` and
        `examples` (both so far), `seconds` (wall time of this training so far, of all replicas together, without capturing
        graphs), `loss` (mean of the steps since the last row; not a number where training diverged), and what `evaluate`
        returned, as floats.

    Raises:
        InputError: names repeat, a checkpoint has other replicas, or one of several replicas is shared by processes.
        DataError: a checkpoint cannot be written.
    """
    names = [replica.name for replica in replicas]
    if not replicas or len(set(names)) < len(names):
        raise InputError(f"replicas are called {names}; give at least one, and each its own name.")
    parallel = replicas[0].parallel
    if len(replicas) > 1 and any(replica.parallel is not None for replica in replicas):
        raise InputError(f"replicas are called {names}; processes share the training of one replica, not of several.")
    before = _resume(replicas, checkpoints, name)
    if progress is not None:
        progress.step("resumed" if before else "begun", steps=sum(replica.step for replica in replicas))
    for replica in replicas:
        replica.prepare()

    start = saved = time.monotonic()

    def seconds() -> float:
        return before + time.monotonic() - start

    def save() -> None:
        if checkpoints is not None and (parallel is None or parallel.rank == 0):
            states = {replica.name: replica.state() for replica in replicas}
            checkpoints.save(name, {"replicas": states, "seconds": seconds()})

    while unfinished := [replica for replica in replicas if not replica.finished]:
        ready = [replica for replica in unfinished if replica.ready()]
        if not ready:
            time.sleep(NAP)
        for replica in ready:
            replica.advance()
            if replica.at_curve_step:
                replica.curve.append(_row(replica, evaluate, seconds))
            if progress is not None:
                progress.step(replica.name)
        if time.monotonic() - saved >= save_seconds and not all(replica.finished for replica in replicas):
            save()
            saved = time.monotonic()
    save()
    for replica in replicas:
        replica.finish()
    return {replica.name: replica.curve for replica in replicas}


def _resume(replicas: Sequence[Replica], checkpoints: Checkpoints | None, name: str) -> float:
    """Load the checkpoint, if there is one, and return the seconds of training behind it."""
    state = checkpoints.load(name) if checkpoints is not None else None
    if state is None:
        return 0.0
    if sorted(state["replicas"]) != sorted(replica.name for replica in replicas):
        assert checkpoints is not None
        raise InputError(
            f"The checkpoint {checkpoints.path(name)} holds {sorted(state['replicas'])}, not "
            f"{sorted(replica.name for replica in replicas)}; give every training of a cell its own name."
        )
    for replica in replicas:
        replica.load_state(state["replicas"][replica.name])
    return state["seconds"]


def _row(replica: Replica, evaluate: Evaluate | None, seconds: Callable[[], float]) -> CurveRow:
    row: CurveRow = {
        "step": replica.step,
        "examples": replica.step * replica.recipe.batch_size,
        "loss": replica.take_mean_loss(),
        "seconds": seconds(),
    }
    if evaluate is not None:
        replica.network.eval()
        with replica.on_stream():
            row |= {metric: float(value) for metric, value in evaluate(replica).items()}
        replica.network.train()
    return row
