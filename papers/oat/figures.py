"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from common.data.amazon_book_covers import COLUMNS, ROWS
from common.errors import DataError
from common.figures import COLOURS, COLUMN_WIDTH, PAGE_WIDTH, measured_rows, rows_where
from common.metrics.scanpaths import BEHAVIOUR
from common.records import RecordSet
from common.statistics import mean_interval

NAMES = {
    "oat": "OAT",
    "linear_head": "linear head",
    "sinusoidal": "sinusoidal positions",
    "sigma_1.5": "σ = 1.5",
    "sigma_2.5": "σ = 2.5",
    "target_identity": "target's identity",
    "image_level": "whole image",
    "look_up": "copy, same collage",
    "random_collage": "copy, any collage",
    "human": "another person",
    "walk": "hand-fitted walk",
    "frequency": "frequencies",
    "centre": "centre",
    "uniform_human_length": "chance",
}
PROTOCOL_NAMES = {
    "scanpath_random": "scanpaths parted",
    "collage_disjoint": "collages parted",
    "unseen_target": "unseen target",
    "aliased": "aliased records",
}
DISJOINT = "collage_disjoint"


def _points(axes: Axes, place: float, values: np.ndarray, colour: str) -> None:
    """Seeds as points, and their mean with its interval."""
    interval = mean_interval(values)
    axes.plot(np.full(len(values), place), values, ".", color=colour, alpha=0.4, markersize=4)
    if interval.low is not None and interval.high is not None:
        axes.plot([place, place], [interval.low, interval.high], color=colour)
    axes.plot([place], [interval.mean], "_", color=colour, markersize=9)


def _sampled(records: RecordSet, metric: str) -> pd.DataFrame:
    """Rows of sampled scanpaths and of predictors."""
    found = [
        rows_where(measured_rows(records, "search", metric), decoding="sampled"),
        measured_rows(records, "predict", metric),
    ]
    return pd.concat(found, ignore_index=True)


def protocols(records: RecordSet) -> Figure:
    """Sequence score and Δ under each protocol."""
    methods = ("oat", "look_up", "random_collage", "human")
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.8))
    for axes, (metric, label) in zip(
        panels, {"sequence_score": "sequence score", "behaviour_difference": "Δ"}.items(), strict=True
    ):
        rows = _sampled(records, metric)
        for number, method in enumerate(methods):
            for place, protocol in enumerate(PROTOCOL_NAMES):
                values = rows_where(rows, method=method, protocol=protocol)["value"].to_numpy(dtype=np.float64)
                if len(values):
                    _points(axes, place + 0.18 * (number - 1.5), values, COLOURS[number])
            axes.plot([], [], ".", color=COLOURS[number], label=NAMES[method])
        axes.set_xticks(range(len(PROTOCOL_NAMES)), list(PROTOCOL_NAMES.values()), rotation=20)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
    panels[1].legend()
    return figure


def ablations(records: RecordSet) -> Figure:
    """Cross entropy and Δ of the variants on unseen collages."""
    entropy = rows_where(measured_rows(records, "search", "cross_entropy"), protocol=DISJOINT)
    difference = rows_where(measured_rows(records, "search", "behaviour_difference"), protocol=DISJOINT, decoding="sampled")
    methods = [name for name in NAMES if name in set(entropy["method"])]
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.6))
    for axes, rows, label in zip(panels, (entropy, difference), ("test cross entropy, nats", "Δ"), strict=True):
        for place, method in enumerate(methods):
            _points(axes, place, rows_where(rows, method=method)["value"].to_numpy(dtype=np.float64), COLOURS[0])
        axes.set_xticks(range(len(methods)), [NAMES[method] for method in methods], rotation=30, ha="right")
        axes.set_ylabel(label)
    return figure


def behaviour(records: RecordSet) -> Figure:
    """Each component over that of people, on unseen collages."""
    tables = {name: rows_where(_sampled(records, f"{name}_of_paths"), protocol=DISJOINT) for name in BEHAVIOUR}
    methods = ("oat", "image_level", "random_collage", "walk", "uniform_human_length")
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH + 1, 2.8))
    for number, method in enumerate(methods):
        for place, rows in enumerate(tables.values()):
            people = float(rows_where(rows, method="people")["value"].mean())
            values = rows_where(rows, method=method)["value"].to_numpy(dtype=np.float64)
            if len(values):
                _points(axes, place + 0.16 * (number - 2), values / people, COLOURS[number])
        axes.plot([], [], ".", color=COLOURS[number], label=NAMES[method])
    axes.axhline(1, color="#888888", linewidth=0.8)
    axes.set_xticks(range(len(BEHAVIOUR)), list(BEHAVIOUR))
    axes.set_ylabel("over that of people")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def scanpaths(records: RecordSet) -> Figure:
    """People's and OAT's scanpaths on test scenes."""
    found = [record for record in records.of("search") if record.axes["training"] == "disjoint"]
    if not found:
        raise DataError("The records hold no training on collages that are parted. Run the experiment search first.")
    arrays = records.arrays(found[0])
    count = sum(name.startswith("human_") for name in arrays)
    figure, panels = plt.subplots(2, count, figsize=(PAGE_WIDTH, 2.6), squeeze=False)
    for column in range(count):
        target = int(arrays[f"target_{column}"][0])
        for axes, name, title in zip(panels[:, column], ("human", "greedy"), ("a person", "OAT"), strict=True):
            _draw_path(axes, arrays[f"{name}_{column}"].tolist(), target)
            axes.set_title(title, loc="left")
    return figure


def _draw_path(axes: Axes, path: list[int], target: int) -> None:
    for cell in range(ROWS * COLUMNS):
        row, column = divmod(cell, COLUMNS)
        frame = {"edgecolor": COLOURS[1], "linewidth": 1.8} if cell == target else {"edgecolor": "#cccccc", "linewidth": 0.5}
        axes.add_patch(
            Rectangle((column - 0.42, row - 0.45), 0.84, 0.9, facecolor="none", zorder=1 + (cell == target), **frame)
        )
    places = np.array([divmod(cell, COLUMNS)[::-1] for cell in path], dtype=float)
    axes.plot(places[:, 0], places[:, 1], "-o", color=COLOURS[0], markersize=2.5, linewidth=0.9, zorder=3)
    told: dict[int, list[str]] = {}
    for order, cell in enumerate(path, start=1):
        told.setdefault(cell, []).append(str(order))
    for cell, orders in told.items():
        row, column = divmod(cell, COLUMNS)
        label = ",".join(orders) if len(orders) <= 2 else f"{orders[0]}…{orders[-1]}"
        axes.annotate(label, (column, row), xytext=(1.5, 1.5), textcoords="offset points", fontsize=5, zorder=4)
    axes.set(xlim=(-0.6, COLUMNS - 0.4), ylim=(ROWS - 0.4, -0.6), xticks=[], yticks=[])
    axes.set_aspect(1.45)
    axes.grid(visible=False)
