"""Do more variables help, with shrinking gains? (Figure 4)."""

import numpy as np
import torch

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.metrics.classification import discrimination
from papers.tscan.mortality import tensors_of
from papers.tscan.networks import NetworkSizes, initialised, make_network
from papers.tscan.scoring import add_scores, auroc
from papers.tscan.stays import SERIES, DataName, load, split
from papers.tscan.training import Fitting, Tensors, fit, predict, same_rows


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        model: "tscan_paper" or "tscan_code".
        data_set: of `stays.load`.
        seeds: as in `mortality`, and of the order in which variables are added.
        sizes: of the networks.
        fitting: as in `mortality`.
        counts: how many of the 36 series, ascending; the fewer are among the more.
    """

    model: str
    data_set: DataName
    seeds: list[int]
    sizes: NetworkSizes
    fitting: Fitting
    counts: list[int]


def run(settings: Settings, context: Context) -> Measurement:
    """Rows of `scoring.add_scores` with `variables`; `gain` of the first and of the second half of the counts."""
    measurement = Measurement()
    stays = load(settings.data_set)
    whole = tensors_of(stays, stays.died[:, None].astype(np.float32), context.device)
    splits = [split(stays.died, stays.learning, seed) for seed in settings.seeds]
    orders = np.stack([np.random.default_rng([seed, 36]).permutation(len(SERIES)) for seed in settings.seeds])
    found: dict[tuple[int, int], float] = {}
    for count in settings.counts:
        channels = torch.from_numpy(orders[:, :count].copy()).to(context.device)
        tensors = Tensors(whole.series, None, whole.labels, channels)

        def make(count: int = count):
            return make_network(
                settings.model, settings.sizes, hours=whole.series.shape[1], variables=count, outputs=1  # pyright: ignore[reportArgumentType]
            )  # fmt: skip

        fitted = fit(
            [initialised(make, seed) for seed in settings.seeds],
            tensors,
            [rows for rows, _ in splits],
            [rows for _, rows in splits],
            settings.fitting,
            auroc,
            seeds=settings.seeds,
        )
        outputs = predict(fitted.networks, tensors, same_rows(tensors, stays.test, len(settings.seeds)))[:, :, 0]
        for seed, probabilities in zip(settings.seeds, outputs, strict=True):
            died = stays.died[stays.test]
            add_scores(measurement, died, probabilities, method=settings.model, seed=seed, variables=count)
            found[seed, count] = discrimination(died, probabilities).auroc
    first, middle, last = settings.counts[0], settings.counts[len(settings.counts) // 2], settings.counts[-1]
    for seed in settings.seeds:
        for half, (a, b) in {"first": (first, middle), "second": (middle, last)}.items():
            measurement.add("gain", found[seed, b] - found[seed, a], method=settings.model, half=half, seed=seed)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
