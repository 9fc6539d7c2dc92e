"""Travelling salesman: the solvers beside which Table 2 puts the pointer network, on the same test sets."""

import torch

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from papers.pointer_networks.generate import EXACT_TOURS_UP_TO, uniform_points
from papers.pointer_networks.tour_references import mean_of_parts, reference_lengths
from papers.pointer_networks.tour_solvers import Solver, solve_tours
from papers.pointer_networks.travelling_salesman import tour_lengths


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        n: cities.
        counts: cities -> examples; as in the test sets of `tours`, which are the same points.
        data_seed: of the test points.
        solvers: which; "held_karp" is left out beyond 12 cities.
        parts: into which the test set is parted, for comparisons in pairs.
    """

    n: int
    counts: dict[int, int]
    data_seed: int
    solvers: list[Solver]
    parts: int


def run(settings: Settings, context: Context) -> Measurement:
    """Mean lengths of every solver, over the reference, and by part."""
    measurement = Measurement()
    n = settings.n
    points = uniform_points("test", "travelling_salesman", n, settings.counts[n], settings.data_seed).to(context.device)
    reference = reference_lengths(points)
    lengths: dict[str, torch.Tensor] = {"reference": reference}
    progress = context.progress(len(settings.solvers))
    for solver in settings.solvers:
        if solver != "held_karp" or n <= EXACT_TOURS_UP_TO:
            lengths[solver] = tour_lengths(points, solve_tours(points, solver))
        progress.step(solver)
    for name, values in lengths.items():
        measurement.add("length", values.mean(), method=name)
        measurement.add("length_ratio", values.mean() / reference.mean(), method=name)
        for part, mean in enumerate(mean_of_parts(values, settings.parts)):
            measurement.add("length_of_part", mean, method=name, part=part)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
