"""Is FigReID learnable and not trivial? What needs no learning, and the plain network while it learns. To be read first."""

import numpy as np

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.metrics.reidentification import scores_in_short
from papers.person_reid.anchors import anchor_features
from papers.person_reid.figreid import Counts, Difficulty, Place, figreid
from papers.person_reid.network import Backbone, ReidNetwork
from papers.person_reid.training import Job, Schedule, Scores, Trial, make_network, train_all

SHOWN_IDENTITIES, SHOWN_IMAGES = 4, 6


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        place: street or robot.
        backbone: which ResNet, at which size.
        data_seed: of FigReID.
        counts: place -> its identities and images.
        difficulty: of cameras and nuisances.
        schedule: of every training.
        seeds: of the plain network.
        curve_rows: how often the test is scored during training.
    """

    place: Place
    backbone: Backbone
    data_seed: int
    counts: dict[Place, Counts]
    difficulty: Difficulty
    schedule: Schedule
    seeds: list[int]
    curve_rows: int


def run(settings: Settings, context: Context) -> Measurement:
    """Score anchors, the network before training, and the plain network.

    Rows by method: `map`, `minp`, `rank_1`, `rank_5`, `rank_10`, those of trained networks by seed; `map_in_training` by `step`
    and seed; `images` by `part`. Arrays: `shown`, images of four identities, one a row.
    """
    measurement = Measurement()
    counts = settings.counts[settings.place]
    parts = figreid(settings.place, settings.data_seed, counts, settings.difficulty, settings.backbone.size)
    for name, images in parts.items():
        measurement.add("images", len(images), "images", part=name)
    trial = Trial.of(parts["query"], parts["gallery"], context.device)
    for name, pair in anchor_features(trial, settings.data_seed).items():
        for metric, value in scores_in_short(trial.scores(*pair)).items():
            measurement.add(metric, value, "%", method=name)
    jobs = [Job("plain", settings.backbone, {}, seed) for seed in settings.seeds]
    untrained = make_network(jobs[0], 2).to(context.device)
    for metric, value in scores_in_short(trial.scores_of(untrained, settings.schedule.precision)).items():
        measurement.add(metric, value, "%", method="untrained")

    def after(_: Job, network: ReidNetwork) -> Scores:
        scores = scores_in_short(trial.scores_of(network, settings.schedule.precision))
        return {metric: [value] for metric, value in scores.items()}

    def curve(network: ReidNetwork) -> float:
        return 100 * trial.scores_of(network, settings.schedule.precision).mean("average_precision")

    found = train_all(
        jobs, parts["train"], settings.schedule, context, after, curve=curve, curve_rows=settings.curve_rows
    )  # fmt: skip
    for job in jobs:
        scores = found[job.name]
        for metric in ("map", "minp", "rank_1", "rank_5", "rank_10"):
            measurement.add(metric, scores[metric][0], "%", method="plain", seed=job.seed)
        for step, value in zip(scores["curve_step"], scores["curve"], strict=True):
            measurement.add("map_in_training", value, "%", method="plain", seed=job.seed, step=int(step))
    train = parts["train"]
    first = np.unique(train.identities)[:SHOWN_IDENTITIES]
    rows = [np.flatnonzero(train.identities == identity) for identity in first]
    measurement.arrays["shown"] = np.stack(
        [train.pixels[own[np.linspace(0, len(own) - 1, SHOWN_IMAGES).astype(int)]] for own in rows]
    )
    return measurement


if __name__ == "__main__":
    main(run, Settings)
