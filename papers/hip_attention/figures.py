"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from common.figures import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    legend_below,
    length_axis,
    line_look,
    line_with_band,
    measured_rows,
    rows_where,
)
from common.records import RecordSet
from common.selector_comparison import figures as comparison
from common.selector_comparison.figures import BASELINE_NAMES, DENSE_KERNEL_NAMES, length_shown

NAMES = {"hip": "HiP", **BASELINE_NAMES}
LIST_NAMES = {
    "hip": "tree search (HiP)",
    "first": "first represents",
    "last": "last represents",
    "exact": "exact top blocks",
    "strided": "equal distances",
    "random": "random",
}
DENSE_GREYS = {"flash": "#000000", "cudnn": "#777777", "math": "#000000"}
STAGE_NAMES = {"search": "search", "attention": "attention over lists", "total": "search and attention"}


def recall_by_locality(records: RecordSet) -> Figure:
    """Recall and attention mass of lists against the correlation length of the scores, at the longest context."""
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 3.0))
    labels = {"recall": "share of the top keys found", "attention_mass": "attention mass of the keys read"}
    for axes, (metric, label) in zip(panels, labels.items(), strict=True):
        rows = rows_where(measured_rows(records, "recall", metric), sweep="none")
        length = int(rows["length"].max())
        rows = rows_where(rows, length=length)
        lengths = sorted(int(one) for one in rows["correlation_length"].unique())
        places = rows.assign(place=[lengths.index(int(one)) for one in rows["correlation_length"]])
        for number, (method, name) in enumerate(LIST_NAMES.items()):
            line_with_band(axes, rows_where(places, method=method), "place", number, name)
        axes.set_xticks(range(len(lengths)), [str(one) for one in lengths])
        axes.set_xlabel("correlation length of the scores (tokens)")
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.03)
        axes.set_title(f"{length:,} tokens")
        legend_below(axes)
    return figure


def _by_block_k(rows: pd.DataFrame, axes: Axes) -> None:
    for number, block_q in enumerate(sorted(int(one) for one in rows["block_q"].unique())):
        line_with_band(axes, rows_where(rows, block_q=block_q), "block_k", number, rf"$b_q$ = {block_q}")
    sizes = sorted(int(one) for one in rows["block_k"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("key block $b_k$ (tokens)")
    legend_below(axes)


def sizes_of_blocks(records: RecordSet) -> Figure:
    """Recall in the pretrained model, and searches a second, by b_k, one line a b_q."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.9))
    rows = rows_where(measured_rows(records, "recall_on_model", "recall"), sweep="blocks")
    length = length_shown(rows)
    _by_block_k(rows_where(rows, length=length), left)
    left.set_title(f"pretrained model, {length:,} tokens")
    left.set_ylabel("share of the top keys found")
    rows = measured_rows(records, "search_time", "searches_per_second")
    _by_block_k(rows, right)
    right.set_title(f"one layer, {int(rows['length'].iloc[0]):,} tokens")
    right.set_ylabel("searches per second")
    right.set_yscale("log")
    right.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    right.yaxis.set_minor_formatter(NullFormatter())
    return figure


def needle_mass(records: RecordSet) -> Figure:
    """Share of the needle's attention that is kept, by depth, at each length."""
    rows = measured_rows(records, "needles", "needle_mass")
    lengths = sorted(int(one) for one in rows["length"].unique())
    figure, panels = plt.subplots(1, len(lengths), figsize=(COLUMN_WIDTH * len(lengths), 2.6), squeeze=False, sharey=True)
    for axes, length in zip(panels[0], lengths, strict=True):
        for number, (method, name) in enumerate((("hip", "key lists (HiP)"), ("window", "sink and window of equal cost"))):
            line_with_band(axes, rows_where(rows, length=length, method=method), "depth", number, name)
        axes.set_xlabel("depth of the needle (0 start, 1 end)")
        axes.set_ylim(-0.03, 1.03)
        axes.set_title(f"{length:,} tokens")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), handlelength=3)
    panels[0, 0].set_ylabel("attention to the needle that is kept")
    return figure


def refresh_interval(records: RecordSet) -> Figure:
    """Perplexity beyond that of a search at every step, one line a number of dense layers."""
    rows = measured_rows(records, "decode", "perplexity_increase")
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.6))
    for number, dense_layers in enumerate(sorted(int(one) for one in rows["dense_layers"].unique())):
        line_with_band(
            axes, rows_where(rows, dense_layers=dense_layers), "refresh_interval", number, f"{dense_layers} dense layers"
        )
    axes.axhline(0, color="#444444", linewidth=0.6)
    intervals = sorted(int(one) for one in rows["refresh_interval"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(intervals, [str(interval) for interval in intervals])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("refresh interval $r_m$ (steps)")
    axes.set_ylabel("perplexity increase, %")
    legend_below(axes)
    return figure


def time_by_length(records: RecordSet) -> Figure:
    """Times of the stages by length, one line a k, beside dense kernels; a panel each stage."""
    rows = measured_rows(records, "search_time", "time")
    lengths = sorted(int(one) for one in rows["length"].unique())
    figure, panels = plt.subplots(1, len(STAGE_NAMES), figsize=(PAGE_WIDTH, 2.9), sharey=True)
    for axes, (stage, title) in zip(panels, STAGE_NAMES.items(), strict=True):
        for kernel, colour in DENSE_GREYS.items():
            times = rows_where(rows, method=kernel).groupby("length")["value"].median()
            if len(times):
                label = f"dense, {DENSE_KERNEL_NAMES[kernel]}"
                axes.plot(times.index, times.to_numpy(), color=colour, marker=".", linewidth=1, label=label)
        own = rows_where(rows, method="hip", stage=stage)
        for number, top_k in enumerate(sorted(int(one) for one in own["top_k"].unique())):
            times = rows_where(own, top_k=top_k).groupby("length")["value"].median()
            axes.plot(times.index, times.to_numpy(), label=f"HiP, k = {top_k:,}", **line_look(number))
        length_axis(axes, lengths)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 3.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(title)
    panels[0].set_ylabel("time (ms)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, handlelength=2.8)
    return figure


def coverage_against_density(records: RecordSet) -> Figure:
    """Attention mass covered at equal density."""
    return comparison.coverage_against_density(records, NAMES)


def perplexity_against_density(records: RecordSet) -> Figure:
    """Loss added to dense attention's at equal density."""
    return comparison.perplexity_against_density(records, NAMES)


def retrieval_scores(records: RecordSet) -> Figure:
    """Scores and losses of retrieval tasks against density."""
    return comparison.retrieval_scores(records, NAMES)


def selection_times(records: RecordSet) -> Figure:
    """Times to select, and to select and attend."""
    return comparison.times_by_length(records, NAMES)
