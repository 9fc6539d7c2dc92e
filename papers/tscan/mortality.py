"""Who predicts death in hospital best from the first 48 hours, all models on the same stays and variables? (Table II)."""

import numpy as np
import torch

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from papers.tscan import logistic_regression, severity_scores
from papers.tscan.networks import NetworkSizes, initialised, make_network
from papers.tscan.scoring import add_scores, auroc
from papers.tscan.stays import DataName, Stays, load, split
from papers.tscan.training import Fitting, Score, Tensors, fit, predict, same_rows


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        model: a network, "logistic_regression", "saps_i" or "sofa".
        data_set: of `stays.load`.
        seeds: of split, initial parameters, order and dropout.
        sizes: of the networks.
        fitting: of the networks.
        inverse_penalties: C of logistic regression, chosen by validation AUROC.
    """

    model: str
    data_set: DataName
    seeds: list[int]
    sizes: NetworkSizes
    fitting: Fitting
    inverse_penalties: list[float]


def tensors_of(stays: Stays, labels: np.ndarray, device: str, *, gaps: bool = False, masks: bool = False) -> Tensors:
    """All stays on the device.

    Args:
        stays: of `stays.load`.
        labels: [stays, outputs] floating point or [stays] of classes.
        device: where to.
        gaps: add observations and hours since them, for GRU-D.
        masks: add observations.
    """
    parts = [stays.values]
    if gaps or masks:
        parts.append(stays.observed.astype(np.float32))
    if gaps:
        parts.append(stays.since / stays.values.shape[1])
    series = torch.from_numpy(np.concatenate(parts, axis=2)).to(device)
    return Tensors(series, None, torch.from_numpy(labels).to(device))


def regression(
    stays: Stays, labels: np.ndarray, seed: int, penalties: list[float], score: Score, stratum: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Logistic regression with C chosen on validation stays: probabilities [test stays, classes], and C.

    Args:
        stays: of `stays.load`.
        labels: [stays], classes from 0 without gaps.
        seed: of the split.
        penalties: the C to choose from.
        score: of probabilities and labels on validation stays.
        stratum: by which the split is stratified; None: the labels.
    """
    training, validation = split(labels if stratum is None else stratum, stays.learning, seed)
    features = logistic_regression.standardised(stays.summary, training)
    models = {C: logistic_regression.fit(features[training], labels[training], C) for C in penalties}
    C = max(models, key=lambda C: score(models[C].predict_proba(features[validation]), labels[validation]))
    return models[C].predict_proba(features[stays.test]), C


def run(settings: Settings, context: Context) -> Measurement:
    """Train with every seed and score the test stays: rows of `scoring.add_scores`, and predictions as an array."""
    measurement = Measurement()
    stays = load(settings.data_set)
    died = stays.died
    splits = [split(died, stays.learning, seed) for seed in settings.seeds]
    if settings.model == "logistic_regression":
        found = []
        for seed in settings.seeds:
            both, C = regression(
                stays, died, seed, settings.inverse_penalties, lambda p, y: auroc(p[:, 1:], y[:, None])
            )  # fmt: skip
            found.append(both[:, 1])
            measurement.add("inverse_penalty", C, method=settings.model, seed=seed)
        probabilities = np.stack(found)
    elif settings.model in ("saps_i", "sofa"):
        scores = stays.saps if settings.model == "saps_i" else stays.sofa
        probabilities = np.stack([severity_scores.probabilities(scores, died, rows, stays.test) for rows, _ in splits])
    else:
        tensors = tensors_of(stays, died[:, None].astype(np.float32), context.device, gaps=settings.model == "gru_d")
        hours, variables = stays.values.shape[1:]

        def make():
            return make_network(settings.model, settings.sizes, hours=hours, variables=variables, outputs=1)  # pyright: ignore[reportArgumentType]

        fitted = fit(
            [initialised(make, seed) for seed in settings.seeds],
            tensors,
            [rows for rows, _ in splits],
            [rows for _, rows in splits],
            settings.fitting,
            auroc,
            seeds=settings.seeds,
        )
        probabilities = predict(fitted.networks, tensors, same_rows(tensors, stays.test, len(settings.seeds)))[:, :, 0]
        for seed, epoch in zip(settings.seeds, fitted.best_epoch, strict=True):
            measurement.add("best_epoch", epoch, "epochs", method=settings.model, seed=seed)
        parameters = sum(x[0].numel() for x in fitted.networks.parameters())
        measurement.add("parameters", parameters, "parameters", method=settings.model)
        if settings.model.startswith("tscan"):
            measurement.artifacts["networks"] = dict(fitted.networks.named_parameters())
    for seed, row in zip(settings.seeds, probabilities, strict=True):
        add_scores(measurement, died[stays.test], row, method=settings.model, seed=seed)
    measurement.arrays["probabilities"] = probabilities.astype(np.float32)
    measurement.arrays["died"] = died[stays.test].astype(np.int8)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
