"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from common.errors import DataError
from common.figures import (
    PAGE_WIDTH,
    legend_below,
    length_axis,
    length_name,
    line_look,
    line_with_band,
    measured_rows,
    rows_where,
)
from common.records import Record, RecordSet
from common.reported import read_reported
from common.selector_comparison import figures as comparison
from common.selector_comparison.figures import BASELINE_NAMES, DENSE_KERNEL_NAMES
from common.statistics import mean_interval

OWN_NAMES = {
    "seer_attention": "SeerAttention",
    "seer_attention_threshold": "SeerAttention by threshold",
    "untrained_gate": "untrained gate",
}
NAMES = {**OWN_NAMES, **BASELINE_NAMES}
BEST, NO_ROPE = "mean-max_min_mean", "no_block_rope"
GREY = "#888888"


def _training(records: RecordSet, name: str) -> Record:
    """The record of one training. Raises DataError where there is none."""
    for record in records.of("distillation"):
        if record.axes["training"] == name:
            return record
    raise DataError(f"The records hold no training {name!r} of distillation. Run that experiment first.")


def _pooling_name(gate: str) -> str:
    """`mean-max_min_mean` as `mean | max, min, mean`: queries, keys."""
    return " | ".join(side.replace("_", ", ") for side in gate.split("-"))


def distillation_loss(records: RecordSet) -> Figure:
    """Loss by step: seeds of the main gate, and the gates of the ablations."""
    rows = measured_rows(records, "distillation", "distillation_loss")
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.7))
    long, short = (rows_where(rows, training=name) for name in ("long", "short"))
    for number, seed in enumerate(sorted(long["seed"].unique())):
        line = rows_where(long, seed=seed).sort_values("step")
        left.plot(line["step"], line["value"], label=f"seed {int(seed)}", **line_look(number))
    shown = {BEST: (0, "paper's poolings"), NO_ROPE: (1, "without block RoPE")}
    for gate, (number, label) in shown.items():
        line = rows_where(short, method=gate).sort_values("step")
        right.plot(line["step"], line["value"], label=label, **line_look(number))
    others = [gate for gate in short["method"].unique() if gate not in shown]
    for number, gate in enumerate(others):
        line = rows_where(short, method=gate).sort_values("step")
        label = "other poolings" if number == 0 else None
        right.plot(line["step"], line["value"], color=GREY, linewidth=0.7, zorder=1, label=label)
    for axes, training in ((left, "long"), (right, "short")):
        length = _training(records, training).parameters["trainings"][training]["length"]
        axes.set_title(f"sequences of {length:,} tokens")
        axes.set_xlabel("step")
        axes.set_ylabel("loss of distillation")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_below(axes)
    return figure


def poolings(records: RecordSet) -> Figure:
    """Divergence on held-out text of every pooling, the best on top."""
    rows = rows_where(measured_rows(records, "distillation", "held_out_divergence"), training="short")
    gates = [gate for gate in rows["method"].unique() if "-" in gate]
    found = {gate: mean_interval(rows_where(rows, method=gate)["value"].to_numpy(dtype=np.float64)) for gate in gates}
    order = sorted(gates, key=lambda gate: -found[gate].mean)
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH * 0.7, 0.8 + 0.22 * len(order)))
    for place, gate in enumerate(order):
        interval = found[gate]
        colour, marker = (line_look(0)["color"], "o") if gate == BEST else (GREY, "s")
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=1)
        axes.plot([interval.mean], [place], color=colour, marker=marker)
    axes.set_yticks(range(len(order)), [_pooling_name(gate) for gate in order])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylabel("queries | keys")
    axes.set_xlabel("divergence of a block row (nats)")
    axes.margins(y=0.5 / len(order))
    return figure


def block_map(records: RecordSet) -> Figure:
    """True and predicted map of one head."""
    record = _training(records, "long")
    arrays = records.arrays(record)
    layer, head = (int(number) for number in arrays["map_layer_and_head"])
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH * 0.85, 2.8), sharey=True)
    image = None
    for axes, name in zip(panels, ("true", "predicted"), strict=True):
        score = arrays[f"map_{name}"]
        score = np.where(np.tri(len(score), dtype=bool), np.maximum(score, 1e-4), np.nan)  # white: what is not causal
        image = axes.imshow(score, norm=LogNorm(1e-4, 1), interpolation="nearest")
        axes.set_title(name)
        axes.set_xlabel("key block")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.grid(visible=False)
    panels[0].set_ylabel("query block")
    assert image is not None
    figure.colorbar(image, ax=panels, label="share of a block", extend="min")
    parameters = record.parameters
    length = parameters["trainings"]["long"]["length"]
    figure.suptitle(f"layer {layer}, head {head}, {length:,} tokens of {parameters['held_out_text']}", fontsize=8)
    return figure


def coverage_against_density(records: RecordSet) -> Figure:
    """Coverage of the gates and of the selectors that every paper is compared with."""
    return comparison.coverage_against_density(records, NAMES)


def block_rope(records: RecordSet) -> Figure:
    """Coverage by length at the density that most gates reach."""
    rows = measured_rows(records, "ablations", "coverage_at_density")
    names = {BEST: "trained short", NO_ROPE: "trained short, no block RoPE", "seer_attention": "trained long"}
    rows = rows.loc[rows["method"].isin(list(names)), :]
    reached = rows.groupby("density")[["length", "method"]].apply(lambda group: len(group.drop_duplicates()))
    density = float(reached.index[int(reached.to_numpy().argmax())])
    rows = rows_where(rows, density=density)
    trained = int(_training(records, "short").parameters["trainings"]["short"]["length"])
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH * 0.6, 2.9))
    for number, (gate, label) in enumerate(names.items()):
        if gate in set(rows["method"]):
            line_with_band(axes, rows_where(rows, method=gate), "length", number, label)
    longest = int(rows["length"].max())
    length_axis(axes, [int(length) for length in rows["length"].unique()])
    axes.axvspan(trained, longest, color="#eeeeee", zorder=0)
    axes.set_ylabel(f"attention mass covered\nat density {density:g}")
    legend_below(axes)
    return figure


def perplexity_against_density(records: RecordSet) -> Figure:
    """Loss of the gates and of the selectors that every paper is compared with."""
    return comparison.perplexity_against_density(records, NAMES)


def retrieval_scores(records: RecordSet) -> Figure:
    """Retrieval with the gates and with the selectors that every paper is compared with."""
    return comparison.retrieval_scores(records, NAMES)


def _reported_speed_ups() -> dict[int, list[tuple[float, float]]]:
    """Figure 6 of the paper: length -> (sparsity, speed-up) pairs."""
    found: dict[int, list[tuple[float, float]]] = {}
    for entry in read_reported(Path(__file__).with_name("reported.csv")):
        if entry.experiment == "kernel_time":
            setting = entry.settings
            found.setdefault(int(setting["length"]), []).append((float(setting["sparsity"]), float(entry.value)))
    return found


def kernel_speed_up(records: RecordSet) -> Figure:
    """Speed-up over dense kernels against sparsity, a panel each length."""
    rows = measured_rows(records, "kernel_time", "speed_up")
    lengths = sorted(int(length) for length in rows["length"].unique())
    figure, panels = plt.subplots(1, len(lengths), figsize=(PAGE_WIDTH, 2.7), sharey=True, squeeze=False)
    reported = _reported_speed_ups()
    for length, axes in zip(lengths, panels[0], strict=True):
        here = rows_where(rows, length=length)
        number = 0
        for block_size in sorted(here["block_size"].unique()):
            for kernel in here["over"].unique():
                line = rows_where(here, block_size=block_size, over=kernel).groupby("sparsity")["value"].median()
                label = f"blocks of {int(block_size)} over {DENSE_KERNEL_NAMES[kernel]}"
                axes.plot(line.index, line.to_numpy(), label=label, **line_look(number))
                number += 1
        sparsities = np.linspace(here["sparsity"].min(), here["sparsity"].max(), 50)
        axes.plot(sparsities, 1 / (1 - sparsities), color="black", linestyle="--", linewidth=0.8, label="in proportion")
        if length in reported:
            theirs = pd.DataFrame(reported[length]).sort_values(0)
            axes.plot(theirs[0], theirs[1], color=GREY, marker="s", linewidth=0.9, markerfacecolor="white", label="paper")
        axes.set_title(f"{length_name(length)} tokens")
        axes.set_xlabel("sparsity")
    panels[0, 0].set_ylabel("dense time / time")
    handles = {}
    for axes in panels[0]:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, handlelength=2.8)
    return figure


def selection_times(records: RecordSet) -> Figure:
    """Times of gate and attention."""
    return comparison.times_by_length(records, NAMES)
