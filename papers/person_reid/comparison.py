"""Does the block keep up with deeper networks and with more complex blocks? Fresh seeds, test identities.

Layouts come from the search, which has seen neither these seeds nor the test identities.
"""

from collections.abc import Mapping

import numpy as np
import torch

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.metrics.reidentification import by_part, scores_in_short
from papers.person_reid.blocks import BlockName
from papers.person_reid.figreid import Counts, Difficulty, figreid
from papers.person_reid.forward_time import multiply_adds
from papers.person_reid.layouts import name_of
from papers.person_reid.methods import Method, attention_of, backbone_of, chosen_layouts
from papers.person_reid.network import Backbone, Position, ReidNetwork
from papers.person_reid.training import Job, Schedule, Scores, Trial, make_network, train_all

OURS = "little_best"


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        backbone: which ResNet, at which size.
        data_seed: of FigReID.
        counts: of street's identities and images.
        robot_counts: of robot's, whose test identities are looked at without training on any.
        difficulty: of cameras and nuisances.
        schedule: of every training.
        methods: name -> network.
        seeds: of each method.
        confirmation_seeds: of the layouts that the rules of the search predict to be best and worst.
        parts: of the test identities, over which intervals are taken.
    """

    backbone: Backbone
    data_seed: int
    counts: Counts
    robot_counts: Counts
    difficulty: Difficulty
    schedule: Schedule
    methods: dict[str, Method]
    seeds: list[int]
    confirmation_seeds: list[int]
    parts: int


def run(settings: Settings, context: Context) -> Measurement:
    """Train and test.

    Rows by method, seed and `test_set` (street; robot: without training there): `map`, `minp`, `rank_1`, `rank_5`, `rank_10`;
    `map_of_part` by `part` of the identities of street; `map_gain`, mean over seeds of the block's mAP less that `over`
    another method's; `multiply_adds`, `parameters` and `loss` by method. Layouts of the rules carry `group` top or bottom.
    """
    measurement = Measurement()
    search = context.results_of("search")
    (best,) = chosen_layouts(search, "best")
    street = figreid("street", settings.data_seed, settings.counts, settings.difficulty, settings.backbone.size)
    robot = figreid("robot", settings.data_seed, settings.robot_counts, settings.difficulty, settings.backbone.size)
    trials = {
        name: Trial.of(parts["query"], parts["gallery"], context.device)
        for name, parts in (("street", street), ("robot", robot))
    }
    jobs, places = [], {}
    for name, method in settings.methods.items():
        own = attention_of(method, settings.backbone, best)
        places[name] = {"group": "compared", "layout": name_of(own)}
        jobs += [Job(name, backbone_of(method, settings.backbone), own, seed) for seed in settings.seeds]
    block = settings.methods[OURS].block
    assert block is not None
    for group in ("top", "bottom"):
        for number, layout in enumerate(chosen_layouts(search, group), start=1):
            name = f"predicted_{group}_{number}"
            places[name] = {"group": group, "layout": name_of(layout)}
            attention: dict[Position, BlockName] = dict.fromkeys(sorted(layout), block)
            jobs += [Job(name, settings.backbone, attention, seed) for seed in settings.confirmation_seeds]

    def after(_: Job, network: ReidNetwork) -> Scores:
        found: Scores = {}
        for name, trial in trials.items():
            scores = trial.scores_of(network, settings.schedule.precision)
            found |= {f"{name}/{metric}": [value] for metric, value in scores_in_short(scores).items()}
            if name == "street":
                found["part"] = [100 * value for value in by_part(scores, trial.identities[0], settings.parts)]
        return found

    found = train_all(jobs, street["train"], settings.schedule, context, after)
    for job in jobs:
        scores, place = found[job.name], {**places[job.method], "seed": job.seed}
        measurement.add("loss", scores["loss"][0], "nat", method=job.method, **place)
        for name in trials:
            for metric in ("map", "minp", "rank_1", "rank_5", "rank_10"):
                value = scores[f"{name}/{metric}"][0]
                measurement.add(metric, value, "%", method=job.method, test_set=name, **place)
        for part, value in enumerate(scores["part"]):
            measurement.add("map_of_part", value, "%", method=job.method, test_set="street", part=part, **place)
    _add_gains(measurement, settings, found)
    for name in places:
        job = next(job for job in jobs if job.method == name)
        network = make_network(job, 2).eval()
        size = sum(x.numel() for key, x in network.named_parameters() if not key.startswith("classifier"))
        count = multiply_adds(network, torch.zeros(1, 3, *settings.backbone.size))
        measurement.add("parameters", size / 1e6, "million", method=name, **places[name])
        measurement.add("multiply_adds", count / 1e6, "million", method=name, **places[name])
    return measurement


def _add_gains(measurement: Measurement, settings: Settings, found: Mapping[str, Scores]) -> None:
    means = {
        name: float(np.mean([found[f"{name} seed {seed}"]["street/map"][0] for seed in settings.seeds]))
        for name in settings.methods
    }
    for name, mean in means.items():
        if name != OURS:
            measurement.add("map_gain", means[OURS] - mean, "%", method=OURS, over=name)


if __name__ == "__main__":
    main(run, Settings)
