"""Which way to read the layers of a frozen encoder is best: Gaussian gates, multi-head attention, or none at all?"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.training import derived_seed
from papers.gaam.gaussian_attention import GaussianAttention
from papers.gaam.layer_features import LayerFeatures, splits_of
from papers.gaam.models import Method, Sizes, parameter_counts
from papers.gaam.subjects import Subject, features_of
from papers.gaam.training import Run, Schedule, Trainer, scores_of, train_methods


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        data_set: which.
        subjects: data set -> how it is read.
        seeds: one a run: of parameters and order, and of the validation part where there are no folds.
        validation_share: of the training samples, where there are no folds.
        methods: name -> method.
        of_the_paper: methods that the paper's tables compare: their spread is measured.
        baseline: the method whose deviation over runs others are held against.
        parts: data set -> heads of v1 and of the mixture.
        sizes: of the networks, but for `parts`.
        schedules: data set -> optimisation.
        at_once: methods on the device at a time.
    """

    data_set: str
    subjects: dict[str, Subject]
    seeds: list[int]
    validation_share: float
    methods: dict[str, Method]
    of_the_paper: list[str]
    baseline: str
    parts: dict[str, int]
    sizes: dict[str, int | list[int]]
    schedules: dict[str, Schedule]
    at_once: int


def runs_of(features: LayerFeatures, seeds: Sequence[int], validation_share: float) -> list[Run]:
    """One training for each fold or seed.

    Validation and test samples are put in a random order: where files are sorted by class, attention over the batch axis would
    read the class off the batch.
    """
    runs = []
    for split, seed in zip(splits_of(features, seeds, validation_share), seeds, strict=True):
        rng = np.random.default_rng(derived_seed(seed, "order of evaluation"))
        runs.append(Run(split.number, seed, split.train, rng.permutation(split.validation), rng.permutation(split.test)))
    return runs


def add_scores(measurement: Measurement, name: str, trainer: Trainer, runs: Sequence[Run]) -> np.ndarray:
    """Rows of each run, and the deviation over runs; returns the accuracies, float64 [R].

    `accuracy` is the test accuracy of the epoch that is best on validation; `accuracy_chosen_on_test` that of the epoch best on
    test, as the official code reports it; `gain_of_choosing_on_test` their difference.
    """
    scores = scores_of(trainer)
    for place, run in enumerate(runs):
        of_run = {
            "accuracy": scores.nested[place],
            "accuracy_chosen_on_test": scores.on_test[place],
            "accuracy_of_last_epoch": scores.last[place],
            "gain_of_choosing_on_test": scores.on_test[place] - scores.nested[place],
        }
        for metric, value in of_run.items():
            measurement.add(metric, value, unit="%", method=name, run=run.number)
        measurement.add("chosen_epoch", scores.epochs[place], method=name, run=run.number)
    if len(runs) > 1:
        measurement.add("deviation_over_runs", scores.nested.std(ddof=1), unit="%", method=name)
    measurement.arrays[f"accuracies_{name}"] = trainer.accuracies.cpu().numpy()
    return scores.nested


def add_batch_rows(measurement: Measurement, name: str, trainer: Trainer, runs: Sequence[Run], seed: int) -> None:
    """What the composition of the test batches changes: rows `accuracy_by_batches` and `predictions_changed`.

    Test samples in the random order in which they are scored, in another one, sorted by class, and each alone (its batch filled
    up with itself). The share of predictions that differ from those as scored is 0 for a method that reads samples one by one.
    """
    rows, real = trainer.parts["test"]
    labels = trainer.features.labels
    generator = torch.Generator().manual_seed(derived_seed(seed, "batches"))
    shuffled = torch.stack([torch.randperm(rows.shape[1], generator=generator) for _ in runs]).to(rows.device)
    by_class = torch.argsort(labels[rows], dim=1, stable=True)
    usual = trainer.predictions(rows)

    def reordered(order: torch.Tensor) -> torch.Tensor:
        predicted = trainer.predictions(rows.gather(1, order))
        return torch.empty_like(predicted).scatter_(1, order, predicted)

    B = trainer.schedule.batch_size
    alone = trainer.predictions(rows.repeat_interleave(B, dim=1))[:, ::B]
    every = {"as_scored": usual, "shuffled": reordered(shuffled), "by_class": reordered(by_class), "alone": alone}
    for batches, predicted in every.items():
        right = 100 * ((predicted == labels[rows]) & real).sum(1) / real.sum(1)
        changed = 100 * ((predicted != usual) & real).sum(1) / real.sum(1)
        for place, run in enumerate(runs):
            measurement.add("accuracy_by_batches", right[place], unit="%", method=name, batches=batches, run=run.number)
            if batches != "as_scored":
                measurement.add("predictions_changed", changed[place], unit="%", method=name, batches=batches, run=run.number)


def add_gate_rows(measurement: Measurement, name: str, trainer: Trainer, runs: Sequence[Run]) -> None:
    """The mean gate of each run (array `gate_<method>`, [R, N, d]), and the ranges of δ and ξ that were learned.

    The latter are rows of `smallest_delta`, `largest_delta`, `smallest_xi` and `largest_xi`.
    """
    gate = trainer.mean_gate()
    measurement.arrays[f"gate_{name}"] = gate.astype(np.float32)
    for place, run in enumerate(runs):
        measurement.add("smallest_mean_gate", gate[place].min(), method=name, run=run.number)
        measurement.add("largest_mean_gate", gate[place].max(), method=name, run=run.number)
    learned = {n.rsplit("/", 1)[-1]: x for n, x in trainer.networks.named_parameters() if n.endswith(("/delta", "/xi"))}
    for symbol, values in learned.items():
        for place, run in enumerate(runs):
            measurement.add(f"smallest_{symbol}", values[place].detach().min(), method=name, run=run.number)
            measurement.add(f"largest_{symbol}", values[place].detach().max(), method=name, run=run.number)


def add_comparisons(measurement: Measurement, accuracies: Mapping[str, np.ndarray], settings: Settings) -> None:
    """Rows `spread_of_methods` (largest less smallest mean accuracy of the paper's methods) and `deviation_above_baseline`."""
    means = [accuracies[name].mean() for name in settings.of_the_paper]
    measurement.add("spread_of_methods", max(means) - min(means), unit="%")
    of_baseline = accuracies[settings.baseline]
    if len(of_baseline) < 2:
        return
    for name, values in accuracies.items():
        if name != settings.baseline:
            above = values.std(ddof=1) - of_baseline.std(ddof=1)
            measurement.add("deviation_above_baseline", above, unit="%", method=name)


def run(settings: Settings, context: Context) -> Measurement:
    """Train every method on every run, and measure what the claims compare; all accuracies are in percent."""
    features = features_of(settings.data_set, settings.subjects[settings.data_set], context)
    runs = runs_of(features, settings.seeds, settings.validation_share)
    sizes = Sizes.model_validate({"parts": settings.parts[settings.data_set], **settings.sizes})
    schedule = settings.schedules[settings.data_set]
    trainers = train_methods(settings.methods, sizes, schedule, features, runs, context, at_once=settings.at_once)
    measurement, accuracies = Measurement(), {}
    for name, trainer in trainers.items():
        method = settings.methods[name]
        accuracies[name] = add_scores(measurement, name, trainer, runs)
        for part, count in parameter_counts(trainer.template[0]).items():
            measurement.add("parameters", count, method=name, part=part)
        if method.model.startswith("mha"):
            add_batch_rows(measurement, name, trainer, runs, settings.seeds[0])
        (gate,) = trainer.template[0]._gate
        if gate is not None:
            add_gate_rows(measurement, name, trainer, runs)
            if isinstance(gate, GaussianAttention):
                measurement.add("layers_of_a_head", features.layers // gate.g, method=name)
    add_comparisons(measurement, accuracies, settings)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
