"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from common.errors import DataError
from common.figures import PAGE_WIDTH, legend_below, line_look, line_with_band, measured_rows, rows_where
from common.records import Record, RecordSet
from common.reported import read_reported

GREY = {"color": "#777777", "linewidth": 0.9, "markerfacecolor": "white"}
METHOD_NAMES = {"pointer": "pointer network", "attention": "LSTM + attention", "lstm": "LSTM"}
RECIPE_NAMES = {"modern": "modern recipe", "faithful": "paper's recipe", "faithful_sum": "paper's recipe, summed loss"}
Edges = Callable[[np.ndarray], list[tuple[int, int]]]


def predictions(records: RecordSet) -> Figure:
    """Predicted over true outputs of test points: two examples of every task, of the training on most points."""
    rows: list[tuple[str, str, Edges]] = [
        ("hulls", "convex hull", _cycle_edges),
        ("triangulations", "Delaunay triangulation", _triangle_edges),
        ("tours", "tour", _cycle_edges),
    ]
    figure, panels = plt.subplots(3, 4, figsize=(PAGE_WIDTH, 5.4))
    for line, (experiment, title, edges) in zip(panels, rows, strict=True):
        shown = _pictured(records, experiment)
        for column, axes in enumerate(line):
            record, n = shown[min(column // 2, len(shown) - 1)]
            arrays = records.arrays(record)
            number = column % 2
            points = arrays[f"points_{n}"][number]
            for name, look in (
                ("expected", {"color": "#999999", "linewidth": 2.2}),
                ("predicted", {"color": "#D55E00", "linewidth": 0.9}),
            ):
                for a, b in edges(arrays[f"{name}_{n}"][number]):
                    axes.plot(*points[[a, b]].T, **look)
            axes.plot(*points.T, "o", color="black", markersize=2)
            axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.set_title(f"{title}, n = {n}", fontsize=7)
    return figure


def beyond_training_lengths(records: RecordSet) -> Figure:
    """Accuracy and area of hulls, and tour length over the reference, by number of points."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(PAGE_WIDTH, 2.9))
    hulls, training = _widest(records, "hulls")
    for axes, metric, label in ((left, "accuracy", "hull accuracy, %"), (middle, "area", "hull area covered, %")):
        rows = rows_where(measured_rows(records, "hulls", metric), training=training, decoding="free", beam=3)
        for number, recipe in enumerate(_recipes(rows)):
            line_with_band(axes, rows_where(rows, recipe=recipe), "n", number, RECIPE_NAMES[recipe])
        paper = _reported(f"t1-{training}-at-", f"-{metric}-modern")
        if paper:
            axes.plot(list(paper), list(paper.values()), marker="s", label="paper", **GREY)
        axes.set_ylabel(label)
        _points_axis(axes, [int(n) for n in rows["n"].unique()], beyond=max(hulls))

    tours, training = _widest(records, "tours")
    rows = rows_where(measured_rows(records, "tours", "length_ratio"), training=training, decoding="valid", beam=3)
    for number, recipe in enumerate(_recipes(rows)):
        line_with_band(right, rows_where(rows, recipe=recipe), "n", number, RECIPE_NAMES[recipe])
    baselines = measured_rows(records, "tour_baselines", "length_ratio")
    for number, solver in enumerate(("a1", "a3"), start=4):
        values = rows_where(baselines, method=solver).sort_values("n")
        right.plot(values["n"], values["value"], label=solver.upper(), **line_look(number))
    reference = _reference_lengths(records)
    paper = {n: length / reference[n] for n, length in _reported(f"t2-{training}-at-", "-modern").items() if n in reference}
    if paper:
        right.plot(list(paper), list(paper.values()), marker="s", label="paper", **GREY)
    right.set_ylabel("tour length / reference")
    _points_axis(right, [int(n) for n in rows["n"].unique()], beyond=max(tours))
    for axes in (left, middle, right):
        legend_below(axes)
    return figure


def learning_curves(records: RecordSet) -> Figure:
    """Validation results by examples seen: hulls by method and recipe, triangulations and tours by training."""
    figure, panels = plt.subplots(1, 3, figsize=(PAGE_WIDTH, 3.2))
    hulls = measured_rows(records, "hulls", "validation_accuracy")
    longest = max(n for record in records.of("hulls") if len(lengths := _lengths(record)) == 1 for n in lengths)
    fixed = [record.axes["training"] for record in records.of("hulls") if _lengths(record) == [longest]]
    hulls = hulls.loc[hulls["training"].isin(fixed), :]
    number = 0
    for method, name in METHOD_NAMES.items():
        for recipe in _recipes(rows_where(hulls, method=method)):
            lines = rows_where(hulls, method=method, recipe=recipe)
            line_with_band(panels[0], lines, "examples", number, f"{name}, {RECIPE_NAMES[recipe]}")
            number += 1
    panels[0].set_title(f"hulls of {longest} points")
    reference = _reference_lengths(records)
    for axes, experiments, metric, title in (
        (panels[1], ["triangulations"], "validation_coverage", "triangles found"),
        (panels[2], ["tours", "tours_of_twenty"], "validation_length", "tours"),
    ):
        rows = pd.concat([rows_where(measured_rows(records, name, metric), recipe="modern") for name in experiments])
        trainings = [name for name in rows["training"].unique() if "random" not in str(name)]
        for number, training in enumerate(trainings):
            lines = rows_where(rows, training=training)
            if metric == "validation_length":
                lines = lines.assign(value=lines["value"] / reference.reindex(lines["n"]).to_numpy())
                lines = lines.dropna(subset=["value"])
            line_with_band(axes, lines, "examples", number, str(training))
        axes.set_title(title)
    panels[0].set_ylabel("validation accuracy, %")
    panels[1].set_ylabel("true triangles found, %")
    panels[2].set_ylabel("validation length / reference")
    panels[2].set_ylim(top=min(panels[2].get_ylim()[1], 2))
    for axes in panels:
        axes.set_xlabel("examples seen")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=1, handlelength=3)
    return figure


def attention_over_points(records: RecordSet) -> Figure:
    """Attention of one pointer network over the points of one test example, output position by output position."""
    record, n = _pictured(records, "hulls")[-1]
    arrays = records.arrays(record)
    attention, points = arrays[f"attention_{n}"], arrays[f"points_{n}"][0]
    predicted = [int(token) for token in arrays[f"predicted_{n}"][0] if token >= 0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.9), width_ratios=(1, 1.9))
    for a, b in _cycle_edges(arrays[f"expected_{n}"][0]):
        left.plot(*points[[a, b]].T, color="#999999", linewidth=2.2)
    left.plot(*points.T, "o", color="black", markersize=2)
    for order, token in enumerate(predicted):
        if token > 0 and token not in predicted[:order]:
            left.annotate(str(order + 1), points[token - 1], xytext=(3, 3), textcoords="offset points", fontsize=7)
    left.set(xlim=(-0.05, 1.1), ylim=(-0.05, 1.1), aspect="equal", xticks=[], yticks=[])
    left.set_title("vertices in the order predicted")
    image = right.imshow(attention, aspect="auto", interpolation="nearest", vmin=0, vmax=1, cmap="Greys")
    right.set_xlabel("input position (0: the end)")
    right.set_ylabel("output position")
    right.set_yticks(range(len(attention)), [str(place + 1) for place in range(len(attention))])
    right.grid(visible=False)
    figure.colorbar(image, ax=right, label="attention")
    for axes in (left, right):
        axes.grid(visible=False)
    return figure


def _pictured(records: RecordSet, experiment: str) -> list[tuple[Record, int]]:
    """The trainings of pointer networks on fewest and on most points in canonical order, each with the length to show."""
    found = []
    for record in records.of(experiment):
        training = record.parameters["trainings"][record.axes["training"]]
        shown = [n for n in training["lengths"] if f"attention_{n}" in record.arrays]
        if shown and training.get("order", "canonical") == "canonical" and len(training["lengths"]) == 1:
            found.append((record, max(shown)))
    if not found:
        raise DataError(f"The records of {experiment} hold no pictures of a pointer network. Run that experiment first.")
    found.sort(key=lambda pair: pair[1])
    return [found[0], found[-1]]


def _widest(records: RecordSet, experiment: str) -> tuple[list[int], str]:
    """The training on most different lengths: these, and its name."""
    trainings = {str(record.axes["training"]): record.parameters["trainings"] for record in records.of(experiment)}
    if not trainings:
        raise DataError(f"The records hold nothing of {experiment}. Run that experiment first.")
    name = max(trainings, key=lambda name: len(trainings[name][name]["lengths"]))
    return trainings[name][name]["lengths"], name


def _lengths(record: Record) -> list[int]:
    """The lengths that a record's networks were trained on."""
    return record.parameters["trainings"][record.axes["training"]]["lengths"]


def _reference_lengths(records: RecordSet) -> pd.Series:
    """Mean length of the reference tours by number of cities."""
    rows = rows_where(measured_rows(records, "tour_baselines", "length"), method="reference")
    return pd.Series(rows["value"].to_numpy(), index=rows["n"].to_numpy())


def _recipes(rows: pd.DataFrame) -> list[str]:
    present = set(rows["recipe"])
    return [name for name in RECIPE_NAMES if name in present]


def _reported(start: str, end: str) -> dict[int, float]:
    """The paper's numbers with ids `<start><n><end>`: n -> value."""
    numbers = read_reported(Path(__file__).with_name("reported.csv"))
    ids = {entry.id: float(entry.value) for entry in numbers if entry.id.startswith(start) and entry.id.endswith(end)}
    return {int(name[len(start) : len(name) - len(end)]): value for name, value in ids.items()}


def _points_axis(axes: Axes, lengths: list[int], *, beyond: int) -> None:
    """A logarithmic axis of numbers of points, with those beyond the training lengths shaded."""
    places = sorted(set(lengths))
    axes.set_xscale("log")
    axes.set_xticks(places, [str(place) for place in places])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("points")
    right = axes.get_xlim()[1]
    if beyond < right:
        axes.axvspan(beyond, right, color="#000000", alpha=0.05, linewidth=0)
        axes.set_xlim(right=right)


def _cycle_edges(sequence: np.ndarray) -> list[tuple[int, int]]:
    """Edges between consecutive positions of a sequence, from 0."""
    return list(pairwise(int(token) - 1 for token in sequence if token > 0))


def _triangle_edges(sequence: np.ndarray) -> list[tuple[int, int]]:
    """Edges of the triangles of a sequence, from 0."""
    corners = [int(token) - 1 for token in sequence if token > 0]
    triangles = [corners[start : start + 3] for start in range(0, len(corners) - 2, 3)]
    return sorted({(min(a, b), max(a, b)) for x, y, z in triangles for a, b in ((x, y), (y, z), (z, x))})
