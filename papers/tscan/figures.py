"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.figures import COLOURS, COLUMN_WIDTH, PAGE_WIDTH, line_look, line_with_band, measured_rows, rows_where
from common.metrics.classification import reliability
from common.records import Record, RecordSet
from common.statistics import mean_interval
from papers.tscan.stays import COLUMNS

NAMES = {
    "tscan_paper": "TSCAN, paper",
    "tscan_code": "TSCAN, code",
    "transformer": "Transformer",
    "lstm": "LSTM",
    "bilstm": "LSTM, both directions",
    "gru_d": "GRU-D",
    "logistic_regression": "logistic regression",
    "saps_i": "SAPS-I",
    "sofa": "SOFA",
}
SHOWN = 20


def _points(axes: Axes, rows: pd.DataFrame, methods: list[str]) -> None:
    """One line a method: the seeds as points, and the mean with its interval."""
    for place, method in enumerate(methods):
        values = rows_where(rows, method=method)["value"].to_numpy(dtype=np.float64)
        interval = mean_interval(values)
        axes.plot(values, np.full(len(values), place), ".", color=COLOURS[0], alpha=0.4, markersize=4)
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [place, place], color=COLOURS[1])
        axes.plot([interval.mean], [place], "|", color=COLOURS[1], markersize=9)
    axes.set_yticks(range(len(methods)), [NAMES.get(method, method.replace("_", " ")) for method in methods])
    axes.set_ylim(len(methods) - 0.5, -0.5)


def models(records: RecordSet) -> Figure:
    """AUROC, AUPRC and Brier score of each model."""
    figure, panels = plt.subplots(1, 3, figsize=(PAGE_WIDTH, 2.6), sharey=True)
    for axes, (metric, label) in zip(
        panels, {"auroc": "AUROC", "auprc": "AUPRC", "brier": "Brier score"}.items(), strict=True
    ):  # fmt: skip
        rows = measured_rows(records, "mortality", metric)
        _points(axes, rows, [name for name in NAMES if name in set(rows["method"])])
        axes.set_xlabel(label)
    return figure


def calibration(records: RecordSet) -> Figure:
    """Share of deaths against predicted probability, in tenths of the stays."""
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 3.6))
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=0.8)
    by_model = {str(record.axes["model"]): record for record in records.of("mortality")}
    largest = 0.0
    for number, (name, label) in enumerate((name, label) for name, label in NAMES.items() if name in by_model):
        arrays = records.arrays(by_model[name])
        curves = [reliability(arrays["died"], row)[2:] for row in arrays["probabilities"]]
        predicted, found = np.mean(curves, axis=0)
        axes.plot(predicted, found, label=label, **line_look(number))
        largest = max(largest, predicted.max(), found.max())
    axes.set_xlim(0, 1.05 * largest)
    axes.set_ylim(0, 1.05 * largest)
    axes.set_xlabel("predicted probability of death")
    axes.set_ylabel("share that died")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    return figure


def ablation_scores(records: RecordSet) -> Figure:
    """AUROC of every variant, the paper's on the left and the code's on the right."""
    rows = measured_rows(records, "ablations", "auroc")
    found = list(dict.fromkeys(map(str, rows["method"])))
    groups = [[name for name in found if name.split("_")[0] == base] for base in ("paper", "code")]
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 0.17 * max(map(len, groups)) + 0.8), sharex=True)
    for axes, names in zip(panels, groups, strict=True):
        _points(axes, rows, names)
        axes.axvline(float(rows_where(rows, method=names[0])["value"].mean()), color="#888888", linestyle=":", linewidth=0.8)
        axes.set_xlabel("AUROC")
    return figure


def _by(records: RecordSet, experiment: str, axis: str) -> dict[str, Record]:
    return {str(record.axes[axis]): record for record in records.of(experiment)}


def hours_of_attention(records: RecordSet) -> Figure:
    """Attention that hours receive: one panel a version, one line a number of segments."""
    found = _by(records, "ablations", "variant")
    versions = {"paper": "paper: no mask", "code": "code: causal mask", "code_unmasked": "code without masks"}
    shown = {base: title for base, title in versions.items() if base in found}
    figure, panels = plt.subplots(1, len(shown), figsize=(PAGE_WIDTH, 2.3), sharey=True, squeeze=False)
    for axes, (base, title) in zip(panels[0], shown.items(), strict=True):
        for number, n in enumerate((2, 4, 8)):
            record = found.get(base if n == 4 else f"{base}_n{n}")
            if record is None:
                continue
            profile = records.arrays(record)["hours"]
            profile = profile * profile.shape[1] / n
            hours = np.arange(1, profile.shape[1] + 1)
            look = {**line_look(number), "marker": ""}
            axes.plot(hours, profile.T, color=look["color"], alpha=0.25, linewidth=0.5)
            axes.plot(hours, profile.mean(0), label=f"n = {n}", **look)
        axes.axhline(1, color="#888888", linewidth=0.8)
        axes.set_title(title, loc="left")
        axes.set_xlabel("hour")
    panels[0, 0].set_ylabel("attention / uniform")
    panels[0, 0].legend()
    return figure


def what_drives_predictions(records: RecordSet) -> Figure:
    """Attention of variables, and AUROC lost without them, of the variables with most attention: a row of panels a version."""
    found = _by(records, "explanations", "model")
    figure, panels = plt.subplots(len(found), 2, figsize=(PAGE_WIDTH, 2.9 * len(found)), squeeze=False)
    for row, (name, record) in zip(panels, found.items(), strict=True):
        arrays = records.arrays(record)
        for axes, key, label, scale in (
            (row[0], "attention_of_variables", "attention / uniform", len(COLUMNS)),
            (row[1], "loss_without_variables", "AUROC lost without it", 1),
        ):
            values = arrays[key] * scale
            order = np.argsort(-values.mean(0), kind="stable")[:SHOWN]
            axes.barh(range(len(order)), values.mean(0)[order], color=COLOURS[0], alpha=0.5)
            for line in values:
                axes.plot(line[order], range(len(order)), ".", color=COLOURS[1], markersize=3)
            axes.set_yticks(range(len(order)), [COLUMNS[place] for place in order], fontsize=6)
            axes.set_ylim(len(order) - 0.5, -0.5)
            axes.set_xlabel(label)
            axes.set_title(NAMES[name], loc="left")
        row[0].axvline(1, color="#888888", linewidth=0.8)
    return figure


def hours_that_matter(records: RecordSet) -> Figure:
    """AUROC lost without an hour."""
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.3))
    for number, (name, record) in enumerate(_by(records, "explanations", "model").items()):
        lost = records.arrays(record)["loss_without_hours"]
        hours, look = np.arange(1, lost.shape[1] + 1), {**line_look(number), "marker": ""}
        axes.plot(hours, lost.T, color=look["color"], alpha=0.25, linewidth=0.5)
        axes.plot(hours, lost.mean(0), label=NAMES[name], **look)
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.set_xlabel("hour")
    axes.set_ylabel("AUROC lost without it")
    axes.legend()
    return figure


def variables_against_auroc(records: RecordSet) -> Figure:
    """AUROC against the number of variables."""
    rows = measured_rows(records, "number_of_variables", "auroc")
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.3))
    for number, name in enumerate(dict.fromkeys(map(str, rows["method"]))):
        line_with_band(axes, rows_where(rows, method=name), "variables", number, NAMES[name])
    axes.set_xticks(sorted({int(count) for count in rows["variables"]}))
    axes.set_xlabel("variables")
    axes.set_ylabel("AUROC")
    axes.legend()
    return figure
