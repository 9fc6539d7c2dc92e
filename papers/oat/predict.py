"""How near do chance, the centre, frequencies, a walk and copies of scanpaths come to people, under each protocol?"""

import numpy as np

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.metrics.scanpaths import paths_of
from papers.oat.predictors import predictors, walk_cross_entropy
from papers.oat.protocols import Protocol, parts_of
from papers.oat.scanpath_sets import DataName, load
from papers.oat.scoring import add_scores, saccade_threshold


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        protocol: which parts.
        data_set: of `scanpath_sets.load`.
        seeds: of the draws.
        samples: predictions for each test scanpath.
        matched: of them, those that MultiMatch looks at.
    """

    protocol: Protocol
    data_set: DataName
    seeds: list[int]
    samples: int
    matched: int


def run(settings: Settings, context: Context) -> Measurement:
    """Score every predictor.

    Rows of `scoring.add_scores` (`sequence_score`, `behaviour_difference` and others), one method a predictor; and
    `next_cell_cross_entropy` of the walk and of chance.
    """
    measurement = Measurement()
    parts = parts_of(settings.protocol, *load(settings.data_set))
    tested = [parts.records[number] for number in parts.test]
    threshold = saccade_threshold([parts.records[number] for number in parts.train])
    found = {name: draw for name, draw in predictors(parts).items() if draw is not None}
    progress = context.progress(len(settings.seeds) * len(found))
    for seed in settings.seeds:
        for name, draw in found.items():
            generator = np.random.default_rng([seed, *name.encode()])
            predicted = paths_of([draw(test, generator) for test in tested for _ in range(settings.samples)])
            add_scores(
                measurement, predicted, tested, method=name, threshold=threshold, matched=settings.matched, seed=seed
            )  # fmt: skip
            progress.step(name)
    measurement.add("next_cell_cross_entropy", walk_cross_entropy(tested), "nat", method="walk")
    measurement.add("next_cell_cross_entropy", float(np.log(84)), "nat", method="uniform")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
