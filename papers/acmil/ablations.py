"""What do K, p, M, the rule of masking, the diversity loss and the readings of paper and code change?"""

import numpy as np

from common.configuration import Parameters
from common.data.bags import joined, padded
from common.errors import ConfigError
from common.experiment import Context, Measurement, main
from papers.acmil.comparison import add_scores_of_runs
from papers.acmil.large_bags import synthetic_runs
from papers.acmil.models import Method, Sizes
from papers.acmil.synthetic_slides import SlideRecipe
from papers.acmil.training import Schedule, train_methods


class Settings(Parameters):
    """Parameters of `config.yaml`.

    Attributes:
        recipe: what bags look like.
        rate: of witnesses.
        noise: added to every feature.
        train_bags: of each seed.
        test_bags: of each seed.
        seeds: of bags, parameters, order and masking.
        methods: name -> method.
        k_sweep: names of the methods that differ in K alone.
        sizes: of the networks.
        schedule: of the optimisation.
    """

    recipe: SlideRecipe
    rate: float
    noise: float
    train_bags: int
    test_bags: int
    seeds: list[int]
    methods: dict[str, Method]
    k_sweep: list[str]
    sizes: Sizes
    schedule: Schedule


def run(settings: Settings, context: Context) -> Measurement:
    """Train and test every method with each seed.

    Rows are those of `comparison.add_scores_of_runs`, among them `auc`, `f1_macro`, `branch_cosine`; and `auc_range_over_k`,
    the greatest less the least mean AUC over `k_sweep`.

    Raises:
        ConfigError: `k_sweep` names an unknown method.
    """
    if not settings.k_sweep or set(settings.k_sweep) - set(settings.methods):
        raise ConfigError(f"k_sweep = {settings.k_sweep}: it needs names among {', '.join(settings.methods)}.")
    measurement = Measurement()
    counts = settings.train_bags, settings.test_bags
    parts, runs = synthetic_runs(settings.recipe, [settings.rate], settings.seeds, *counts, settings.noise)
    bags = padded(joined(parts), context.device)
    networks = train_methods(settings.methods, settings.sizes, settings.schedule, bags, runs, context)
    add_scores_of_runs(measurement, networks, bags, runs)
    means = [
        np.mean([row.value for row in measurement.rows if row.metric == "auc" and row.method == name])
        for name in settings.k_sweep
    ]
    measurement.add("auc_range_over_k", max(means) - min(means))
    return measurement


if __name__ == "__main__":
    main(run, Settings)
