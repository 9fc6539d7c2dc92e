"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.errors import DataError
from common.figures import COLOURS, PAGE_WIDTH, measured_rows, rows_where
from common.records import Record, RecordSet

NAMES = {
    "last_layer": "last layer, linear", "layer_average": "mean of layers, linear", "layer_weights": "learned weights, linear",
    "identity": "decoder alone", "mha_batch": "MHA, batch axis (code)", "mha_bn_batch": "MHA → BN, batch axis (code)",
    "mha_layers": "MHA, layers", "mha_bn_layers": "MHA → BN, layers", "mha_residual": "MHA, layers, residual",
    "gaam_v1": "GAAM v1", "gaam_v2": "GAAM v2", "frozen_v1": "v1 frozen", "frozen_v2": "v2 frozen", "mixture": "mixture",
    "gqgaam": "GQGAAM", "gq_no_gate": "GQ without gate", "gqgaam_per_query": "GQGAAM, map a query",
    "gaam_v2_width_squared": "v2, exponent with ξ²", "gaam_v2_normalised": "v2, normalised", "gaam_v2_l2": "v2, Adam with L2",
}  # fmt: skip
DATA_SETS = {
    "ag_news": "AG News\nMiniLM", "nemo": "nEMO\nWhisper", "cifar100": "CIFAR-100\nsmall ViT",
    "fashion_mnist": "Fashion-MNIST\nsmall ViT", "ag_news_whole": "AG News\nLlama2", "iemocap": "IEMOCAP\nWavLM",
    "cifar100_whole": "CIFAR-100\nBEiT", "generated_text": "generated text", "generated_speech": "generated speech",
    "generated_images": "generated images",
}  # fmt: skip
BATCHES = {"as_scored": "as scored", "shuffled": "shuffled again", "by_class": "sorted by class", "alone": "each alone"}


def _records(records: RecordSet, experiment: str) -> dict[str, Record]:
    """Data set -> record of an experiment, in the order of `DATA_SETS`."""
    found = {str(record.axes["data_set"]): record for record in records.of(experiment)}
    if not found:
        raise DataError(f"The records hold no {experiment}. Run that experiment first.")
    return {name: found[name] for name in DATA_SETS if name in found}


def _methods(rows: pd.DataFrame) -> list[str]:
    present = set(rows["method"])
    return [name for name in NAMES if name in present]


def _mean_and_runs(axes: Axes, place: float, values: np.ndarray, number: int) -> None:
    """Runs as hollow marks, their mean as a line across."""
    colour = COLOURS[number % len(COLOURS)]
    axes.plot(values, np.full(len(values), place), "o", color=colour, markerfacecolor="none", markersize=3, linewidth=0)
    axes.plot([values.mean()] * 2, [place - 0.35, place + 0.35], color=colour, linewidth=1.6)


def _values(rows: pd.DataFrame, **wanted: object) -> np.ndarray:
    return rows_where(rows, **wanted).sort_values("run")["value"].to_numpy(dtype=np.float64)


def accuracy(records: RecordSet) -> Figure:
    """Test accuracy of each method: a panel a data set, marks are runs, lines their means."""
    rows = measured_rows(records, "comparison", "accuracy")
    every, methods = list(_records(records, "comparison")), _methods(rows)
    figure, panels = plt.subplots(1, len(every), figsize=(PAGE_WIDTH, 3.6), sharey=True, squeeze=False)
    for axes, data_set in zip(panels[0], every, strict=True):
        for place, method in enumerate(methods):
            group = 0 if method.startswith(("gaam", "frozen", "mixture")) else 1 if "mha" in method else 2
            _mean_and_runs(
                axes, place, _values(rows, data_set=data_set, method=method), 4 if method.startswith("gq") else group
            )
        axes.set_title(DATA_SETS[data_set], loc="left")
        axes.set_xlabel("test accuracy (%)")
    panels[0, 0].set_yticks(range(len(methods)), [NAMES[method] for method in methods])
    panels[0, 0].invert_yaxis()
    return figure


def importance(records: RecordSet) -> Figure:
    """Importance factor by layer and feature, contributions of layers, and what each layer alone is worth."""
    every = _records(records, "layer_importance")
    contributions = measured_rows(records, "layer_importance", "layer_importance")
    alone = measured_rows(records, "layer_importance", "layer_accuracy")
    probes = measured_rows(records, "layer_probe", "probe_accuracy")
    figure, panels = plt.subplots(len(every), 3, figsize=(PAGE_WIDTH, 1.7 * len(every)), squeeze=False)
    for (left, middle, right), (data_set, record) in zip(panels, every.items(), strict=True):
        factor = records.arrays(record)["importance_gaam_v2"].mean(0)
        layers = np.arange(1, len(factor) + 1)
        image = left.imshow(
            factor[:, np.argsort(factor.mean(0))], aspect="auto", vmin=0, vmax=1, interpolation="nearest", origin="lower",
            extent=(0, factor.shape[1], 0.5, len(factor) + 0.5),
        )  # fmt: skip
        figure.colorbar(image, ax=left, shrink=0.9)
        left.grid(visible=False)
        left.set_title(DATA_SETS[data_set], loc="left")
        left.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        left.set_ylabel("layer")
        here = rows_where(contributions, data_set=data_set, method="gaam_v2")
        by_layer = [_values(here, layer=layer) for layer in layers]
        middle.boxplot(by_layer, positions=layers, widths=0.6, medianprops={"color": COLOURS[1]}, showfliers=False)
        middle.set_xticks(layers, [str(layer) for layer in layers])
        middle.set_ylabel("contribution (%)")
        for number, (rows, label) in enumerate(((alone, "decoder"), (probes, "linear probe"))):
            values = rows_where(rows, data_set=data_set).groupby("layer")["value"].mean().sort_index()
            right.plot(values.index, values.to_numpy(), "o-" if number == 0 else "s--", color=COLOURS[number], label=label)
        right.set_xticks(layers)
        right.set_ylabel("accuracy alone (%)")
    handles, labels = panels[0, 2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=2)
    panels[-1, 0].set_xlabel("feature, sorted")
    panels[-1, 1].set_xlabel("layer")
    panels[-1, 2].set_xlabel("layer")
    return figure


def gates(records: RecordSet) -> Figure:
    """Mean gate of v2, learned against frozen: a panel a data set, a dot for each layer and feature of the first run."""
    every = _records(records, "comparison")
    figure, panels = plt.subplots(1, len(every), figsize=(PAGE_WIDTH, 2.1), squeeze=False, sharey=True, sharex=True)
    for axes, (data_set, record) in zip(panels[0], every.items(), strict=True):
        arrays = records.arrays(record)
        frozen, learned = (arrays[f"gate_{name}_v2"][0] for name in ("frozen", "gaam"))
        layers = len(frozen)
        for layer in range(layers):
            colour = plt.get_cmap("viridis")(layer / max(layers - 1, 1))
            axes.plot(frozen[layer], learned[layer], ".", color=colour, markersize=1.5, rasterized=True)
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.6)
        axes.set_title(DATA_SETS[data_set], loc="left")
        axes.set_xlabel("frozen gate")
    low = min(
        float(records.arrays(record)[f"gate_{name}_v2"].min()) for record in every.values() for name in ("frozen", "gaam")
    )
    panels[0, 0].set_xlim(low - 0.02, 1.02)
    panels[0, 0].set_ylim(low - 0.02, 1.02)
    panels[0, 0].set_ylabel("learned gate")
    return figure


def choice_of_epoch(records: RecordSet) -> Figure:
    """Accuracy gained by choosing the epoch on test, for the methods of the paper's table."""
    rows = measured_rows(records, "comparison", "gain_of_choosing_on_test")
    every = list(_records(records, "comparison"))
    methods = [
        name for name in _methods(rows) if name in ("mha_batch", "mha_bn_batch", "gaam_v1", "gaam_v2", "gqgaam", "mixture")
    ]
    figure, panels = plt.subplots(1, len(every), figsize=(PAGE_WIDTH, 1.8), sharey=True, squeeze=False)
    for axes, data_set in zip(panels[0], every, strict=True):
        for place, method in enumerate(methods):
            _mean_and_runs(axes, place, _values(rows, data_set=data_set, method=method), 0)
        axes.set_xlim(left=-0.1)
        axes.set_title(DATA_SETS[data_set], loc="left")
        axes.set_xlabel("points gained")
    panels[0, 0].set_yticks(range(len(methods)), [NAMES[method] for method in methods])
    panels[0, 0].invert_yaxis()
    return figure


def batch_axis(records: RecordSet) -> Figure:
    """Accuracy of attention over the batch axis and over layers, by what else is in the test batch."""
    rows = measured_rows(records, "comparison", "accuracy_by_batches")
    every = list(_records(records, "comparison"))
    figure, panels = plt.subplots(1, len(every), figsize=(PAGE_WIDTH, 2.0), sharey=True, squeeze=False)
    for axes, data_set in zip(panels[0], every, strict=True):
        for number, method in enumerate(("mha_batch", "mha_layers")):
            for place, batches in enumerate(BATCHES):
                values = _values(rows, data_set=data_set, method=method, batches=batches)
                _mean_and_runs(axes, place + 0.2 * (2 * number - 1), values, number)
        axes.set_title(DATA_SETS[data_set], loc="left")
        axes.set_xlabel("test accuracy (%)")
    panels[0, 0].set_yticks(range(len(BATCHES)), list(BATCHES.values()))
    panels[0, 0].invert_yaxis()
    for number, method in enumerate(("mha_batch", "mha_layers")):
        panels[0, 0].plot([], [], "o-", color=COLOURS[number], markerfacecolor="none", label=NAMES[method])
    figure.legend(loc="outside lower center", ncols=2)
    return figure
