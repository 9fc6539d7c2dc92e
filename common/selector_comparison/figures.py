"""The figures of the comparison, drawn alike for every paper: functions of the records and of what to show.

`names` gives every method's label in the order of the lines: {**own names, **BASELINE_NAMES}. Methods without records are left
out; the look of a line goes with its place in `names`.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, SymmetricalLogLocator

from common.errors import DataError
from common.figures import PAGE_WIDTH, length_axis, length_name, line_look, line_with_band, measured_rows, rows_where
from common.records import RecordSet
from common.selector_comparison.curves import DENSE

BASELINE_NAMES = {
    "mean_pooling": "mean pooling",
    "xattention": "XAttention",
    "flexprefill": "FlexPrefill",
    "vertical_slash": "vertical-slash (MInference)",
    "streaming_llm": "sinks and window (StreamingLLM)",
    "oracle": "oracle",
}
DENSE_KERNEL_NAMES = {"flash": "FlashAttention-2", "cudnn": "cuDNN", "flex": "FlexAttention", "math": "PyTorch math"}
TRAINED_LENGTH = 8192  # tokens; longer contexts of the subject need another rotary base
SHOWN_DENSITY = 0.2  # where lengths are compared


def length_shown(rows: pd.DataFrame, length: int | None = None) -> int:
    """The length asked for, or the longest within the subject's trained context. Raises DataError where there are no rows."""
    lengths = sorted(int(one) for one in rows["length"].unique())
    if length is not None:
        if length not in lengths:
            raise DataError(f"The records hold no length {length}; they hold {', '.join(map(str, lengths))}.")
        return length
    return max([one for one in lengths if one <= TRAINED_LENGTH] or lengths[:1])


def _density_shown(rows: pd.DataFrame) -> float:
    """The measured density nearest to `SHOWN_DENSITY` among those that most methods reach."""
    counts = {
        float(density): rows_where(rows, density=density)["method"].nunique() for density in rows["density"].dropna().unique()
    }
    most = [density for density, count in counts.items() if count == max(counts.values())]
    return min(most, key=lambda density: abs(density - SHOWN_DENSITY))


def _lines(axes: Axes, rows: pd.DataFrame, x: str, names: Mapping[str, str]) -> None:
    present = set(rows["method"])
    for number, (method, label) in enumerate(names.items()):
        if method in present:
            line_with_band(axes, rows_where(rows, method=method), x, number, label)


def _shared_legend(figure: Figure, *panels: Axes) -> None:
    """One legend for all panels, above them, each label once."""
    found = {}
    for axes in panels:
        found |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if len(found) > 1:
        figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=min(len(found), 4), handlelength=2.8)


def _by_density_and_length(rows: pd.DataFrame, names: Mapping[str, str], length: int | None, label: str) -> Figure:
    """Two panels of a metric at given densities: against density at one length, and by length at one density."""
    chosen, density = length_shown(rows, length), _density_shown(rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.9))
    _lines(left, rows_where(rows, length=chosen), "density", names)
    left.set_title(f"{chosen:,} tokens")
    left.set_xlabel("density (share of the causal blocks read)")
    left.set_ylabel(label)
    _lines(right, rows_where(rows, density=density), "length", names)
    right.set_title(f"density {density:g}")
    length_axis(right, [int(one) for one in rows["length"].unique()])
    right.set_ylabel(label)
    _shared_legend(figure, left, right)
    return figure


def coverage_against_density(
    records: RecordSet, names: Mapping[str, str], *, experiment: str = "coverage", length: int | None = None
) -> Figure:
    """Attention mass covered at equal density, means over texts and windows with 95% intervals.

    Args:
        records: of `compare_coverage`.
        names: method -> label.
        experiment: its name.
        length: of the left panel; by default the longest within the trained context.

    Raises:
        DataError: there are no such records.
    """
    rows = measured_rows(records, experiment, "coverage_at_density")
    return _by_density_and_length(rows, names, length, "attention mass covered")


def perplexity_against_density(
    records: RecordSet, names: Mapping[str, str], *, experiment: str = "perplexity", length: int | None = None
) -> Figure:
    """Loss added at equal density: negative log-likelihood minus that of dense attention on the same window.

    Args:
        records: of `compare_perplexity`.
        names: method -> label.
        experiment: its name.
        length: of the left panel; by default the longest within the trained context.

    Raises:
        DataError: there are no such records.
    """
    rows = measured_rows(records, experiment, "negative_log_likelihood_at_density")
    dense = rows_where(measured_rows(records, experiment, "negative_log_likelihood"), method=DENSE)
    items = ["text", "length", "window"]
    pairs = rows.merge(dense[[*items, "value"]], on=items, suffixes=("", "_dense"))
    added = pairs.assign(value=pairs["value"] - pairs["value_dense"])
    figure = _by_density_and_length(added, names, length, "loss added to dense attention's\n(nats a token)")
    for axes in figure.axes:
        axes.axhline(0, color="#444444", linewidth=0.6)
        axes.set_yscale("symlog", linthresh=0.01)
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=0.01, subs=[1, 2, 5]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return figure


def retrieval_scores(
    records: RecordSet, names: Mapping[str, str], *, experiment: str = "retrieval", length: int | None = None
) -> Figure:
    """Scores (above) and losses of the right answer (below) against density, a panel each task; dense attention as a line.

    Args:
        records: of `compare_retrieval`.
        names: method -> label.
        experiment: its name.
        length: shown; by default the longest within the trained context.

    Raises:
        DataError: there are no such records.
    """
    metrics = {"score": "score, %", "answer_negative_log_likelihood": "loss of the right answer\n(nats a token)"}
    rows = {metric: measured_rows(records, experiment, metric) for metric in metrics}
    chosen = length_shown(rows["score"], length)
    densities = rows_where(measured_rows(records, experiment, "density"), length=chosen)
    tasks = list(dict.fromkeys(rows["score"]["task"]))
    columns = min(len(tasks), 4)
    blocks = [tasks[start : start + columns] for start in range(0, len(tasks), columns)]
    figure, panels = plt.subplots(
        len(metrics) * len(blocks), columns, figsize=(PAGE_WIDTH, 0.6 + 3.6 * len(blocks)), squeeze=False, sharex=True
    )  # fmt: skip
    for number_of_line, line in enumerate(panels):
        metric, label = list(metrics.items())[number_of_line % len(metrics)]
        shown = blocks[number_of_line // len(metrics)]
        for axes in line[len(shown) :]:
            axes.set_axis_off()
        for task, axes in zip(shown, line, strict=False):
            found = rows_where(rows[metric], length=chosen, task=task)
            dense = rows_where(found, method=DENSE)["value"].mean()
            axes.axhline(dense, color="black", linewidth=1, label="dense attention")
            for number, (method, name) in enumerate(names.items()):
                points = [
                    (place["value"].mean(), rows_where(found, method=method, threshold=threshold)["value"].mean())
                    for threshold, place in rows_where(densities, task=task, method=method).groupby("threshold")
                ]
                if points:
                    axes.plot(*np.array(sorted(points)).T, label=name, **line_look(number))
            if metric == "score":
                axes.set_title(f"{task},\n{chosen:,} tokens")
                axes.set_ylim(-4, 104)
            else:
                axes.set_ylim(bottom=0)
        line[0].set_ylabel(label)
    for axes in panels[-1]:
        axes.set_xlabel("density of the prefill")
    _shared_legend(figure, *panels.flat)
    return figure


def times_by_length(records: RecordSet, names: Mapping[str, str], *, experiment: str = "selection_time") -> Figure:
    """Time to select (left), and to select and attend (right), by length, beside the dense kernels of the same run.

    Args:
        records: of `compare_selection_time`.
        names: method -> label.
        experiment: its name.

    Raises:
        DataError: there are no such records.
    """
    totals = measured_rows(records, experiment, "total_time")
    selections = measured_rows(records, experiment, "selection_time")
    lengths = sorted(int(length) for length in totals["length"].unique())
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 3.0), sharey=True)
    for axes, rows, title in zip(panels, (selections, totals), ("selection alone", "selection and attention"), strict=True):
        for grey, (kernel, label) in zip(("#000000", "#777777", "#AAAAAA", "#CCCCCC"), DENSE_KERNEL_NAMES.items(), strict=True):
            dense = rows_where(totals, method=kernel).groupby("length")["value"].median()
            if len(dense):
                axes.plot(dense.index, dense.to_numpy(), color=grey, marker=".", linewidth=1, label=f"dense, {label}")
        for number, (method, label) in enumerate(names.items()):
            times = rows_where(rows, method=method).groupby("length")["value"].median()
            if len(times):
                axes.plot(times.index, times.to_numpy(), label=label, **line_look(number))
        length_axis(axes, lengths)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 3.0) if len(lengths) > 1 else (1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(title)
    panels[0].set_ylabel("time (ms)")
    _shared_legend(figure, *panels)
    return figure


def prefill_speed_up(records: RecordSet, names: Mapping[str, str], *, experiment: str = "prefill_time") -> Figure:
    """Time to the first token of the dense model divided by each method's, by length, a panel each subject.

    Args:
        records: of `compare_prefill`.
        names: method -> label.
        experiment: its name.

    Raises:
        DataError: there are no such records.
    """
    rows = measured_rows(records, experiment, "prefill_speed_up")
    subjects = list(dict.fromkeys(rows["subject"]))
    figure, panels = plt.subplots(1, len(subjects), figsize=(PAGE_WIDTH, 2.6), squeeze=False, sharey=True)
    for subject, axes in zip(subjects, panels[0], strict=True):
        found = rows_where(rows, subject=subject)
        axes.axhline(1, color="black", linewidth=1, label="dense attention")
        for number, (method, label) in enumerate(names.items()):
            line = rows_where(found, method=method).groupby("length")["value"].median()
            if len(line):
                axes.plot(line.index, line.to_numpy(), label=label, **line_look(number))
        length_axis(axes, [int(length) for length in found["length"].unique()])
        longest = length_name(int(found["length"].max()))
        axes.set_title(f"{subject} weights, up to {longest} tokens")
    panels[0, 0].set_ylabel("dense time / time")
    _shared_legend(figure, *panels[0])
    return figure
