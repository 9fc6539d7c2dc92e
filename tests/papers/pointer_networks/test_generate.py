"""Generated examples: reproducible, separate, solved, in order."""

import pytest
import torch

from common.errors import InputError
from papers.pointer_networks import generate
from papers.pointer_networks.convex_hull import convex_hulls, hull_scores
from papers.pointer_networks.delaunay import delaunay_triangulations, triangulation_scores
from papers.pointer_networks.generate import training_examples, uniform_points
from papers.pointer_networks.tour_solvers import solve_tours
from papers.pointer_networks.travelling_salesman import tour_sequences

TASKS: list[generate.Task] = ["convex_hull", "delaunay", "travelling_salesman"]


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_same_examples(task):
    one, two = (training_examples(task, 6, 50, 3, "cpu") for _ in range(2))
    assert one.digest() == two.digest()
    assert training_examples(task, 6, 50, 4, "cpu").digest() != one.digest()
    assert generate.test_examples(task, 6, 50, 3).digest() == generate.test_examples(task, 6, 50, 3).digest()
    assert (len(one), one.size, one.points.dtype) == (50, 6, torch.float32)


def test_every_split_task_size_and_seed_has_its_own_points():
    keys = [(split, task, n, seed) for split in ("train", "test") for task in TASKS for n in (5, 6) for seed in (0, 1)]
    first = [tuple(uniform_points(split, task, n, 1, seed)[0, :5].flatten().tolist()) for split, task, n, seed in keys]  # pyright: ignore[reportArgumentType]
    assert len(set(first)) == len(keys)


def test_points_are_uniform_and_fit_exact_arithmetic():
    points = uniform_points("train", "convex_hull", 50, 2000, 0)
    assert (points.shape, points.dtype) == ((2000, 50, 2), torch.float32)
    assert 0 <= float(points.min()) < float(points.max()) < 1
    whole = points.double() * 2**24
    assert torch.equal(whole, whole.round())
    flat = points.double().flatten(0, 1)
    assert flat.mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.005)
    assert flat.var(0).tolist() == pytest.approx([1 / 12, 1 / 12], rel=0.02)
    assert float(torch.corrcoef(flat.T)[0, 1]) == pytest.approx(0, abs=0.02)


def test_a_larger_count_begins_with_the_smaller():
    assert torch.equal(uniform_points("train", "delaunay", 7, 20, 1)[:10], uniform_points("train", "delaunay", 7, 10, 1))


def test_libraries_and_our_own_code_label_alike():
    hulls = generate.test_examples("convex_hull", 30, 100, 0)
    assert torch.equal(hulls.sequences, convex_hulls(hulls.points))
    triangulations = generate.test_examples("delaunay", 8, 100, 0)
    assert torch.equal(triangulations.sequences, delaunay_triangulations(triangulations.points))
    trained = training_examples("delaunay", 8, 100, 0, "cpu")
    assert torch.equal(trained.sequences, delaunay_triangulations(trained.points))


@pytest.mark.parametrize(("n", "solver"), [(7, None), (7, "a1"), (13, "a2"), (13, "a3"), (13, "held_karp")])
def test_tours_are_by_the_solver_named(n, solver):
    for examples in (
        training_examples("travelling_salesman", n, 5, 0, "cpu", solver=solver, workers=1),
        generate.test_examples("travelling_salesman", n, 5, 0, solver=solver, workers=1),
    ):
        expected = tour_sequences(solve_tours(examples.points, solver or "held_karp"))
        assert torch.equal(examples.sequences, expected)


def test_random_order_is_of_the_same_solutions():
    canonical, turned = (training_examples("convex_hull", 10, 300, 0, "cpu", order=order) for order in ("canonical", "random"))
    assert torch.equal(canonical.points, turned.points)
    assert not torch.equal(canonical.sequences, turned.sequences)
    assert hull_scores(turned.points, turned.sequences, canonical.sequences, either_direction=True).accuracy == 1
    canonical, turned = (training_examples("delaunay", 6, 300, 0, "cpu", order=order) for order in ("canonical", "random"))
    assert not torch.equal(canonical.sequences, turned.sequences)
    assert triangulation_scores(turned.points, turned.sequences, canonical.sequences).accuracy == 1


@pytest.mark.parametrize("make", [training_examples, generate.test_examples])
def test_what_is_refused(make):
    device = {"device": "cpu"}
    for arguments, message in [
        (("hull", 5, 1, 0), "task is 'hull'; choose one of convex_hull"),
        (("convex_hull", 2, 1, 0), "n is 2; it must be at least 3"),
        (("delaunay", 5, 0, 0), "count is 0"),
        (("delaunay", 5, 1, -1), "seed is -1"),
        (("travelling_salesman", 13, 1, 0), "beyond 12 cities the solver must be named"),
    ]:
        with pytest.raises(InputError, match=message):
            make(*arguments, **device)
    for task in ("convex_hull", "delaunay"):
        with pytest.raises(InputError, match="only travelling_salesman has solvers"):
            make(task, 5, 1, 0, solver="a1", **device)
    with pytest.raises(InputError, match="up to n = 15"):
        make("travelling_salesman", 16, 1, 0, solver="held_karp", **device)


def test_orders_that_do_not_exist():
    with pytest.raises(InputError, match="choose 'canonical'"):
        training_examples("travelling_salesman", 5, 1, 0, "cpu", order="random")
    with pytest.raises(InputError, match="order is 'sorted'"):
        training_examples("convex_hull", 5, 1, 0, "cpu", order="sorted")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="split is 'validation'"):
        uniform_points("validation", "convex_hull", 5, 1, 0)  # pyright: ignore[reportArgumentType]


@pytest.mark.gpu
@pytest.mark.parametrize("task", TASKS)
def test_examples_made_on_gpu_equal_those_made_on_the_cpu(task):
    on_gpu, on_cpu = (training_examples(task, 8, 2000, 0, device) for device in ("cuda", "cpu"))
    assert on_gpu.points.is_cuda
    assert on_gpu.digest() == on_cpu.digest()
