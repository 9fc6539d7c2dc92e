"""The paper's four tasks on MIMIC-IV in the layout of the MIMIC-III benchmark (Tables II to V), brought by the user.

At the other scales the same code reads made-up stays that were written in that layout: it proves the way, and says nothing.
"""

import os
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sklearn.metrics import mean_absolute_error, roc_auc_score

from common.configuration import Parameters
from common.data.clinical import Normaliser
from common.data.clinical.generated import write_benchmark
from common.data.clinical.mimic3_benchmark import (
    COLUMNS,
    CONTINUOUS,
    BenchmarkSamples,
    ListSplit,
    Task,
    known_samples,
    load_samples,
)
from common.errors import DataError
from common.experiment import Context, Measurement, main
from common.metrics.classification import discrimination
from papers.tscan import logistic_regression
from papers.tscan.length_of_stay import class_hours, classes_of, kappa
from papers.tscan.networks import NetworkSizes, initialised, make_network
from papers.tscan.training import Fitting, Tensors, fit, predict, same_rows

FOLDER = "mimic_iv_benchmark"
GENERATED_STAYS = 32
SPLITS: tuple[ListSplit, ...] = ("train", "val", "test")


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        task: which.
        model: a network of `networks` or "logistic_regression".
        source: "generated", or "mimic_iv" for `$REATTEND_DATA/mimic_iv_benchmark/<task>`.
        seeds: of initial parameters, order and dropout; the benchmark's split is fixed.
        hours: T of the tasks other than mortality, which has 48.
        samples: of each split at most; 0 is all.
        sizes: of the networks.
        fitting: of the networks.
        inverse_penalty: C of logistic regression.
    """

    task: Task
    model: str
    source: Literal["generated", "mimic_iv"]
    seeds: list[int]
    hours: int
    samples: int
    sizes: NetworkSizes
    fitting: Fitting
    inverse_penalty: float


def samples_of(settings: Settings) -> dict[ListSplit, BenchmarkSamples]:
    """The three splits of the task. Raises DataError when MIMIC-IV is not there."""
    hours = 48 if settings.task == "in-hospital-mortality" else settings.hours

    def read(root: Path) -> dict[ListSplit, BenchmarkSamples]:
        return {
            split: load_samples(root, settings.task, split, hours=hours, limit=settings.samples, seed=0) for split in SPLITS
        }  # fmt: skip

    if settings.source == "generated":
        with tempfile.TemporaryDirectory() as folder:
            write_benchmark(Path(folder), settings.task, stays=GENERATED_STAYS, seed=0)
            return read(Path(folder))
    root = Path(os.environ.get("REATTEND_DATA", ".")).expanduser() / FOLDER
    if missing := known_samples(root, [settings.task]):
        raise DataError(
            f"{', '.join(missing)} must be brought: MIMIC-IV needs a credentialed licence of PhysioNet; make the benchmark's "
            f"files from it and put them at $REATTEND_DATA/{FOLDER}/{settings.task}/."
        )
    return read(root)


def labels_of(task: Task, labels: np.ndarray) -> np.ndarray:
    """As training takes them: classes of remaining hours, or 0 and 1 as floating point."""
    return classes_of(labels[:, 0] / 24).astype(np.int64) if task == "length-of-stay" else labels


def validation_score(task: Task, outputs: np.ndarray, labels: np.ndarray) -> float:
    """Kappa, or the macro average of AUROC over labels that have both values."""
    if task == "length-of-stay":
        return kappa(outputs, labels)
    both = [k for k in range(labels.shape[1]) if 0 < labels[:, k].mean() < 1]
    found = [float(roc_auc_score(labels[:, k], outputs[:, k])) for k in both]
    return sum(found) / len(found) if found else 0.0


def add_task_scores(
    measurement: Measurement, settings: Settings, outputs: np.ndarray, labels: np.ndarray, hours_of_class: np.ndarray, seed: int
) -> None:
    """Add the metrics of the task: `auroc` and `auprc`; `kappa` and `mean_absolute_deviation`; `macro_auroc`, `micro_auroc`."""

    def add(metric: str, value: float, unit: str = "1") -> None:
        measurement.add(metric, value, unit, method=settings.model, seed=seed)

    if settings.task == "length-of-stay":
        add("kappa", kappa(outputs, labels_of(settings.task, labels)))
        add("mean_absolute_deviation", mean_absolute_error(labels[:, 0], hours_of_class[outputs.argmax(1)]), "h")
    elif settings.task == "phenotyping":
        add("macro_auroc", validation_score(settings.task, outputs, labels))
        add("micro_auroc", float(roc_auc_score(labels.ravel(), outputs.ravel())))
    else:
        areas = discrimination(labels[:, 0], outputs[:, 0])
        add("auroc", areas.auroc)
        add("auprc", areas.auprc)


def regression_outputs(settings: Settings, splits: dict[ListSplit, BenchmarkSamples]) -> np.ndarray:
    """Logistic regression on summary statistics of the 59 columns: probabilities [test samples, outputs]."""
    parts = [np.where(part.present[..., None], part.values, np.nan) for part in (splits["train"], splits["test"])]
    features = np.concatenate([logistic_regression.summary_features(part) for part in parts])
    training = np.arange(len(parts[0]))
    features = logistic_regression.standardised(features, training)
    test = features[len(training) :]
    labels = labels_of(settings.task, splits["train"].labels)
    if settings.task == "length-of-stay":
        model = logistic_regression.fit(features[training], labels, settings.inverse_penalty)
        outputs = np.zeros((len(test), 10))
        outputs[:, model.classes_] = model.predict_proba(test)
        return outputs
    columns = []
    for label in labels.T:
        if len(np.unique(label)) < 2:
            columns.append(np.full(len(test), label.mean()))
            continue
        columns.append(logistic_regression.fit(features[training], label, settings.inverse_penalty).predict_proba(test)[:, 1])
    return np.stack(columns, axis=1)


def run(settings: Settings, context: Context) -> Measurement:
    """Train with every seed on the training samples and score the test samples: rows of `add_task_scores`."""
    measurement = Measurement()
    splits = samples_of(settings)
    remaining = splits["train"].labels[:, 0] / 24
    hours_of_class = class_hours(remaining, classes_of(remaining))
    if settings.model == "logistic_regression":
        outputs = np.repeat(regression_outputs(settings, splits)[None], len(settings.seeds), axis=0)
    else:
        normaliser = Normaliser.fit(splits["train"].values[splits["train"].present], percentiles=(0, 100))
        parts = []
        for split in SPLITS:
            scaled = np.where(CONTINUOUS, normaliser.apply(splits[split].values), splits[split].values)
            parts.append(np.where(splits[split].present[..., None], scaled, 0).astype(np.float32))
        sizes = [len(part) for part in parts]
        rows = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
        labels = np.concatenate([labels_of(settings.task, splits[split].labels) for split in SPLITS])
        present = np.concatenate([splits[split].present for split in SPLITS])
        tensors = Tensors(*(torch.from_numpy(x).to(context.device) for x in (np.concatenate(parts), present, labels)))
        count = 10 if settings.task == "length-of-stay" else labels.shape[1]

        def make():
            return make_network(
                settings.model, settings.sizes, hours=parts[0].shape[1], variables=len(COLUMNS), outputs=count  # pyright: ignore[reportArgumentType]
            )  # fmt: skip

        fitted = fit(
            [initialised(make, seed) for seed in settings.seeds],
            tensors,
            [rows[0]] * len(settings.seeds),
            [rows[1]] * len(settings.seeds),
            settings.fitting,
            lambda outputs, labels: validation_score(settings.task, outputs, labels),
            seeds=settings.seeds,
        )
        outputs = predict(fitted.networks, tensors, same_rows(tensors, rows[2], len(settings.seeds)))
    for seed, row in zip(settings.seeds, outputs, strict=True):
        add_task_scores(measurement, settings, row, splits["test"].labels, hours_of_class, seed)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
