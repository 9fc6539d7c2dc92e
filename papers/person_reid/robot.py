"""Does the layout that is best on FigReID-street, unchanged, do well on FigReID-robot when it is trained there?"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata, spearmanr

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.metrics.reidentification import by_part, scores_in_short
from papers.person_reid.blocks import BlockName
from papers.person_reid.figreid import Counts, Difficulty, figreid
from papers.person_reid.layouts import NONE, name_of, stage_masks
from papers.person_reid.methods import chosen_layouts
from papers.person_reid.network import Backbone, ReidNetwork
from papers.person_reid.training import Job, Schedule, Scores, Trial, train_all


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        block: which block is placed.
        backbone: which ResNet, at which size.
        data_seed: of FigReID.
        counts: of robot's identities and images.
        difficulty: of cameras and nuisances.
        schedule: of every training.
        seeds: of each layout.
        parts: of the test identities, over which intervals are taken.
    """

    block: BlockName
    backbone: Backbone
    data_seed: int
    counts: Counts
    difficulty: Difficulty
    schedule: Schedule
    seeds: list[int]
    parts: int


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's correlation; 0 where one side is constant, as there is no order to agree with."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b)[0])  # pyright: ignore[reportArgumentType]


def run(settings: Settings, context: Context) -> Measurement:
    """Train and test the 16 subsets of the last blocks of stages, and street's best layout.

    Rows by layout, seed and `role` (best: that of street; plain; other): `map`, `minp`, `rank_1`, `rank_5`, `rank_10`, `loss`;
    `map_of_part` by `part`. Rows of the whole: `map_gain` (street's best, `over` plain), `layouts`, `rank_share` (of street's
    best: its rank by mean mAP over the number of layouts), `rank_correlation` (Spearman, of mean mAP of the layouts, street's
    validation with robot's test).
    """
    measurement = Measurement()
    search = context.results_of("search")
    (best,) = chosen_layouts(search, "best")
    layouts = list(dict.fromkeys([*stage_masks(settings.backbone.depth), best]))
    parts = figreid("robot", settings.data_seed, settings.counts, settings.difficulty, settings.backbone.size)
    trial = Trial.of(parts["query"], parts["gallery"], context.device)

    def after(_: Job, network: ReidNetwork) -> Scores:
        scores = trial.scores_of(network, settings.schedule.precision)
        found = {metric: [value] for metric, value in scores_in_short(scores).items()}
        return {**found, "part": [100 * value for value in by_part(scores, trial.identities[0], settings.parts)]}

    jobs = [
        Job(name_of(layout), settings.backbone, dict.fromkeys(sorted(layout), settings.block), seed)
        for layout in layouts
        for seed in settings.seeds
    ]
    found = train_all(jobs, parts["train"], settings.schedule, context, after)
    table = search.table()
    street_rows = table[(table["metric"] == "map") & table["layout"].isin([name_of(layout) for layout in layouts])]
    street = street_rows.groupby("layout")["value"].mean()
    means = {}
    for layout in layouts:
        name = name_of(layout)
        role = "best" if layout == best else "plain" if name == NONE else "other"
        for seed in settings.seeds:
            scores = found[f"{name} seed {seed}"]
            place = {"layout": name, "role": role, "seed": seed}
            for metric in ("map", "minp", "rank_1", "rank_5", "rank_10", "loss"):
                unit = "nat" if metric == "loss" else "%"
                measurement.add(metric, scores[metric][0], unit, method=settings.block if layout else "plain", **place)
            for part, value in enumerate(scores["part"]):
                measurement.add(
                    "map_of_part", value, "%", method=settings.block if layout else "plain", part=part, **place
                )  # fmt: skip
        means[name] = float(np.mean([found[f"{name} seed {seed}"]["map"][0] for seed in settings.seeds]))
    ranks = dict(zip(means, rankdata([-value for value in means.values()]), strict=True))
    measurement.add("map_gain", means[name_of(best)] - means[NONE], "%", over="plain")
    measurement.add("layouts", len(layouts), "layouts")
    measurement.add("rank_share", ranks[name_of(best)] / len(layouts))
    measurement.add("rank_correlation", rank_correlation([float(street.loc[name]) for name in means], list(means.values())))
    return measurement


if __name__ == "__main__":
    main(run, Settings)
