"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.errors import DataError
from common.figures import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    legend_below,
    length_axis,
    length_name,
    line_look,
    line_with_band,
    measured_rows,
    rows_where,
)
from common.records import RecordSet
from common.reported import read_reported

ORDER_NAMES = {
    "last_block": "last-block queries (PBS-Attn)",
    "random_query": "random queries",
    "average_query": "average query",
    "greedy": "greedy, local",
    "random": "random order",
}
STAGE_LOOKS = {  # name, colour, hatching
    "permute": ("permute", "#E69F00", ""),
    "select": ("select blocks", "#000000", ""),
    "attention": ("block-sparse attention", "#D55E00", "////"),
}
DENSE_NAMES = {"flash": "FlashAttention-2", "cudnn": "cuDNN", "flex": "FlexAttention", "math": "PyTorch math"}
DENSE_COLOURS = {"flash": "#0072B2", "cudnn": "#56B4E9", "flex": "#D9D9D9", "math": "#0072B2"}


def _reported_densities() -> dict[int, tuple[float, float]]:
    """Table 5 of the paper: length -> density without and with permutation (selected blocks of 128 / causal blocks)."""
    blocks = {entry.id: float(entry.value) for entry in read_reported(Path(__file__).with_name("reported.csv"))}
    densities = {}
    for length in (8192, 16384, 32768, 65536, 131072):
        causal = length // 128 * (length // 128 + 1) / 2
        without, with_ = (blocks[f"t5-{length // 1024}k-{column}"] / causal for column in ("without", "with"))
        densities[length] = (without, with_)
    return densities


def _length_shown(rows: pd.DataFrame) -> int:
    """The longest length within the subject's trained context of 8,192 tokens."""
    lengths = sorted(rows["length"].unique())
    return int(max([length for length in lengths if length <= 8192] or lengths))


def _gain(rows: pd.DataFrame, order: str) -> pd.DataFrame:
    """Coverage of an order minus that of the natural order, in percentage points, window by window."""
    items = ["text", "window", "density"]
    pairs = rows_where(rows, method=order).merge(rows_where(rows, method="none"), on=items, suffixes=("", "_natural"))
    return pairs.assign(value=100 * (pairs["value"] - pairs["value_natural"]))


def coverage_against_density(records: RecordSet) -> Figure:
    """Coverage gained by sorting at equal density (oracle selection), and the paper's selection over thresholds."""
    oracle = measured_rows(records, "coverage", "oracle_coverage")
    length = _length_shown(oracle)
    oracle = rows_where(oracle, length=length)
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 3.1))
    left.axhline(0, label="natural order", color="black", linewidth=1)
    present = set(oracle["method"])
    for number, (order, label) in enumerate(ORDER_NAMES.items(), start=1):
        if order in present:
            line_with_band(left, _gain(oracle, order), "density", number, label)
    left.set_title(f"oracle selection, {length:,} tokens")
    left.set_ylabel("coverage gained (percentage points)")

    selected = {name: measured_rows(records, "coverage", f"selected_{name}") for name in ("density", "coverage")}
    lines = {
        "none": (0, "natural order"),
        "last_block": (1, "PBS-Attn"),
        "last_block_shared": (3, "PBS-Attn, shared"),
        "mean_pooling": (6, "MeanPooling"),
    }
    for method, (number, label) in lines.items():
        means = [rows_where(frame, length=length, method=method).groupby("tau")["value"].mean() for frame in selected.values()]
        points = list(zip(means[0].index, means[0].to_numpy(), means[1].to_numpy(), strict=True))
        right.plot([x for _, x, _ in points], [y for _, _, y in points], label=label, **line_look(number))
        for tau, x, y in points if method == "last_block" else []:
            if tau in (0.9, means[0].index.min(), means[0].index.max()):  # the paper's, and the ends of the curve
                right.annotate(
                    rf"$\tau$ = {tau:g}", (x, y), xytext=(-3, 4), textcoords="offset points", ha="right", fontsize=6.5
                )
    right.margins(x=0.2, y=0.1)  # room for the labels
    right.set_title(rf"selection by threshold $\tau$, {length:,} tokens")
    right.set_ylabel("coverage of attention mass")
    for axes in (left, right):
        axes.set_xlabel("density (blocks read / causal blocks)")
        legend_below(axes)
    return figure


def selected_blocks_by_length(records: RecordSet) -> Figure:
    """Density at the paper's threshold by length, without and with sorting; and the reduction."""
    rows = rows_where(measured_rows(records, "coverage", "selected_density"), tau=0.9)
    saved = rows_where(measured_rows(records, "coverage", "fewer_blocks"), than="none")
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.9))
    for number, (method, label) in enumerate((("none", "natural order"), ("last_block", "sorted (PBS-Attn)"))):
        line_with_band(left, rows_where(rows, method=method), "length", number, label)
    densities = _reported_densities()
    grey = {"color": "#777777", "linewidth": 0.9, "markerfacecolor": "white"}
    for column, marker, label in ((0, "o", "paper, natural order"), (1, "s", "paper, sorted")):
        left.plot(list(densities), [pair[column] for pair in densities.values()], marker=marker, label=label, **grey)
    left.set_ylabel("selected blocks / causal blocks")
    left.set_ylim(0, 1.05)
    line_with_band(right, saved, "length", 1, "SmolLM2-135M")
    reported = [100 * (1 - with_ / without) for without, with_ in densities.values()]
    right.plot(list(densities), reported, marker="s", label="paper, Llama-3.1-8B", **grey)
    right.axhline(0, color="#444444", linewidth=0.6)
    right.set_ylabel("fewer blocks by sorting, %")
    for axes in (left, right):
        length_axis(axes, [*(int(length) for length in rows["length"].unique()), *densities])
        legend_below(axes)
    return figure


def time_breakdown(records: RecordSet) -> Figure:
    """Stacked stages of the pipeline beside dense kernels, relative to the fastest dense kernel at each length."""
    rows = measured_rows(records, "pipeline_time", "time")
    lengths = sorted(int(length) for length in rows["length"].unique())
    dense = [name for name in DENSE_NAMES if name in set(rows["method"])]
    places = rows[["method", "stage", "length"]].itertuples(index=False, name=None)
    times = {
        (str(method), str(stage), int(length)): float(
            rows_where(rows, method=method, stage=stage, length=length)["value"].median()
        )
        for method, stage, length in places
    }
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH if len(lengths) > 2 else COLUMN_WIDTH, 2.8))
    width = 0.84 / (len(dense) + 1)

    def label(x: float, height: float, milliseconds: float) -> None:
        text = f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"
        axes.annotate(text, (x, height), xytext=(0, 1), textcoords="offset points", ha="center", va="bottom", fontsize=6)

    for place, length in enumerate(lengths):
        timed = [name for name in dense if (name, "total", length) in times]
        fastest = min(times[name, "total", length] for name in timed)
        x = place - 0.42 + width / 2
        bottom = 0.0
        for stage, (name, colour, hatch) in STAGE_LOOKS.items():
            height = times["pbs_attn", stage, length] / fastest
            axes.bar(
                x,
                height,
                width * 0.92,
                bottom=bottom,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0.4,
                label=f"PBS-Attn: {name}",
            )
            bottom += height
        total = times["pbs_attn", "total", length] / fastest
        axes.plot(
            [x - width / 2, x + width / 2], [total, total], color="black", linewidth=1.2, label="PBS-Attn: all stages in one"
        )
        label(x, max(bottom, total), times["pbs_attn", "total", length])
        for number, name in enumerate(dense, start=1):
            if name in timed:
                height = times[name, "total", length] / fastest
                axes.bar(x + number * width, height, width * 0.92, color=DENSE_COLOURS[name], label=DENSE_NAMES[name])
                label(x + number * width, height, times[name, "total", length])
    axes.set_xticks(range(len(lengths)), [length_name(length) for length in lengths])
    axes.set_xlabel("context length (tokens)")
    axes.set_ylabel("time / fastest dense kernel\n(above the bars: ms)")
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.08)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # each label once
    columns = 4 if len(lengths) > 2 else 2
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=columns, handlelength=1.4)
    return figure


def attention_map(records: RecordSet) -> Figure:
    """Block mass of the head that gains most, in natural and in sorted key order."""
    candidates = [record for record in records.of("coverage") if "map_none" in record.arrays]
    if not candidates:
        raise DataError("The records of coverage hold no attention maps. Run that experiment first.")
    lengths = [int(record.axes["length"]) for record in candidates]
    shown = max([length for length in lengths if length <= 8192] or lengths)
    record = candidates[lengths.index(shown)]
    arrays = records.arrays(record)
    layer, head = (int(number) for number in arrays["map_layer_and_head"])
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH * 0.85, 2.8), sharey=True)
    titles = {"none": "natural order", "last_block": "sorted inside segments"}
    image = None
    for axes, (order, title) in zip(panels, titles.items(), strict=True):
        mass = arrays[f"map_{order}"]
        mass = np.where(mass > 0, np.maximum(mass, 1e-4), np.nan)  # white is what a causal query may not read
        image = axes.imshow(mass, norm=LogNorm(1e-4, 1), interpolation="nearest")
        density = float(arrays[f"density_at_coverage_{order}"][layer, head])
        axes.set_title(f"{title}:\n97.5% of mass in {100 * density:.0f}% of blocks")
        axes.set_xlabel("key block")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.grid(visible=False)
    panels[0].set_ylabel("query block")
    assert image is not None
    figure.colorbar(image, ax=panels, label="attention mass of a block", extend="min")
    figure.suptitle(f"layer {layer}, head {head}, {shown:,} tokens of {record.axes['text']}", fontsize=8)
    return figure
