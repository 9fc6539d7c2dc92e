"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.errors import DataError
from common.figures import COLOURS, COLUMN_WIDTH, MARKERS, PAGE_WIDTH, line_look, measured_rows, rows_where
from common.records import Record, RecordSet
from common.statistics import mean_interval

NAMES = {
    "none": "no gate",
    "se": "SE",
    "eca": "ECA",
    "global_context": "global context",
    "film": "FiLM",
    "concatenation": "concatenation",
    "cross_attention": "cross-attention",
    "sentence_se": "SE of the sentence",
    "sab_sigmoid_no_norm": "+ expansion to 4E",
    "sab_sigmoid": "+ LayerNorm",
    "sab": "+ softmax = SAB",
    "sab_no_norm": "SAB, no LayerNorm",
    "sab_reduced": "SAB, reduction",
    "sab_last": "SAB, last map alone",
    "sab_gain_c": "SAB, gate times C",
    "eab": "EAB",
}
LADDER = ("se", "sentence_se", "sab_sigmoid_no_norm", "sab_sigmoid", "sab")
WITHOUT_TEXT = ("none", "se", "eca", "global_context")
SHOWN = ("sab", "sab_sigmoid", "film", "cross_attention", "se")
HATCHES = ("", "////", "....", "xxxx", "++++")
SPLITS = {
    "iid": "as trained",
    "newcomb": "new pairs",
    "style": "new style",
    "synonym": "synonyms",
    "newname": "new names",
    "relation": "relations",
}
KINDS = {"name": "name", "tile": "tile", "category": "category", "relation": "relation"}
BACKBONES = {"main": "Lite0", "lite1": "Lite1", "mobilenetv2": "MobileNetV2", "lite0_untrained": "Lite0, not pretrained"}


def _title(method: str) -> str:
    return {"sab": "SAB", "sab_sigmoid": "SAB, sigmoid"}.get(method, NAMES[method])


def _points(axes: Axes, rows: pd.DataFrame, methods: list[str]) -> None:
    """One line a method: the seeds as points, and the mean with its interval."""
    for place, method in enumerate(methods):
        values = rows_where(rows, method=method)["value"].to_numpy(dtype=np.float64)
        interval = mean_interval(values)
        inside = "white" if method in WITHOUT_TEXT else COLOURS[0]
        look: dict[str, Any] = {"color": COLOURS[0], "alpha": 0.5, "markersize": 3, "markerfacecolor": inside}
        axes.plot(values, np.full(len(values), place), "o", **look)
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [place, place], color=COLOURS[1])
        axes.plot([interval.mean], [place], "|", color=COLOURS[1], markersize=8)
    axes.set_yticks(range(len(methods)), [NAMES[method] for method in methods])
    axes.set_ylim(len(methods) - 0.5, -0.5)


def gates_compared(records: RecordSet) -> Figure:
    """Both conventions of IoU, one line a gate."""
    found = {metric: rows_where(measured_rows(records, "grounding", metric), split="iid") for metric in ("iou_mean", "iou_cum")}
    methods = [name for name in NAMES if name in set(found["iou_mean"]["method"])]
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 0.19 * len(methods) + 0.7), sharey=True)
    for axes, (metric, label) in zip(
        panels, {"iou_mean": "IoU, mean over images", "iou_cum": "IoU of all pixels"}.items(), strict=True
    ):  # fmt: skip
        _points(axes, found[metric], methods)
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def _bars(axes: Axes, rows: pd.DataFrame, column: str, groups: dict[str, str], methods: list[str]) -> None:
    """Groups of bars, one bar a method, with intervals over seeds."""
    width = 0.8 / len(methods)
    for number, method in enumerate(methods):
        places, means, errors = [], [], []
        for place, group in enumerate(groups):
            values = rows_where(rows, method=method, **{column: group})["value"].to_numpy(dtype=np.float64)
            if not len(values):
                continue
            interval = mean_interval(values)
            low = interval.mean if interval.low is None else interval.low
            high = interval.mean if interval.high is None else interval.high
            places.append(place + (number - (len(methods) - 1) / 2) * width)
            means.append(interval.mean)
            errors.append((interval.mean - low, high - interval.mean))
        look: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "hatch": HATCHES[number % len(HATCHES)]}
        axes.bar(places, means, width, yerr=np.array(errors).T, label=_title(method), edgecolor="white", linewidth=0.3, **look)
    axes.set_xticks(range(len(groups)), list(groups.values()))
    axes.set_ylabel("IoU, mean over images")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=len(methods))


def splits(records: RecordSet) -> Figure:
    """Some gates on every split."""
    rows = measured_rows(records, "grounding", "iou_mean")
    present = {split: title for split, title in SPLITS.items() if split in set(rows["split"])}
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH, 2.4))
    _bars(axes, rows, "split", present, [name for name in SHOWN if name in set(rows["method"])])
    return figure


def kinds(records: RecordSet) -> Figure:
    """Some gates on every kind of question."""
    rows = rows_where(measured_rows(records, "grounding", "iou_of_kind"), split="iid")
    present = {kind: title for kind, title in KINDS.items() if kind in set(rows["kind"])}
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH, 2.4))
    _bars(axes, rows, "kind", present, [name for name in SHOWN if name in set(rows["method"])])
    return figure


def ladder(records: RecordSet) -> Figure:
    """IoU along the steps from SE to the block."""
    rows = rows_where(measured_rows(records, "grounding", "iou_mean"), split="iid")
    steps = [name for name in LADDER if name in set(rows["method"])]
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.4))
    lines = {name: rows_where(rows, method=name).sort_values("seed")["value"].to_numpy() for name in steps}
    values = np.stack([lines[name] for name in steps], axis=1)
    for line in values:
        axes.plot(range(len(steps)), line, color=COLOURS[0], alpha=0.35, linewidth=0.6)
    axes.plot(range(len(steps)), values.mean(0), **line_look(0))
    axes.set_xticks(range(len(steps)), [NAMES[name] for name in steps], rotation=25, ha="right")
    axes.set_ylabel("IoU, mean over images")
    axes.set_ylim(bottom=0)
    return figure


def backbones(records: RecordSet) -> Figure:
    """The block and its control on every backbone."""
    main = rows_where(measured_rows(records, "grounding", "iou_mean"), split="iid").assign(backbone="main")
    others = rows_where(measured_rows(records, "flexibility", "iou_mean"), split="iid")
    main = main.loc[main["method"].isin(["se", "sab"]), :]
    rows = pd.concat([main, others], ignore_index=True)
    present = {name: title for name, title in BACKBONES.items() if name in set(rows["backbone"])}
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.3))
    for number, method in enumerate(("sab", "se")):
        look: dict[str, Any] = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": "none"}
        for place, backbone in enumerate(present):
            values = rows_where(rows, method=method, backbone=backbone)["value"].to_numpy(dtype=np.float64)
            label = {"sab": "SAB", "se": "SE (no text)"}[method] if place == 0 else None
            axes.plot(np.full(len(values), place + 0.12 * (number - 0.5)), values, alpha=0.7, label=label, **look)
    axes.set_xticks(range(len(present)), list(present.values()), rotation=15)
    axes.set_ylabel("IoU, mean over images")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _by_variant(records: RecordSet) -> dict[str, Record]:
    return {str(record.axes["variant"]): record for record in records.of("grounding")}


def gates_by_meaning(records: RecordSet) -> Figure:
    """Pairs of questions: sentences against gates."""
    found = _by_variant(records)
    shown = [name for name in ("sab", "sab_sigmoid") if name in found]
    if not shown:
        raise DataError("The records of grounding have neither sab nor sab_sigmoid. Run one of those cells first.")
    figure, panels = plt.subplots(1, len(shown), figsize=(PAGE_WIDTH * len(shown) / 2, 2.6), squeeze=False)
    for axes, name in zip(panels[0], shown, strict=True):
        sentence, gate = records.arrays(found[name])["gate_pairs"]
        axes.plot(
            sentence, gate, ".", color=COLOURS[0], markersize=1.5, alpha=0.15 if len(gate) > 1000 else 0.8, rasterized=True
        )
        axes.set_title(_title(name), loc="left")
        axes.set_xlabel("cosine of the sentences")
        axes.set_ylabel("cosine of the gates")
    return figure


def examples(records: RecordSet) -> Figure:
    """Scenes with masks: one column a scene, one row a gate."""
    found = _by_variant(records)
    if "sab" not in found:
        raise DataError("The records of grounding have no cell sab, which keeps the scenes. Run it first.")
    scenes = records.arrays(found["sab"])
    methods = [name for name in ("sab", "sab_sigmoid", "se") if name in found]
    count = len(scenes["images"])
    figure, panels = plt.subplots(
        len(methods), count, figsize=(PAGE_WIDTH, PAGE_WIDTH / count * len(methods) + 0.2), squeeze=False
    )  # fmt: skip
    for row, name in zip(panels, methods, strict=True):
        predicted = records.arrays(found[name])["predicted"]
        for column, axes in enumerate(row):
            image = scenes["images"][column].transpose(1, 2, 0).astype(np.float64) / 255
            dimmed = np.broadcast_to(0.3 * image.mean(2, keepdims=True), image.shape)
            axes.imshow(np.where(predicted[column][..., None], image, dimmed), interpolation="nearest")
            axes.contour(scenes["true"][column].astype(float), levels=[0.5], colors="white", linewidths=0.7)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
        row[0].set_ylabel(_title(name))
    return figure


def cost_against_iou(records: RecordSet) -> Figure:
    """Every gate as a point."""
    times = measured_rows(records, "cost", "time_per_image")
    times = rows_where(times, batch=max(times["batch"]))
    scores = rows_where(measured_rows(records, "grounding", "iou_mean"), split="iid")
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH * 0.75, 2.8))
    methods = [name for name in NAMES if name in set(times["method"]) & set(scores["method"])]
    for number, name in enumerate(methods):
        x = float(rows_where(times, method=name)["value"].median())
        y = float(rows_where(scores, method=name)["value"].mean())
        look = {**line_look(number), "linestyle": "none"}
        axes.plot([x], [y], label=_title(name), **look)
    axes.set_xlabel(f"milliseconds for an image (batch of {int(max(times['batch']))})")
    axes.set_ylabel("IoU, mean over images")
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
