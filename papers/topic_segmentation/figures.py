"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.figures import COLOURS, MARKERS, PAGE_WIDTH, measured_rows, rows_where
from common.metrics.segmentation import CONVENTIONS
from common.records import RecordSet
from common.statistics import mean_interval
from papers.topic_segmentation.conventions import system_scores
from papers.topic_segmentation.tables import CONVENTION_NAMES, unsupervised


def conventions(records: RecordSet) -> Figure:
    """P_k of the same segmentations under every convention: one table of numbers a data set, shaded by value."""
    scores = system_scores(unsupervised(records), "pk")
    data_sets = list(dict.fromkeys(scores.index.get_level_values("data_set")))
    names = [name for name in CONVENTIONS if name in scores.columns]
    height = sum(len(scores.loc[[data_set]]) for data_set in data_sets)
    figure, panels = plt.subplots(
        len(data_sets), 1, figsize=(PAGE_WIDTH, 0.16 * height + 0.3 * len(data_sets) + 1.2), squeeze=False,
        height_ratios=[len(scores.loc[[data_set]]) for data_set in data_sets],
    )  # fmt: skip
    for axes, data_set in zip(panels[:, 0], data_sets, strict=True):
        part = scores.loc[[data_set]]
        values = part[names].to_numpy(dtype=np.float64)
        axes.imshow(values, aspect="auto", vmin=0, vmax=100, cmap="viridis", alpha=0.5)
        for line, row in enumerate(values):
            for column, value in enumerate(row):
                if np.isfinite(value):
                    axes.text(column, line, f"{value:.1f}", ha="center", va="center", fontsize=6)
        axes.set_yticks(range(len(part)), part.index.get_level_values("system"), fontsize=6)
        axes.set_xticks([])
        axes.set_title(str(data_set), loc="left")
        axes.grid(visible=False)
    panels[-1, 0].set_xticks(range(len(names)), [CONVENTION_NAMES[name] for name in names], rotation=30, ha="right", fontsize=6)
    return figure


def turned_pairs(records: RecordSet) -> Figure:
    """Percentage of pairs of systems that change places between the standard convention and each other one, by data set."""
    rows = measured_rows(records, "conventions", "pk_turned_pairs")
    data_sets = list(dict.fromkeys(rows["data_set"]))
    names = [name for name in CONVENTIONS if name in set(rows["convention"])]
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH, 2.8))
    for number, data_set in enumerate(data_sets):
        values = rows_where(rows, data_set=data_set).groupby("convention")["value"].mean()
        axes.plot(
            values.reindex(names).to_numpy(dtype=np.float64), range(len(names)), linestyle="none",
            marker=MARKERS[number % len(MARKERS)], color=COLOURS[number % len(COLOURS)], label=str(data_set),
        )  # fmt: skip
    axes.set_yticks(range(len(names)), [CONVENTION_NAMES[name] for name in names])
    axes.invert_yaxis()
    axes.set_xlim(left=-1)
    axes.set_xlabel("pairs of systems in the opposite order to the standard convention, %")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def segmenters(records: RecordSet) -> Figure:
    """P_k and WindowDiff of every unsupervised segmenter, number of segments found, by data set."""
    rows = rows_where(unsupervised(records), convention="standard", count="found")
    methods = list(dict.fromkeys(rows["method"]))
    data_sets = list(dict.fromkeys(rows["data_set"]))
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 0.2 * len(methods) + 1.4), sharey=True)
    for axes, (metric, label) in zip(panels, (("pk", "$P_k$, %"), ("window_diff", "WindowDiff, %")), strict=True):
        for number, data_set in enumerate(data_sets):
            values = rows_where(rows, metric=metric, data_set=data_set).groupby("method")["value"].mean()
            axes.plot(
                values.reindex(methods).to_numpy(dtype=np.float64), range(len(methods)), linestyle="none",
                marker=MARKERS[number % len(MARKERS)], color=COLOURS[number % len(COLOURS)], label=str(data_set),
            )  # fmt: skip
        axes.set_xlabel(f"{label} (lower is better)")
        axes.set_xlim(0, 100)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].invert_yaxis()
    panels[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def head_combinations(records: RecordSet) -> Figure:
    """P_k and boundary F1 of every combination of heads with its 95% interval over seeds, by data set."""
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.4), sharey=True)
    for axes, (metric, label) in zip(panels, (("pk", "$P_k$, %"), ("boundary_f1", "boundary F1, %")), strict=True):
        rows = rows_where(measured_rows(records, "heads", metric), reading="sections")
        rows = rows_where(rows, convention="standard") if metric == "pk" else rows
        for number, data_set in enumerate(dict.fromkeys(rows["data_set"])):
            _intervals(axes, rows_where(rows, data_set=data_set), "model", number, str(data_set))
        axes.set_xlabel(label)
    panels[0].invert_yaxis()
    panels[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def coherence_losses(records: RecordSet) -> Figure:
    """P_k of every loss with its 95% interval over seeds: one panel a training set, one colour a test set."""
    rows = rows_where(measured_rows(records, "coherence", "pk"), convention="standard")
    trained_on = list(dict.fromkeys(rows["trained_on"]))
    figure, panels = plt.subplots(1, len(trained_on), figsize=(PAGE_WIDTH, 2.2), sharey=True, squeeze=False)
    for axes, data_set in zip(panels[0], trained_on, strict=True):
        part = rows_where(rows, trained_on=data_set)
        for number, tested_on in enumerate(dict.fromkeys(part["tested_on"])):
            _intervals(axes, rows_where(part, tested_on=tested_on), "method", number, f"tested on {tested_on}")
        axes.set_title(f"trained on {data_set}", loc="left")
        axes.set_xlabel("$P_k$, %")
    panels[0, 0].invert_yaxis()
    panels[0, -1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _intervals(axes: Axes, rows: pd.DataFrame, by: str, number: int, label: str) -> None:
    """One point with its interval for each value of a column, from top to bottom; series are set a little apart."""
    names = list(dict.fromkeys(rows[by]))
    for place, name in enumerate(names):
        interval = mean_interval(rows_where(rows, **{by: name})["value"].to_numpy(dtype=np.float64))
        height = place + 0.15 * number
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot([interval.mean], [height], color=colour, marker=marker, label=label if place == 0 else None, linestyle="none")
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [height, height], color=colour, linewidth=1)
    axes.set_yticks(range(len(names)), names)
