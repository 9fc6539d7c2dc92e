"""Solvers of the travelling salesman problem in the plane: the labels of Table 2 (arXiv 1506.03134).

| name | what it is | the paper's column | cost |
|---|---|---|---|
| `held_karp` | exact, dynamic programming over subsets | optimal | O(2^n n^2), n <= 15 |
| `a1` | greedy edges, then 2-opt on the path, closed at last: the package tsp-solver2, as published | A1 | O(n^2 log n) |
| `a2` | nearest neighbour from every city, each improved by 2-opt, the shortest | A2 | |
| `a3` | Christofides with greedy matching, from every city, each improved by 2-opt, the shortest | A3 | |
| `lkh` | Lin-Kernighan-Helsgaun, through the package elkai; not a dependency, as its licence is non-commercial | - | |

The paper names A1 to A3 by their programs only. At n = 50 our A1 has the length of its column, A2 is about 2% shorter (its
2-opt runs to the end and from every start), and A3 is close to its column.

All take points [B, n, 2] and give canonical tours, int64 [B, n] (see `travelling_salesman`). held_karp, a2 and a3 are batched
in float64 on the device of the points; a1 and lkh run in a pool of processes.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, cast, get_args

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tsp_solver.greedy import solve_tsp

from common.errors import InputError
from papers.pointer_networks.examples import check_points, memory_chunks
from papers.pointer_networks.travelling_salesman import canonical_tours, check_tours

Solver = Literal["held_karp", "a1", "a2", "a3", "lkh"]

HELD_KARP_MOST_CITIES = 15
"""Beyond, the table of one example takes more than 2 MB and doubles with every city."""

LKH_RUNS = 10

_LKH_LARGEST_DISTANCE = 10**6
"""LKH rounds distances to whole numbers, and keeps a hundred times them in 32 bits."""

_SMALLEST_SHARE = 64
"""Examples below which a process of its own does not pay."""

_IMPROVEMENT = 1e-12
"""Of the tour's length: less is rounding, and exchanging back and forth."""


def solve_tours(points: Tensor, solver: Solver, *, workers: int | None = None) -> Tensor:
    """Solve every example with the solver of that name.

    Args:
        points: floating point [B, n, 2], n >= 3.
        solver: "held_karp", "a1", "a2", "a3" or "lkh".
        workers: processes for a1 and lkh; by default as many as there are cores.

    Returns:
        Canonical tours, int64 [B, n].

    Raises:
        InputError: the points do not fit, the name is unknown, n is too large for held_karp, or lkh's package is missing.
    """
    solvers: dict[str, Callable[[Tensor], Tensor]] = {
        "held_karp": held_karp,
        "a1": partial(greedy_edges, workers=workers),
        "a2": nearest_neighbour_two_opt,
        "a3": christofides_two_opt,
        "lkh": partial(lin_kernighan_helsgaun, workers=workers),
    }
    if solver not in solvers:
        raise InputError(f"solver is {solver!r}; choose one of {', '.join(get_args(Solver))}.")
    return solvers[solver](points)


def held_karp(points: Tensor) -> Tensor:
    """Shortest tours, exactly, by dynamic programming (Held and Karp, 1962).

    cost[S, j] is the length of the shortest path from city n through all of S, a subset of the other cities, that ends in j.
    Subsets grow by one city a step, and all subsets of a size are computed at once.

    Args:
        points: floating point [B, n, 2], 3 <= n <= 15.

    Returns:
        Canonical tours, int64 [B, n].

    Raises:
        InputError: the points do not fit, or n > 15.
    """
    check_points(points)
    n = points.shape[1]
    if n > HELD_KARP_MOST_CITIES:
        raise InputError(
            f"points has n = {n}; exact tours take O(2^n n^2) and go up to n = {HELD_KARP_MOST_CITIES}. Use 'a2' or 'lkh'."
        )
    bytes_each = 8 * (n - 1) * 2 ** (n - 1) * 4  # the table, and the largest step beside it
    return torch.cat([_held_karp(chunk.double()) for chunk in memory_chunks(points, bytes_each)])


def greedy_edges(points: Tensor, *, workers: int | None = None) -> Tensor:
    """A1: `tsp_solver.greedy.solve_tsp` with its defaults, a path closed to a tour.

    The package joins the shortest edges that keep all pieces paths until one path is left, and exchanges pairs of its edges in
    three passes. It is told of no end points, so that the closing edge is not looked at.

    Args:
        points: floating point [B, n, 2], n >= 3.
        workers: processes; by default as many as there are cores.

    Returns:
        Canonical tours, int64 [B, n].

    Raises:
        InputError: the points do not fit.
    """
    return _in_processes(_greedy_edges, points, workers)


def nearest_neighbour_two_opt(points: Tensor) -> Tensor:
    """A2: from every city always on to the nearest city left; each of the n tours improved by `two_opt`; the shortest.

    Args:
        points: floating point [B, n, 2], n >= 3.

    Returns:
        Canonical tours, int64 [B, n].

    Raises:
        InputError: the points do not fit.
    """
    return _best_of_all_starts(points, _nearest_neighbour)


def christofides_two_opt(points: Tensor) -> Tensor:
    """A3: Christofides (1976) with greedy matching, an Euler circuit from every city; each improved by `two_opt`; the shortest.

    A minimum spanning tree; its vertices of odd degree matched, the closest two first (the exact algorithm matches them with
    the least total length: without it there is no guarantee of 1.5 times the optimum); an Euler circuit through the edges of
    both; cities that come again are left out.

    Args:
        points: floating point [B, n, 2], n >= 3.

    Returns:
        Canonical tours, int64 [B, n].

    Raises:
        InputError: the points do not fit.
    """
    return _best_of_all_starts(points, _christofides)


def lin_kernighan_helsgaun(points: Tensor, *, runs: int = LKH_RUNS, workers: int | None = None) -> Tensor:
    """Near-optimal tours by LKH, through the optional package elkai (LKH is free for academic and non-commercial use only).

    Args:
        points: floating point [B, n, 2], n >= 3.
        runs: restarts of LKH, of which the best counts.
        workers: processes; by default as many as there are cores.

    Returns:
        Canonical tours, int64 [B, n].

    Raises:
        InputError: the points do not fit, or elkai is not installed.
    """
    try:
        import elkai  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            "solver 'lkh' needs the package elkai, which is not installed. Run: pip install elkai (its licence allows academic "
            "and non-commercial use only), or choose 'held_karp' (exact, few cities) or 'a2'."
        ) from error
    return _in_processes(partial(_lkh, runs=runs), points, workers)


def two_opt(points: Tensor, tours: Tensor) -> Tensor:
    """Exchange two edges for the two others that give a tour, the best such exchange first, until none shortens the tour.

    One host synchronisation a step; tours that are done are left out of the next.

    Args:
        points: floating point [B, n, 2], n >= 3.
        tours: int64 [B, n], permutations of 1..n.

    Returns:
        Canonical tours, int64 [B, n], no longer than the given ones.

    Raises:
        InputError: points or tours do not fit.
    """
    check_points(points)
    check_tours(tours, points)
    improved = tours.clone()
    rows = torch.arange(len(points), device=points.device)
    for chunk in memory_chunks(rows, _two_opt_bytes(points.shape[1])):
        improved[chunk] = _two_opt(points[chunk].double(), tours[chunk] - 1) + 1
    return canonical_tours(improved)


def _distances(points: Tensor) -> Tensor:
    """Euclidean distances [..., n, n] between points [..., n, 2], without the cancellation of |a|² - 2ab + |b|²."""
    x, y = points.unbind(-1)
    return torch.hypot(x[..., :, None] - x[..., None, :], y[..., :, None] - y[..., None, :])


# --- Held-Karp. Cities from 0; the path starts at the last city, so that bit j of a subset's number stands for city j.


def _held_karp(points: Tensor) -> Tensor:
    B, n = points.shape[:2]
    device = points.device
    distances = _distances(points)
    cities = torch.arange(n - 1, device=device)
    subsets = torch.arange(2 ** (n - 1), device=device)
    contains = (subsets[:, None] >> cities) & 1 == 1
    sizes = contains.sum(1)

    cost = points.new_full((B, 2 ** (n - 1), n - 1), float("inf"))
    cost[:, 1 << cities, cities] = distances[:, n - 1, : n - 1]
    for size in range(2, n):
        of_this_size = sizes == size
        for last in range(n - 1):
            subset = subsets[of_this_size & contains[:, last]]
            cost[:, subset, last] = (cost[:, subset - (1 << last)] + distances[:, None, last, : n - 1]).amin(2)

    rows = torch.arange(B, device=device)
    subset = torch.full_like(rows, 2 ** (n - 1) - 1)
    last = torch.full_like(rows, n - 1)
    tour = [last]
    for _ in range(n - 1):
        last = (cost[rows, subset] + distances[rows, last, : n - 1]).argmin(1)
        tour.append(last)
        subset = subset - (1 << last)
    return canonical_tours(torch.stack(tour, 1) + 1)


# --- A1 and LKH: programs for one example at a time, in a pool of processes.


def _in_processes(solve: Callable[[NDArray[np.float64]], NDArray[np.int64]], points: Tensor, workers: int | None) -> Tensor:
    """Tours from `solve` ([b, n, 2] to [b, n], cities from 0), the examples being shared out to processes."""
    check_points(points)
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; it must be a positive number of processes.")
    workers = max(1, min(workers or joblib.cpu_count(), len(points) // _SMALLEST_SHARE))
    shares = np.array_split(points.double().cpu().numpy(), 4 * workers if workers > 1 else 1)
    solved = joblib.Parallel(n_jobs=workers)(joblib.delayed(solve)(share) for share in shares)
    tours = np.concatenate(cast(list[NDArray[np.int64]], solved))
    return canonical_tours(torch.from_numpy(tours).to(points.device) + 1)


def _greedy_edges(points: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.array([solve_tsp(matrix.tolist()) for matrix in _distance_matrices(points)], dtype=np.int64)


def _lkh(points: NDArray[np.float64], runs: int) -> NDArray[np.int64]:
    import elkai  # pyright: ignore[reportMissingImports]

    distances = _distance_matrices(points)
    largest = distances.max((1, 2), keepdims=True).clip(np.finfo(np.float64).tiny)
    whole = np.rint(distances / largest * _LKH_LARGEST_DISTANCE).astype(np.int64)
    tours = [elkai.DistanceMatrix(matrix.tolist()).solve_tsp(runs=runs)[:-1] for matrix in whole]
    return np.array(tours, dtype=np.int64)


def _distance_matrices(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hypot(*np.moveaxis(points[:, :, None] - points[:, None], -1, 0))


# --- A2 and A3: a construction from each of the n starts, [B, n, 2] to [B, n starts, n] with cities from 0, then 2-opt.


def _best_of_all_starts(points: Tensor, construct: Callable[[Tensor], Tensor]) -> Tensor:
    check_points(points)
    n = points.shape[1]
    best = []
    for chunk in memory_chunks(points, n * _two_opt_bytes(n)):
        coordinates = chunk.double()
        tours = construct(coordinates).flatten(0, 1)
        repeated = coordinates.repeat_interleave(n, 0)
        tours = _two_opt(repeated, tours).unflatten(0, (-1, n))
        stops = repeated.unflatten(0, (-1, n)).take_along_dim(tours[..., None], 2)
        lengths = (stops - stops.roll(-1, 2)).norm(dim=3).sum(2)
        best.append(tours[torch.arange(len(chunk), device=points.device), lengths.argmin(1)])
    return canonical_tours(torch.cat(best) + 1)


def _two_opt_bytes(n: int) -> int:
    """Memory of `_two_opt` for one tour: about eight float64 matrices of distances."""
    return 64 * n * n


def _two_opt(points: Tensor, tours: Tensor) -> Tensor:
    """`two_opt` on float64 points [T, n, 2] and tours [T, n] with cities from 0."""
    T, n = tours.shape
    tours = tours.clone()
    place = torch.arange(n, device=points.device)
    active = torch.arange(T, device=points.device)
    while len(active):
        tour = tours[active]
        distances = _distances(points[active].take_along_dim(tour[..., None], 1))
        edge = distances[:, place, (place + 1) % n]  # from place i to place i + 1
        gain = edge[:, :, None] + edge[:, None, :] - distances - distances.roll((-1, -1), (1, 2))
        gain[:, place, place] = 0
        best, pair = gain.flatten(1).max(1)
        improves = best > _IMPROVEMENT * edge.sum(1)
        active, tour, pair = active[improves], tour[improves], pair[improves]
        i, j = torch.minimum(pair // n, pair % n)[:, None], torch.maximum(pair // n, pair % n)[:, None]
        between = (place > i) & (place <= j)
        tours[active] = tour.gather(1, torch.where(between, i + 1 + j - place, place))
    return tours


def _nearest_neighbour(points: Tensor) -> Tensor:
    B, n = points.shape[:2]
    distances = _distances(points)
    current = torch.arange(n, device=points.device).expand(B, n)
    tour, visited = [current], torch.zeros(B, n, n, dtype=torch.bool, device=points.device)
    for _ in range(n - 1):
        visited.scatter_(2, current[..., None], True)
        row = distances.take_along_dim(current[..., None], 1)
        current = row.masked_fill(visited, float("inf")).argmin(2)
        tour.append(current)
    return torch.stack(tour, 2)


def _christofides(points: Tensor) -> Tensor:
    distances = _distances(points)
    edges = _minimum_spanning_tree(distances)
    edges = edges + _greedy_matching(distances, edges.sum(2) % 2 == 1)
    return _euler_tours(edges)


def _minimum_spanning_tree(distances: Tensor) -> Tensor:
    """Prim's algorithm: int16 [B, n, n], 1 for an edge of the tree, from distances [B, n, n]."""
    B, n = distances.shape[:2]
    rows = torch.arange(B, device=distances.device)
    tree = torch.zeros(B, n, n, dtype=torch.int16, device=distances.device)
    reach, parent = distances[:, 0].clone(), torch.zeros(B, n, dtype=torch.int64, device=distances.device)
    reach[:, 0] = float("inf")
    outside = torch.ones(B, n, dtype=torch.bool, device=distances.device)
    outside[:, 0] = False
    for _ in range(n - 1):
        city = reach.argmin(1)
        tree[rows, city, parent[rows, city]] = 1
        tree[rows, parent[rows, city], city] = 1
        outside[rows, city] = False
        nearer = outside & (distances[rows, city] < reach)
        reach = torch.where(nearer, distances[rows, city], reach).masked_fill(~outside, float("inf"))
        parent = torch.where(nearer, city[:, None], parent)
    return tree


def _greedy_matching(distances: Tensor, odd: Tensor) -> Tensor:
    """Match the cities of `odd` bool [B, n], the closest two first: int16 [B, n, n], 1 for a matched pair."""
    B, n = odd.shape
    rows = torch.arange(B, device=odd.device)
    matching = torch.zeros(B, n, n, dtype=torch.int16, device=odd.device)
    free = odd.clone()
    possible = torch.triu(torch.ones(n, n, dtype=torch.bool, device=odd.device), 1)
    for _ in range(n // 2):
        allowed = free[:, :, None] & free[:, None, :] & possible
        pair = distances.masked_fill(~allowed, float("inf")).flatten(1).argmin(1)
        first, second = pair // n, pair % n
        matched = free[rows, first] & free[rows, second] & (first != second)
        matching[rows, first, second] += matched.short()
        matching[rows, second, first] += matched.short()
        free[rows, first] &= ~matched
        free[rows, second] &= ~matched
    return matching


def _euler_tours(edges: Tensor) -> Tensor:
    """Tours [B, n starts, n] along Euler circuits (Hierholzer's algorithm) from every city, through multigraphs [B, n, n].

    From the top of a stack go along an edge that is left and put its end on the stack; without one take the city off: the
    cities come off in the order of a circuit. A tour is the order in which they come off first. Every edge is gone along once
    and taken off once, so that the number of steps is known.
    """
    B, n = edges.shape[:2]
    lanes, place = B * n, torch.arange(B * n, device=edges.device)
    left = edges.repeat_interleave(n, 0)
    most_edges = n - 1 + n // 2
    stack = torch.zeros(lanes, most_edges + 1, dtype=torch.int64, device=edges.device)
    stack[:, 0] = torch.arange(n, device=edges.device).repeat(B)
    height = torch.ones(lanes, dtype=torch.int64, device=edges.device)
    tours = torch.zeros(lanes, n + 1, dtype=torch.int64, device=edges.device)  # the last column takes what is not wanted
    visited = torch.zeros(lanes, n, dtype=torch.bool, device=edges.device)
    count = torch.zeros_like(height)
    for _ in range(2 * most_edges + 1):
        running = height > 0
        top = stack[place, (height - 1).clamp_min(0)]
        row = left[place, top]
        following = (row > 0).to(torch.uint8).argmax(1)
        forward = running & (row[place, following] > 0)
        left[place, top, following] -= forward.short()
        left[place, following, top] -= forward.short()
        new = running & ~forward & ~visited[place, top]
        tours[place, torch.where(new, count, n)] = top
        visited[place, top] |= new
        count = count + new.long()
        height = torch.where(forward, height + 1, (height - 1).clamp_min(0))
        stack[place, (height - 1).clamp_min(0)] = torch.where(forward, following, stack[place, (height - 1).clamp_min(0)])
    return tours[:, :n].unflatten(0, (B, n))
