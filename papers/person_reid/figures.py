"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.figures import COLOURS, MARKERS, PAGE_WIDTH, line_with_band, measured_rows, rows_where
from common.records import RecordSet
from common.statistics import mean_interval

NAMES = {
    "plain": "plain", "deeper": "deeper", "se": "SE", "ese": "eSE", "eca": "ECA", "cbam": "CBAM", "gc": "GC",
    "nl": "non-local", "nl1": "non-local, one channel", "rga_sc": "RGA-SC", "little_best": "ours, where best",
    "little_all": "ours, everywhere", "little_c": "ours, channel gate alone", "little_s": "ours, spatial gate alone",
}  # fmt: skip
SUBJECTS = {"trained": "ResNet-18, whose accuracy is measured", "resnet50": "ResNet-50"}
ANCHORS = {
    "chance": "chance", "stripes": "colours of stripes", "pixels": "pixels",
    "camera_centred_pixels": "pixels less camera's mean", "untrained": "untrained network",
}  # fmt: skip


def front(costs: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Which points no other beats in both: numbers in the order of cost.

    Args:
        costs: [n], small is good.
        gains: [n], great is good.
    """
    chosen: list[int] = []
    for number in np.lexsort((-gains, costs)):
        if not chosen or gains[number] > gains[chosen[-1]]:
            chosen.append(int(number))
    return np.array(chosen, dtype=np.int64)


def figures_of_people(records: RecordSet) -> Figure:
    """Images of four identities of each set."""
    found = {str(record.axes["place"]): records.arrays(record)["shown"] for record in records.of("learnability")}
    figure, panels = plt.subplots(1, len(found), figsize=(PAGE_WIDTH, 4.4), squeeze=False)
    for axes, place in zip(panels[0], sorted(found, reverse=True), strict=True):
        shown = found[place]
        rows = [np.concatenate([image.transpose(1, 2, 0) for image in row], axis=1) for row in shown]
        axes.imshow(np.concatenate(rows, axis=0))
        axes.set_title(place, loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
    return figure


def learning(records: RecordSet) -> Figure:
    """MAP against steps, and anchors as lines."""
    rows = measured_rows(records, "learnability", "map_in_training")
    final = measured_rows(records, "learnability", "map")
    places = sorted(set(rows["place"]), reverse=True)
    figure, panels = plt.subplots(1, len(places), figsize=(PAGE_WIDTH, 2.4), sharey=True, squeeze=False)
    for axes, place in zip(panels[0], places, strict=True):
        line_with_band(axes, rows_where(rows, place=place), "step", 0, "plain network")
        for number, (name, label) in enumerate(ANCHORS.items(), start=1):
            value = rows_where(final, place=place, method=name)["value"].mean()
            axes.axhline(value, color=COLOURS[number % len(COLOURS)], linestyle=(0, (1 + number, 2)), linewidth=1, label=label)
        axes.set_title(place, loc="left")
        axes.set_xlabel("step")
        axes.set_ylim(0, 100)
    panels[0][0].set_ylabel("mAP (%)")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _ways(rows: pd.DataFrame, wanted: list[dict[str, object]]) -> list[dict[str, object]]:
    """The ways of timing that were measured: those that are wanted, or at scale smoke what there is."""
    found = [way for way in wanted if len(rows_where(rows, **way))]
    if found:
        return found
    keys = ["device", "mode", "precision", "batch"]
    return [dict(zip(keys, values, strict=True)) for values in rows[keys].drop_duplicates().itertuples(index=False, name=None)][
        :3
    ]


def _words(way: dict[str, object]) -> str:
    device = "GPU" if way["device"] == "cuda" else "CPU"
    batch = int(float(str(way["batch"])))
    return f"{device}, {way['mode']}, {way['precision']}, {batch} image{'s' if batch > 1 else ''}"


def pareto(records: RecordSet) -> Figure:
    """MAP against latency, for three ways of timing."""
    maps = rows_where(measured_rows(records, "comparison", "map"), test_set="street", group="compared")
    times = {name: rows_where(measured_rows(records, "latency", name), subject="trained")
             for name in ("latency", "latency_lower", "latency_upper")}  # fmt: skip
    wanted: list[dict[str, object]] = [
        {"device": "cuda", "mode": "graph", "precision": "bfloat16", "batch": 1},
        {"device": "cuda", "mode": "graph", "precision": "bfloat16", "batch": 32},
        {"device": "cpu", "mode": "eager", "precision": "float32", "batch": 1},
    ]
    ways = _ways(times["latency"], wanted)
    names = [name for name in NAMES if name in set(maps["method"])]
    intervals = {name: mean_interval(rows_where(maps, method=name)["value"].to_numpy(dtype=np.float64)) for name in names}
    figure, panels = plt.subplots(1, len(ways), figsize=(PAGE_WIDTH, 3.2), sharey=True, squeeze=False)
    for axes, way in zip(panels[0], ways, strict=True):
        points = []
        for number, name in enumerate(names):
            low, middle, high = (
                float(rows_where(times[key], method=name, **way)["value"].median())
                for key in ("latency_lower", "latency", "latency_upper")
            )
            interval = intervals[name]
            bottom = interval.mean if interval.low is None else interval.low
            top = interval.mean if interval.high is None else interval.high
            colour = COLOURS[number % len(COLOURS)]
            axes.errorbar(
                [middle], [interval.mean], xerr=[[middle - low], [high - middle]],
                yerr=[[interval.mean - bottom], [top - interval.mean]], color=colour, linewidth=0.7,
                marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
                markerfacecolor="white" if number >= len(COLOURS) else colour, linestyle="none", label=NAMES[name],
            )  # fmt: skip
            points.append((middle, interval.mean))
        costs, gains = np.array(points).T
        line = front(costs, gains)
        axes.plot(costs[line], gains[line], color="#888888", linewidth=0.8, drawstyle="steps-post", zorder=0)
        axes.set_title(_words(way), loc="left")
        axes.set_xlabel("time of a forward pass (ms)")
    panels[0][0].set_ylabel("mAP (%)")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def search_space(records: RecordSet) -> Figure:
    """Validation mAP against latency, one point a layout."""
    maps = measured_rows(records, "search", "map").groupby("layout")["value"].mean()
    timing = measured_rows(records, "search", "latency").set_index("layout")
    names = list(maps.index)
    costs, gains = timing.loc[names, "value"].to_numpy(dtype=np.float64), maps.to_numpy(dtype=np.float64)
    blocks = timing.loc[names, "blocks"].to_numpy(dtype=np.float64)
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH, 3.0))
    points = axes.scatter(costs, gains, c=blocks, s=14, edgecolors="black", linewidths=0.2, vmin=0, vmax=8)
    line = front(costs, gains)
    axes.plot(costs[line], gains[line], color=COLOURS[1], linewidth=0.9, drawstyle="steps-post", zorder=0)
    for number, place in enumerate(line):
        offset = (3, -8 if number % 2 else 5)
        axes.annotate(names[place], (costs[place], gains[place]), textcoords="offset points", xytext=offset, fontsize=6)
    figure.colorbar(points, ax=axes, label="blocks of attention")
    axes.set_xlabel("time of a forward pass (ms)")
    axes.set_ylabel("validation mAP (%)")
    return figure


def _bars(axes: Axes, labels: list[str], values: list[float], low: list[float], high: list[float], colour: str) -> None:
    places = np.arange(len(labels))
    axes.bar(places, values, color=colour, width=0.7)
    axes.vlines(places, low, high, color="black", linewidth=0.8)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xticks(places, labels)
    axes.set_xlabel("position (stage.block)")


def rules(records: RecordSet) -> Figure:
    """Coefficients of positions beside what a single position adds."""
    coefficients = rows_where(measured_rows(records, "search", "coefficient"), target="map").sort_values(["stage", "block"])
    maps = measured_rows(records, "search", "map")
    by_seed = maps.pivot_table(index="seed", columns="layout", values="value")
    labels = [f"{int(stage)}.{int(block)}" for stage, block in coefficients[["stage", "block"]].to_numpy()]
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.3), sharey=True)
    values = coefficients["value"].to_numpy(dtype=np.float64).tolist()
    _bars(panels[0], labels, values, values, values, COLOURS[0])
    panels[0].set_title("coefficient of the additive model", loc="left")
    intervals = [
        mean_interval((by_seed[label] - by_seed["none"]).dropna().to_numpy(dtype=np.float64)) for label in labels
    ]  # fmt: skip
    _bars(
        panels[1], labels, [i.mean for i in intervals], [i.mean if i.low is None else i.low for i in intervals],
        [i.mean if i.high is None else i.high for i in intervals], COLOURS[2],
    )  # fmt: skip
    panels[1].set_title("alone, less the plain network", loc="left")
    panels[0].set_ylabel("validation mAP (points)")
    return figure


def latency_ratios(records: RecordSet) -> Figure:
    """Ratios of both networks: one GPU image, many, and one CPU image."""
    rows = measured_rows(records, "latency", "latency_ratio")
    names = [name for name in NAMES if name in set(rows["method"]) and name != "plain"]
    wanted: list[dict[str, object]] = [
        {"device": "cuda", "mode": "graph", "precision": "bfloat16", "batch": 64},
        {"device": "cuda", "mode": "graph", "precision": "bfloat16", "batch": 1},
        {"device": "cuda", "mode": "eager", "precision": "bfloat16", "batch": 1},
        {"device": "cpu", "mode": "eager", "precision": "float32", "batch": 1},
    ]
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 3.2), sharey=True)
    for axes, (subject, title) in zip(panels, SUBJECTS.items(), strict=True):
        own = rows_where(rows, subject=subject)
        for number, way in enumerate(_ways(own, wanted)):
            found = [float(rows_where(own, method=name, **way)["value"].median()) for name in names]
            axes.plot(
                found, np.arange(len(names)) + 0.15 * number, linestyle="none", marker=MARKERS[number],
                color=COLOURS[number], label=_words(way),
            )  # fmt: skip
        axes.axvline(1, color="black", linewidth=0.6)
        axes.set_title(title, loc="left")
        axes.set_xlabel("time over the plain network's")
    panels[0].set_yticks(range(len(names)), [NAMES[name] for name in names])
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
