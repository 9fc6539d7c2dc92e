"""Which variables and hours receive attention, is that the same for every seed, and does the prediction depend on them?"""

import dataclasses

import numpy as np
import torch

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.training.side_by_side import SideBySide
from papers.tscan.ablations import mean_attention
from papers.tscan.attention_profile import causal_expectation, jaccards, spearman, top
from papers.tscan.mortality import tensors_of
from papers.tscan.networks import NetworkSizes, initialised, make_network
from papers.tscan.scoring import auroc
from papers.tscan.stays import COLUMNS, DataName, load
from papers.tscan.training import predict, same_rows
from papers.tscan.variants import BASES


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        model: "tscan_paper" or "tscan_code", as `mortality` trained it.
        data_set: as in `mortality`.
        seeds: as in `mortality`.
        sizes: as in `mortality`.
        top: how many variables count as singled out.
        indicators: variables that are looked for among them.
        occluded_stays: test stays on which AUROC without a variable or an hour is measured; 0 is all.
    """

    model: str
    data_set: DataName
    seeds: list[int]
    sizes: NetworkSizes
    top: int
    indicators: list[str]
    occluded_stays: int


def run(settings: Settings, context: Context) -> Measurement:
    """Rows `concentration`, `jaccard`, `indicators_in_top`, `attention_and_occlusion`; profiles as arrays.

    Occlusion puts the mean, 0, in place of a variable in all hours, or of all variables in an hour.
    """
    measurement, stays, method = Measurement(), load(settings.data_set), settings.model
    tensors = tensors_of(stays, stays.died[:, None].astype(np.float32), context.device)
    hours, variables = stays.values.shape[1:]

    def make():
        return make_network(method, settings.sizes, hours=hours, variables=variables, outputs=1)  # pyright: ignore[reportArgumentType]

    networks = SideBySide([initialised(make, seed) for seed in settings.seeds])
    records = context.results_of("mortality")
    (trained,) = (record for record in records.of("mortality") if record.axes["model"] == method)
    stored = records.artifact(trained, "networks")
    networks.load_state_dict(stored, strict=False)  # positional encodings are not stored
    networks = networks.to(context.device).eval()
    received = mean_attention(networks, tensors, same_rows(tensors, stays.test, len(settings.seeds)))
    by_variable, by_hour = received.variables[:, 0].numpy(), received.hours.numpy()  # the encoder's, as in the paper's figures
    known = {COLUMNS.index(name) for name in settings.indicators}
    # A causal mask alone favours the variables that are listed first: divided by what it gives to even attention.
    even = causal_expectation(variables) * variables if BASES[method.removeprefix("tscan_")].causal_variables else 1.0
    for kind, weights in (("as it is", by_variable), ("corrected", by_variable / even)):
        for seed, row in zip(settings.seeds, weights, strict=True):
            measurement.add("concentration", row.max() * variables, method=method, attention=kind, seed=seed)
            found = len(known & top(row, settings.top))
            measurement.add("indicators_in_top", found, "variables", method=method, attention=kind, seed=seed)
        for pair, value in enumerate(jaccards(weights, settings.top)):
            measurement.add("jaccard", value, method=method, attention=kind, pair=pair)
    occluded = stays.test[: settings.occluded_stays] if settings.occluded_stays else stays.test
    rows, labels = same_rows(tensors, occluded, len(settings.seeds)), stays.died[occluded, None]

    def aurocs(series: torch.Tensor) -> np.ndarray:
        outputs = predict(networks, dataclasses.replace(tensors, series=series), rows)
        return np.array([auroc(output, labels) for output in outputs])

    whole = aurocs(tensors.series)
    drops: dict[str, np.ndarray] = {}
    for what, size, attention in (("variables", variables, by_variable), ("hours", hours, by_hour)):
        lost = np.empty((len(settings.seeds), size))
        for place in range(size):
            series = tensors.series.clone()
            series[(slice(None), place) if what == "hours" else (..., place)] = 0
            lost[:, place] = whole - aurocs(series)
        drops[what] = lost
        for seed, a, b in zip(settings.seeds, attention, lost, strict=True):
            measurement.add("attention_and_occlusion", spearman(a, b), method=method, what=what, seed=seed)
    measurement.arrays |= {
        "attention_of_variables": by_variable,
        "attention_of_hours": by_hour,
        "loss_without_variables": drops["variables"],
        "loss_without_hours": drops["hours"],
    }
    return measurement


if __name__ == "__main__":
    main(run, Settings)
