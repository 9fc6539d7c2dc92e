"""Does OAT search as people do, do its parts help, and what does the protocol of the test do to the numbers?"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from common.configuration import Parameters
from common.data.amazon_book_covers import COLUMNS, ROWS, Scanpath
from common.errors import ConfigError
from common.experiment import Context, Measurement, main
from common.figures import rows_where
from common.metrics.scanpaths import paths_of
from common.training import derived_seed
from papers.oat.decoding import generate
from papers.oat.oat import OAT, Scenes
from papers.oat.protocols import Parts, Protocol, parts_of
from papers.oat.scanpath_sets import DataName, load
from papers.oat.scoring import add_scores, saccade_threshold
from papers.oat.training import Fitting, NetworkSettings, Trials, held_out_loss, make_networks, make_table, train
from papers.oat.variants import VARIANTS

BLIND = ("uniform_human_length", "centre", "frequency", "random_collage")
"""Predictors that look at neither scene nor target."""


class Training(Parameters):
    """A line of `trainings`.

    Attributes:
        protocol: which parts.
        variant: a name in `VARIANTS`.
    """

    protocol: Protocol
    variant: str


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        training: a key of `trainings`.
        trainings: see `Training`.
        data_set: of `scanpath_sets.load`.
        seeds: of initial parameters, order, dropout and samples; under `unseen_target` seed and fold go together.
        collages: the first so many of training, validation and test alone; 0 is all.
        network: widths.
        fitting: how to train.
        samples: scanpaths drawn for each test scanpath.
        matched: of them, those that MultiMatch looks at.
        pictured: test scanpaths that are kept for figures.
    """

    training: str
    trainings: dict[str, Training]
    data_set: DataName
    seeds: list[int]
    collages: int
    network: NetworkSettings
    fitting: Fitting
    samples: int
    matched: int
    pictured: int


def trials_of(records: Sequence[Scanpath], longest: int, device: str) -> Trials:
    """Scanpaths on the device, padded to `longest`."""
    paths = paths_of([(*record.cells, *[0] * (longest - len(record.cells))) for record in records], device)
    paths = type(paths)(paths.objects, torch.tensor([len(record.cells) for record in records], device=device))
    target = torch.tensor([record.target for record in records], device=device)
    identity = torch.tensor([record.target_image for record in records], device=device)
    scenes = Scenes(target, identity, torch.zeros(len(records), 0, 0, device=device))
    return Trials(scenes, paths, (ROWS, COLUMNS))


def some(parts: Parts, collages: int) -> Parts:
    """The parts with the first collages of each alone."""
    if not collages:
        return parts

    def cut(rows: np.ndarray) -> np.ndarray:
        allowed = sorted({parts.records[row].collage for row in rows})[:collages]
        return np.array([row for row in rows if parts.records[row].collage in allowed])

    return Parts(parts.records, cut(parts.train), cut(parts.validation), cut(parts.test))


def next_cell_loss(network: OAT, trials: Trials) -> float:
    """Cross entropy in nats of fixations from the second on, among cells alone: beside `walk_cross_entropy`."""
    with torch.no_grad():
        logits = network(trials.scenes, trials.paths.objects)[:, 1:-1, : network.N].float()
    said = trials.paths.objects[:, 1:].masked_fill(~trials.paths.mask[:, 1:], -100)
    return float(cross_entropy(logits.flatten(0, 1), said.flatten(), ignore_index=-100))


def run(settings: Settings, context: Context) -> Measurement:
    """Train one network a seed and search the test scenes.

    Rows by `protocol` and `seed`, the variant as method: those of `scoring.add_scores` by `decoding`, sampled or greedy;
    `cross_entropy` and `next_cell_cross_entropy` on the test; `best_epoch`; beside the predictors that see nothing,
    `sequence_score_gain` over the best of them and `behaviour_difference_share` of the best of the three that are drawn; and by
    `epoch` `training_loss` and `validation`.
    """
    if settings.training not in settings.trainings:
        raise ConfigError(f"training = {settings.training!r} is not among trainings: {', '.join(settings.trainings)}.")
    chosen, measurement = settings.trainings[settings.training], Measurement()
    scanpaths, splits = load(settings.data_set)
    folds = [
        some(parts_of(chosen.protocol, scanpaths, splits, fold=number % 5), settings.collages)
        for number in range(len(settings.seeds))
    ]
    records = folds[0].records
    longest = max(len(records[row].cells) for parts in folds for row in parts.train)
    trials = trials_of(records, max(len(record.cells) for record in records), context.device)
    fewest = min(len(parts.train) for parts in folds)  # networks side by side learn from equally many
    training = [
        np.sort(np.random.default_rng(derived_seed(seed, "rows")).permutation(parts.train)[:fewest])
        for seed, parts in zip(settings.seeds, folds, strict=True)
    ]
    named = VARIANTS[chosen.variant]
    table = make_table(named.positions, named.sigma, trials.grid, settings.network)
    networks = make_networks(
        settings.network, named.network, table, trials, settings.seeds, longest=trials.paths.objects.shape[1]
    )
    found = train(
        networks,
        trials,
        training,
        [parts.validation for parts in folds],
        settings.fitting,
        seeds=settings.seeds,
        longest=longest,
    )
    blind = _best_of_the_blind(context, chosen.protocol)
    for number, (seed, parts) in enumerate(zip(settings.seeds, folds, strict=True)):
        network = found.networks.network(number)
        assert isinstance(network, OAT)
        tested = [records[row] for row in parts.test]
        part = trials[torch.from_numpy(parts.test).to(trials.paths.objects.device)]
        threshold = saccade_threshold([records[row] for row in parts.train])
        place = {"protocol": chosen.protocol, "seed": seed}

        def add(metric: str, value: float, unit: str = "1", *, place: dict = place) -> None:
            measurement.add(metric, value, unit, method=chosen.variant, **place)

        add("cross_entropy", held_out_loss(network, part), "nat")
        add("next_cell_cross_entropy", next_cell_loss(network, part), "nat")
        add("best_epoch", found.epoch[number], "epochs")
        generator = torch.Generator(context.device).manual_seed(derived_seed(seed, "samples"))
        for decoding, samples in (("sampled", settings.samples), ("greedy", 0)):
            predicted = generate(network, part.scenes, longest=longest, samples=samples, generator=generator)
            add_scores(
                measurement, predicted, tested, method=chosen.variant, threshold=threshold, matched=settings.matched,
                decoding=decoding, **place,
            )  # fmt: skip
            if number == 0:
                _keep(measurement, decoding, predicted.lists(), max(samples, 1), tested, settings.pictured)
        if blind is not None:
            score, difference = (
                next(
                    row.value
                    for row in reversed(measurement.rows)
                    if row.metric == metric and row.setting["decoding"] == "sampled"
                )
                for metric in ("sequence_score", "behaviour_difference")
            )
            add("sequence_score_gain", score - blind[0])
            add("behaviour_difference_share", difference / blind[1])
    for epoch, loss, scores in found.curve:
        measurement.add(
            "training_loss", loss / len(settings.seeds), "nat", method=chosen.variant, protocol=chosen.protocol, epoch=epoch
        )
        for seed, score in zip(settings.seeds, scores, strict=True):
            measurement.add("validation", -score, method=chosen.variant, protocol=chosen.protocol, epoch=epoch, seed=seed)
    return measurement


def _best_of_the_blind(context: Context, protocol: Protocol) -> tuple[float, float] | None:
    """Greatest sequence score of `BLIND`, least Δ of all but the copies; None under a protocol without predictors."""
    table = context.results_of("predict").table()
    rows = rows_where(table, protocol=protocol)
    if rows.empty:
        return None

    def means(metric: str, methods: Sequence[str]) -> list[float]:
        return [float(rows_where(rows, metric=metric, method=method)["value"].mean()) for method in methods]

    drawn = [method for method in BLIND if method != "random_collage"]
    return max(means("sequence_score", BLIND)), min(means("behaviour_difference", drawn))


def _keep(
    measurement: Measurement, decoding: str, paths: list[list[int]], samples: int, tested: list[Scanpath], count: int
) -> None:
    """Scanpaths for figures, padded with -1: of the human, the network's first, and the target."""
    for number, human in enumerate(tested[:count]):
        measurement.arrays[f"{decoding}_{number}"] = np.array(paths[number * samples], dtype=np.int16)
        measurement.arrays[f"human_{number}"] = np.array(human.cells, dtype=np.int16)
        measurement.arrays[f"target_{number}"] = np.array([human.target], dtype=np.int16)


if __name__ == "__main__":
    main(run, Settings)
