"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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

KERNELS = {
    "lightning_attention": "Lightning Attention-2",
    "flash": "softmax, FlashAttention-2",
    "cudnn": "softmax, cuDNN",
    "math": "softmax, PyTorch math",
    "simple_gla": "flash-linear-attention",
}
MODELS = {"transnormer_llm": "TransNormerLLM", "llama": "Llama"}
PASSES = {"forward": "forward", "forward_backward": "forward and backward"}
VARIANTS = {
    "mix": "TransNormerLLM (Mix)",
    "lrpe_decay": "LRPE and decay everywhere",
    "decay": "decay alone",
    "lrpe": "LRPE alone",
    "no_position": "no position",
    "linear_slopes": "slopes of Eq. 10",
    "no_temperature": "no decay temperature",
    "no_gate": "no gate",
    "rms_norm": "RMSNorm",
    "layer_norm": "LayerNorm",
    "no_activation": "no activation of Q, K",
    "llama": "Llama",
}


def _lines(axes: Axes, rows: pd.DataFrame, names: dict[str, str], x: str = "length") -> None:
    """A line for every method, in the look of its place in `names`."""
    for number, (method, label) in enumerate(names.items()):
        line = rows_where(rows, method=method).sort_values(x)
        if not line.empty:
            axes.plot(line[x], line["value"], label=label, **line_look(number))


def _by_pass(records: RecordSet, metric: str, label: str) -> Figure:
    """A metric of the kernels over the length at one number of tokens, a panel for each pass."""
    rows = rows_where(measured_rows(records, "kernel_time", metric), problem="fixed_tokens")
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.9), sharey=True)
    for axes, (name, title) in zip(panels, PASSES.items(), strict=True):
        part = rows_where(rows, **{"pass": name})
        _lines(axes, part, KERNELS)
        length_axis(axes, (int(length) for length in part["length"].unique()))
        axes.tick_params(axis="x", labelrotation=45)
        axes.set_yscale("log")
        axes.set_title(title)
    panels[0].set_ylabel(label)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def time_by_length(records: RecordSet) -> Figure:
    """Time per token of every kernel."""
    return _by_pass(records, "time_per_token", "time per token (ns)")


def memory_by_length(records: RecordSet) -> Figure:
    """Memory beyond the inputs; without a CUDA device there is none, and the figure says so."""
    table = records.table()
    if rows_where(table, experiment="kernel_time", metric="peak_memory").empty:
        figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 1.0))
        axes.axis("off")
        axes.text(0.5, 0.5, "memory is measured on a CUDA device", ha="center", va="center")
        return figure
    return _by_pass(records, "peak_memory", "memory beyond the inputs (MiB)")


def decoding(records: RecordSet) -> Figure:
    """Time of a step, and bytes kept."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.9))
    for axes, metric, label in (
        (left, "decode_time", "time of a step (µs)"),
        (right, "kept_bytes", "bytes kept for one layer"),
    ):
        rows = measured_rows(records, "decode", metric)
        _lines(axes, rows, KERNELS)
        length_axis(axes, (int(length) for length in rows["length"].unique()))
        axes.set_xlabel("tokens so far")
        axes.set_yscale("log")
        axes.set_ylabel(label)
        legend_below(axes)
    return figure


def training_speed(records: RecordSet) -> Figure:
    """Tokens a second over the sequence length."""
    rows = measured_rows(records, "training_speed", "tokens_per_second")
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.6))
    _lines(axes, rows, MODELS)
    length_axis(axes, (int(length) for length in rows["length"].unique()))
    axes.set_yscale("log")
    axes.set_ylabel("tokens a second")
    legend_below(axes)
    return figure


def learning_curves(records: RecordSet) -> Figure:
    """Loss by bytes seen of both models."""
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH * 0.7, 2.8))
    for metric, label, width in (("training_loss", None, 0.7), ("validation_loss", "held-out book", 1.6)):
        rows = measured_rows(records, "language_model", metric)
        for number, (method, name) in enumerate(MODELS.items()):
            line = rows_where(rows, method=method).sort_values("tokens")
            look = {**line_look(number), "linewidth": width, "marker": "" if label is None else line_look(number)["marker"]}
            axes.plot(line["tokens"] / 1e6, line["value"], label=f"{name}, {label or 'training'}", **look)
    axes.set_xlabel("million bytes seen")
    axes.set_ylabel("loss (nats a byte)")
    legend_below(axes)
    return figure


def beyond_trained_length(records: RecordSet) -> Figure:
    """Loss on held-out books over the length of the window."""
    rows = measured_rows(records, "language_model", "negative_log_likelihood")
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.8))
    for number, (method, name) in enumerate(MODELS.items()):
        line_with_band(axes, rows_where(rows, method=method), "length", number, name)
    length_axis(axes, (int(length) for length in rows["length"].unique()))
    axes.set_xlabel("length of the window (bytes)")
    axes.set_ylabel("loss (nats a byte)")
    legend_below(axes)
    return figure


def ablations(records: RecordSet) -> Figure:
    """Test loss of every variant of full training, the best on top."""
    rows = measured_rows(records, "ablations", "test_loss")
    values = {method: rows_where(rows, method=method)["value"].to_numpy() for method in VARIANTS}
    means = {method: float(found.mean()) for method, found in values.items() if len(found)}
    order = sorted(means, key=lambda method: -means[method])
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH * 0.7, 0.8 + 0.24 * len(order)))
    for place, method in enumerate(order):
        look = line_look(0 if method == "mix" else 1 if method == "llama" else 6)
        axes.plot(
            values[method],
            [place] * len(values[method]),
            color=look["color"],
            marker=look["marker"],
            linestyle="none",
            alpha=0.6,
        )
        axes.plot([means[method]] * 2, [place - 0.3, place + 0.3], color=look["color"])
    axes.set_yticks(range(len(order)), [VARIANTS[method] for method in order])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("loss on held-out books (nats a byte)")
    axes.margins(y=0.5 / len(order))
    return figure
