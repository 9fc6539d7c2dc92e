"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.stats import rankdata

from common.errors import DataError
from common.figures import COLOURS, PAGE_WIDTH, line_with_band, measured_rows, rows_where
from common.records import Record, RecordSet
from common.statistics import mean_interval
from papers.acmil.evaluation import TOP

NAMES = {
    "mean": "mean pooling", "max": "max pooling", "abmil": "ABMIL", "clam": "CLAM", "dsmil": "DSMIL", "transmil": "TransMIL",
    "dtfd": "DTFD-MIL", "mba": "MBA alone", "stkim": "STKIM alone", "acmil_no_diversity": "ACMIL without $L_d$",
    "acmil": "ACMIL", "acmil_separate_trunks": "a trunk for each branch", "acmil_bernoulli": "each masked with probability p",
    "acmil_paper_optimiser": "Adam with an L2 term", "acmil_paper_text": "all of the paper's text",
}  # fmt: skip
DRAWN = ("abmil", "stkim", "mba", "acmil_no_diversity", "acmil")
KINDS = ("background", "pattern A", "pattern B")
KIND_COLOURS = ("#cccccc", COLOURS[1], COLOURS[0])
SWEEPS = {
    "p": {"acmil_p0": 0.0, "acmil_p20": 0.2, "acmil_p40": 0.4, "acmil": 0.6, "acmil_p80": 0.8, "acmil_p100": 1.0},
    "K": {"acmil_k5": 5, "acmil": 10, "acmil_k20": 20, "acmil_k40": 40},
    "M": {"acmil_m2": 2, "acmil": 5, "acmil_m10": 10},
}
READINGS = ("acmil", "acmil_separate_trunks", "acmil_bernoulli", "acmil_paper_optimiser", "acmil_paper_text")


def _record(records: RecordSet, experiment: str, **axes: str) -> Record:
    for record in records.records:
        if record.experiment == experiment and axes.items() <= record.axes.items():
            return record
    raise DataError(f"The records hold no {experiment} {axes}. Run that experiment first.")


def cumulative_attention(records: RecordSet) -> Figure:
    """Cumulative top-k attention on strong features, weak features and Fashion-MNIST bags."""
    panels = {
        "large bags, strong features": _record(records, "large_bags", features="strong"),
        "large bags, weak features": _record(records, "large_bags", features="weak"),
        "Fashion-MNIST bags": _record(records, "fashion_bags"),
    }
    figure, every = plt.subplots(1, len(panels), figsize=(PAGE_WIDTH, 2.3), sharey=True)
    for axes, (title, record) in zip(every, panels.items(), strict=True):
        arrays = records.arrays(record)
        for number, name in enumerate(DRAWN):
            if f"cumulative_{name}" not in arrays:
                continue
            curves = arrays[f"cumulative_{name}"]
            rows = pd.DataFrame(
                {"k": np.tile(np.arange(1, curves.shape[1] + 1), len(curves)), "value": curves.astype(np.float64).ravel()}
            )
            line_with_band(axes, rows.loc[rows["k"] % 5 == 0, :], "k", number, NAMES[name])
        axes.axvline(TOP, color="black", linewidth=0.6)
        axes.set_title(title, loc="left")
        axes.set_xlabel("k")
    every[0].set_ylabel("sum of the k largest attentions")
    every[0].set_ylim(0, 1)
    every[0].legend()
    return figure


def slide(records: RecordSet) -> Figure:
    """The kinds of a synthetic slide's patches, and heat maps as ranks."""
    arrays = records.arrays(_record(records, "large_bags", features="strong"))
    figure, panels = plt.subplots(1, 3, figsize=(PAGE_WIDTH, 2.5))
    kinds = panels[0].imshow(
        arrays["slide_kinds"], cmap=ListedColormap(KIND_COLOURS), norm=BoundaryNorm([-0.5, 0.5, 1.5, 2.5], 3)
    )
    bar = figure.colorbar(kinds, ax=panels[0], ticks=[0, 1, 2], shrink=0.8)
    bar.ax.set_yticklabels(KINDS)
    panels[0].set_title("what the patches are", loc="left")
    images = []
    for axes, name in zip(panels[1:], ("abmil", "acmil"), strict=True):
        attention = arrays[f"slide_{name}"]
        ranks = rankdata(attention).reshape(attention.shape) / attention.size
        images.append(axes.imshow(ranks, vmin=0, vmax=1))
        axes.set_title(f"attention of {NAMES[name]}", loc="left")
    figure.colorbar(images[-1], ax=panels[2], label="rank, 1 is the largest", shrink=0.8)
    for axes in panels:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
    return figure


def embeddings(records: RecordSet) -> Figure:
    """Reduced features of the slide's instances in two dimensions."""
    arrays = records.arrays(_record(records, "embeddings"))
    kinds = arrays["embedding_kinds"]
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 3.0))
    for axes, name in zip(panels, ("abmil", "acmil"), strict=True):
        places, attention = arrays[f"embedding_{name}"], arrays[f"embedding_attention_{name}"]
        sizes = 2 + 60 * attention / attention.max()
        for kind, (label, colour) in enumerate(zip(KINDS, KIND_COLOURS, strict=True)):
            own = kinds == kind
            look = {"color": colour, "label": label, "linewidths": 0.2, "edgecolors": "black"}
            axes.scatter(*places[own].T, s=sizes[own], rasterized=True, **look)  # thousands of points: 2 MB as paths
        axes.set_title(NAMES[name], loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
    panels[0].legend()
    return figure


def _dots(axes: Axes, rows: pd.DataFrame, names: Sequence[str], number: int, label: str) -> None:
    """Mean and 95% interval of each method, from top to bottom."""
    colour, marker = COLOURS[number % len(COLOURS)], "os^DvP"[number % 6]
    words: str | None = label
    for place, name in enumerate(names):
        values = rows_where(rows, method=name)["value"].to_numpy(dtype=np.float64)
        if not values.size:
            continue
        interval, height = mean_interval(values), place + 0.12 * number
        axes.plot([interval.mean], [height], color=colour, marker=marker, linestyle="none", label=words)
        words = None
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [height, height], color=colour, linewidth=1)


def methods(records: RecordSet) -> Figure:
    """AUC of every method, small sets on the left, large ones on the right."""
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 3.2), sharey=True)
    classic = measured_rows(records, "classic", "auc")
    names = [name for name in NAMES if name in set(classic["method"]) | {"acmil_no_diversity"}]
    for number, data_set in enumerate(dict.fromkeys(classic["data_set"])):
        _dots(panels[0], rows_where(classic, data_set=data_set), names, number, str(data_set))
    large = measured_rows(records, "large_bags", "auc")
    parts = {f"large bags, {name}": rows_where(large, features=name) for name in dict.fromkeys(large["features"])}
    parts["Fashion-MNIST bags"] = measured_rows(records, "fashion_bags", "auc")
    for number, (label, rows) in enumerate(parts.items()):
        _dots(panels[1], rows, names, number, label)
    for axes in panels:
        axes.set_xlabel("AUC")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    panels[0].set_yticks(range(len(names)), [NAMES[name] for name in names])
    panels[0].invert_yaxis()
    return figure


def recall(records: RecordSet) -> Figure:
    """Attention recall of both patterns against the rate of witnesses, on strong features."""
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.3), sharey=True)
    for axes, (metric, title) in zip(panels, (("recall_a", "pattern A (easy)"), ("recall_b", "pattern B (hard)")), strict=True):
        rows = rows_where(measured_rows(records, "large_bags", metric), features="strong")
        for number, name in enumerate(DRAWN):
            line_with_band(axes, rows_where(rows, method=name), "rate", number, NAMES[name])
        axes.set_xscale("log")
        rates = sorted(set(rows["rate"]))
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("witnesses of a pattern, share of the bag")
        axes.set_title(title, loc="left")
    panels[0].set_ylabel("share among the most attended")
    panels[0].set_ylim(0, 1)
    panels[1].legend()
    return figure


def sweeps(records: RecordSet) -> Figure:
    """AUC against p, K and M."""
    rows = measured_rows(records, "ablations", "auc")
    baseline = rows_where(rows, method="abmil")["value"].mean()
    figure, panels = plt.subplots(1, len(SWEEPS), figsize=(PAGE_WIDTH, 2.2), sharey=True)
    for axes, (letter, values) in zip(panels, SWEEPS.items(), strict=True):
        chosen = rows.loc[rows["method"].isin(list(values)), :].copy()
        chosen["x"] = chosen["method"].map(values)
        line_with_band(axes, chosen, "x", 0, "ACMIL")
        axes.axhline(baseline, color=COLOURS[1], linestyle="--", linewidth=1, label="ABMIL")
        axes.set_xlabel(letter)
    panels[0].set_ylabel("AUC")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def readings(records: RecordSet) -> Figure:
    """The readings of paper and code side by side: the code's first."""
    wanted = {"auc": "AUC", "f1_macro": "macro F1", "accuracy": "accuracy", "top10_attention": "top-10 attention"}
    figure, panels = plt.subplots(1, len(wanted), figsize=(PAGE_WIDTH, 1.8), sharey=True)
    for axes, (metric, label) in zip(panels, wanted.items(), strict=True):
        _dots(axes, measured_rows(records, "ablations", metric), READINGS, 0, label)
        axes.set_xlabel(label)
    names = ["official code", *(NAMES[name] for name in READINGS[1:])]
    panels[0].set_yticks(range(len(READINGS)), names)
    panels[0].invert_yaxis()
    return figure
