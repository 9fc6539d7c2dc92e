"""Examples to train and to test on: points uniform in the unit square, and their solutions (arXiv 1506.03134, Section 3).

Points are float32, multiples of 2^-24, and drawn on the CPU: the same on every machine. Solutions are of these very points, in
float64. Training and test points of equal seeds are different.
"""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from common.errors import InputError
from papers.pointer_networks import convex_hull, delaunay
from papers.pointer_networks.examples import Examples
from papers.pointer_networks.tour_solvers import Solver, solve_tours
from papers.pointer_networks.travelling_salesman import tour_sequences

Task = Literal["convex_hull", "delaunay", "travelling_salesman"]
Order = Literal["canonical", "random"]
Split = Literal["train", "test"]

EXACT_TOURS_UP_TO = 12
"""Cities up to which tours are exact unless a solver is named."""


def training_examples(
    task: Task,
    n: int,
    count: int,
    seed: int,
    device: torch.device | str,
    *,
    order: Order = "canonical",
    solver: Solver | None = None,
    workers: int | None = None,
) -> Examples:
    """Examples to train on, solved by our own batched code on the device.

    Delaunay triangulations on a CPU are scipy's, which is faster there.

    Args:
        task: "convex_hull", "delaunay" or "travelling_salesman".
        n: points an example, >= 3.
        count: examples, >= 1.
        seed: not negative; of the points, and of the order where that is random.
        device: where the examples are solved and lie.
        order: "canonical", or "random" for hulls from a random vertex in a random direction, and for triangles in random order.
        solver: of tours; "held_karp" by default up to 12 cities, beyond it must be named.
        workers: processes for the solvers that use some; by default as many as there are cores.

    Returns:
        `count` examples: points float32 [count, n, 2], sequences int64 [count, m].

    Raises:
        InputError: a name is unknown, a number out of range, or a solver is named for another task or missing for this one.
    """
    points = uniform_points("train", task, n, count, seed).to(device)
    if task == "convex_hull":
        _check_no_solver(task, solver)
        sequences = convex_hull.convex_hulls(points)
    elif task == "delaunay":
        _check_no_solver(task, solver)
        triangulate = delaunay.delaunay_triangulations if points.is_cuda else delaunay.delaunay_triangulations_scipy
        sequences = triangulate(points)
    else:
        sequences = tour_sequences(solve_tours(points, _solver_for(n, solver), workers=workers))
    return Examples(points, _in_order(task, sequences, order, seed))


def test_examples(
    task: Task,
    n: int,
    count: int,
    seed: int,
    *,
    solver: Solver | None = None,
    device: torch.device | str = "cpu",
    workers: int | None = None,
) -> Examples:
    """Examples to test on, in canonical order: hulls and triangulations by scipy, tours by Held-Karp or the solver named.

    Args:
        task: "convex_hull", "delaunay" or "travelling_salesman".
        n: points an example, >= 3.
        count: examples, >= 1.
        seed: not negative.
        solver: of tours; "held_karp" by default up to 12 cities, beyond it must be named.
        device: where tours are solved and the examples lie.
        workers: processes for the solvers that use some; by default as many as there are cores.

    Returns:
        `count` examples: points float32 [count, n, 2], sequences int64 [count, m].

    Raises:
        InputError: as `training_examples`.
    """
    points = uniform_points("test", task, n, count, seed)
    if task == "convex_hull":
        _check_no_solver(task, solver)
        return Examples(points, convex_hull.convex_hulls_scipy(points)).to(device)
    if task == "delaunay":
        _check_no_solver(task, solver)
        return Examples(points, delaunay.delaunay_triangulations_scipy(points)).to(device)
    points = points.to(device)
    return Examples(points, tour_sequences(solve_tours(points, _solver_for(n, solver), workers=workers)))


test_examples.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # not a test, whatever pytest takes its name for


def uniform_points(split: Split, task: Task, n: int, count: int, seed: int) -> Tensor:
    """Points drawn uniformly from [0, 1)²: float32 [count, n, 2], multiples of 2^-24, on the CPU.

    Every split, task, n and seed has points of its own; of a larger count the first are the same.

    Raises:
        InputError: a name is unknown or a number out of range.
    """
    for name, value, names in (("split", split, get_args(Split)), ("task", task, get_args(Task))):
        if value not in names:
            raise InputError(f"{name} is {value!r}; choose one of {', '.join(names)}.")
    for name, value, least in (("n", n, 3), ("count", count, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"{name} is {value}; it must be at least {least}.")
    key = [get_args(Split).index(split), get_args(Task).index(task), n, seed]
    return torch.from_numpy(np.random.default_rng(key).random((count, n, 2), dtype=np.float32))


def _check_no_solver(task: Task, solver: Solver | None) -> None:
    if solver is not None:
        raise InputError(f"solver is {solver!r}, but the task is {task}; leave it out, only travelling_salesman has solvers.")


def _solver_for(n: int, solver: Solver | None) -> Solver:
    if solver is None and n > EXACT_TOURS_UP_TO:
        raise InputError(
            f"n is {n}, and beyond {EXACT_TOURS_UP_TO} cities the solver must be named: one of {', '.join(get_args(Solver))}."
        )
    return solver or "held_karp"


def _in_order(task: Task, sequences: Tensor, order: Order, seed: int) -> Tensor:
    if order == "canonical":
        return sequences
    if order != "random":
        raise InputError(f"order is {order!r}; choose 'canonical' or 'random'.")
    if task == "travelling_salesman":
        raise InputError("order is 'random', but the task is travelling_salesman; choose 'canonical'.")
    generator = torch.Generator(sequences.device).manual_seed(seed)
    return {"convex_hull": convex_hull, "delaunay": delaunay}[task].with_random_order(sequences, generator)
