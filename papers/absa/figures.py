"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from common.data.aspects import POLARITIES
from common.errors import DataError
from common.figures import COLOURS, PAGE_WIDTH, legend_below, line_look, line_with_band, measured_rows, rows_where
from common.records import Record, RecordSet
from common.statistics import mean_interval

EXPERIMENT = "progressive_learning"
MODEL_NAMES = {"memory_network": "memory network", "tnet_attention": "TNet-ATT", "transformer": "transformer"}
VARIANT_NAMES = {
    "as_misleading": "+AS, misleading words",
    "as_active": "+AS, active words",
    "as": "+AS",
    "as_target_one": "+AS, target 1",
    "as_gradient": "+AS, by gradient",
    "as_random": "random words",
}


SELECTION_NAMES = {"validation": "chosen on validation", "last": "last epoch", "test": "chosen on test"}


def _models(rows: pd.DataFrame) -> list[str]:
    return [model for model in MODEL_NAMES if model in set(rows["model"])]


def _bars(axes: Axes, labels: list[str], groups: list[np.ndarray], colours: list[str]) -> None:
    """Horizontal bars of means with 95% intervals, the first on top."""
    places = np.arange(len(labels))[::-1]
    for place, values, colour in zip(places, groups, colours, strict=True):
        interval = mean_interval(values)
        axes.barh(place, interval.mean, height=0.7, color=colour)
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [place, place], color="black", linewidth=0.8)
    axes.set_yticks(places, labels)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.grid(visible=False, axis="y")


def scores(records: RecordSet) -> Figure:
    """Accuracy left, macro-F1 right: a line for each data set, model and plain or +AS; a marker for each selection."""
    tables = [measured_rows(records, EXPERIMENT, metric) for metric in ("accuracy", "macro_f1")]
    lines = [
        (data_set, model, method)
        for data_set in dict.fromkeys(tables[0]["data_set"])
        for model in _models(rows_where(tables[0], data_set=data_set))
        for method in ("plain", "as")
    ]
    places = np.arange(len(lines))[::-1]
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 1.0 + 0.22 * len(lines)), sharey=True)
    for axes, rows, title in zip(panels, tables, ("accuracy, %", "macro-F1, %"), strict=True):
        for number, (selection, name) in enumerate(SELECTION_NAMES.items()):
            groups = [
                rows_where(rows, data_set=data_set, model=model, method=method, selection=selection)["value"]
                for data_set, model, method in lines
            ]
            found = [mean_interval(values.to_numpy(dtype=np.float64)) for values in groups]
            heights = places + 0.2 * (1 - number)
            look = line_look(number)
            axes.plot([i.mean for i in found], heights, look["marker"], color=look["color"], label=name)
            low = [i.mean if i.low is None else i.low for i in found]
            high = [i.mean if i.high is None else i.high for i in found]
            axes.hlines(heights, low, high, color=look["color"], linewidth=0.8)
        axes.set_xlabel(title)
    labels = [f"{data_set}, {MODEL_NAMES[model]}{', +AS' * (method == 'as')}" for data_set, model, method in lines]
    panels[0].set_yticks(places, labels)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure


def _gains(rows: pd.DataFrame, variant: str) -> np.ndarray:
    """Macro-F1 of a variant minus plain, by seed; empty where it was not trained."""
    sides = [rows_where(rows, method=name).sort_values("seed")["value"].to_numpy(np.float64) for name in (variant, "plain")]
    return sides[0] - sides[1] if sides[0].size else sides[0]


def variants(records: RecordSet) -> Figure:
    """Gains of all variants that are no points of a curve: a column for each data set, a row for each model."""
    rows = rows_where(measured_rows(records, EXPERIMENT, "macro_f1"), selection="validation")
    data_sets, models = list(dict.fromkeys(rows["data_set"])), _models(rows)
    size = (PAGE_WIDTH, 0.5 + 1.3 * len(models))
    figure, panels = plt.subplots(len(models), len(data_sets), figsize=size, squeeze=False)
    for line, model in zip(panels, models, strict=True):
        shown: list[str] = []
        for axes, data_set in zip(line, data_sets, strict=True):
            here = rows_where(rows, data_set=data_set, model=model)
            found = {name: gains for name in VARIANT_NAMES if (gains := _gains(here, name)).size}
            if not found:
                axes.set_axis_off()
                continue
            colours = [COLOURS[list(VARIANT_NAMES).index(name)] for name in found]
            _bars(axes, [VARIANT_NAMES[name] for name in found], list(found.values()), colours)
            axes.tick_params(labelleft=shown != list(found))  # the panel to the left has the same names
            axes.set_title(f"{data_set}, {MODEL_NAMES[model]}", fontsize=6)
            shown = list(found)
    for axes in panels[-1]:
        axes.set_xlabel("macro-F1 gain, points", fontsize=7)
    return figure


def _of_curve(rows: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """The rows of methods whose name begins with `prefix`."""
    keep = np.array([str(method).startswith(prefix) for method in rows["method"]], dtype=bool)
    return rows.loc[keep, :]


def curves(records: RecordSet) -> Figure:
    """Macro-F1 against ε_α, K and the relative γ, one line a model, on MAMS."""
    rows = rows_where(measured_rows(records, EXPERIMENT, "macro_f1"), selection="validation")
    rows = rows_where(rows, data_set="mams")
    figure, panels = plt.subplots(1, 3, figsize=(PAGE_WIDTH, 2.6))
    for number, model in enumerate(_models(rows)):
        own = rows_where(rows, model=model)
        whole = rows_where(own, method="as")
        last = measured_rows(records, EXPERIMENT, "picked")
        last = int(rows_where(last, model=model)["round"].max())
        lines = (
            (_of_curve(own, "as_entropy_"), whole, "epsilon"),
            (_of_curve(own, "as_rounds_"), whole.assign(words_of_rounds=last), "words_of_rounds"),
            (_of_curve(own, "as_weight_"), pd.concat([whole, rows_where(own, method="plain")]), "weight"),
        )
        for axes, (part, rest, column) in zip(panels, lines, strict=True):
            if len(part):
                line_with_band(axes, pd.concat([part, rest]), column, number, MODEL_NAMES[model])
    panels[2].set_xscale("symlog", linthresh=0.2)
    panels[2].xaxis.set_minor_locator(NullLocator())
    panels[2].set_xticks([0, 0.2, 1, 5], ["0", "0.2", "1", "5"])
    labels = ("entropy threshold, bits", "rounds", "weight of the loss / the model's")
    for axes, label in zip(panels, labels, strict=True):
        axes.set_xlabel(label)
    panels[0].set_ylabel("macro-F1, %")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure


def selection(records: RecordSet) -> Figure:
    """What selection on test adds, beside the gain of +AS, by data set and model."""
    added = rows_where(measured_rows(records, EXPERIMENT, "selection_gain"), method="plain")
    gain = measured_rows(records, EXPERIMENT, "as_gain")
    pairs = [
        (data_set, model)
        for data_set in dict.fromkeys(added["data_set"])
        for model in _models(rows_where(added, data_set=data_set))
    ]
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 0.8 + 0.2 * len(pairs)), sharex=True, sharey=True)
    labels = [f"{data_set}, {MODEL_NAMES[model]}" for data_set, model in pairs]
    for axes, rows, title, colour in (
        (panels[0], added, "epoch chosen on test minus on validation, plain", COLOURS[1]),
        (panels[1], gain, "+AS minus plain, chosen on validation", COLOURS[0]),
    ):
        groups = [rows_where(rows, data_set=d, model=m)["value"].to_numpy(dtype=np.float64) for d, m in pairs]
        _bars(axes, labels, groups, [colour] * len(pairs))
        axes.set_title(title)
        axes.set_xlabel("macro-F1, points")
    return figure


def _pictured(records: RecordSet) -> list[Record]:
    found = [record for record in records.of(EXPERIMENT) if "picture_0_tokens" in record.arrays]
    if not found:
        raise DataError(f"No record of {EXPERIMENT} holds attention maps. Run it on a data set that may be shown.")
    return sorted(found, key=lambda record: list(MODEL_NAMES).index(str(record.axes["model"])))


def attention_maps(records: RecordSet) -> Figure:
    """The first sentences of each model, plain above +AS."""
    shown = _pictured(records)
    count = min(2, min(sum(name.endswith("_tokens") for name in record.arrays) for record in shown))
    figure, panels = plt.subplots(len(shown) * count, 1, figsize=(PAGE_WIDTH, 0.95 * len(shown) * count), squeeze=False)
    for line, record in enumerate(shown):
        arrays = records.arrays(record)
        for k in range(count):
            axes = panels[line * count + k, 0]
            tokens, attention = arrays[f"picture_{k}_tokens"], arrays[f"picture_{k}_attention"]
            axes.imshow(attention, aspect="auto", vmin=0, cmap="Blues")
            axes.set_xticks(range(len(tokens)), [str(token).replace("$", r"\$") for token in tokens], rotation=30, ha="right")
            for text, target in zip(axes.get_xticklabels(), arrays[f"picture_{k}_target"], strict=True):
                text.set_fontweight("bold" if target else "normal")
            label, before, after = (POLARITIES[number] for number in arrays[f"picture_{k}_classes"])
            axes.set_yticks([0, 1], [f"plain: {before}", f"+AS: {after}"])
            axes.set_title(f"{MODEL_NAMES[str(record.axes['model'])]}, label {label}", fontsize=7)
            axes.grid(visible=False)
    return figure


def mined_words(records: RecordSet) -> Figure:
    """Counts of the most frequent picked words, active left and misleading right, a row for each model."""
    found = [record for record in records.of(EXPERIMENT) if record.axes["data_set"] == "mams"]
    if not found:
        raise DataError(f"The records hold no cell of {EXPERIMENT} on MAMS. Run it.")
    found = sorted(found, key=lambda record: list(MODEL_NAMES).index(str(record.axes["model"])))
    figure, panels = plt.subplots(len(found), 2, figsize=(PAGE_WIDTH, 2.3 * len(found)), squeeze=False)
    for line, record in zip(panels, found, strict=True):
        arrays = records.arrays(record)
        for axes, kind, colour in zip(line, ("active", "misleading"), COLOURS[:2], strict=True):
            words, counts = arrays[f"{kind}_words"], arrays[f"{kind}_counts"]
            places = np.arange(len(words))[::-1]
            axes.barh(places, counts, color=colour)
            axes.set_yticks(places, [str(word).replace("$", r"\$") for word in words], fontsize=6)
            axes.set_title(f"{MODEL_NAMES[str(record.axes['model'])]}, {kind}", fontsize=7)
            axes.grid(visible=False, axis="y")
    for axes in panels[-1]:
        axes.set_xlabel("training sentences")
    return figure


def picked_by_round(records: RecordSet) -> Figure:
    """Share of training sentences whose word was picked, by round; default chain, on MAMS."""
    rows = rows_where(measured_rows(records, EXPERIMENT, "picked"), method="default", data_set="mams")
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.6))
    for axes, kind in zip(panels, ("active", "misleading"), strict=True):
        for number, model in enumerate(_models(rows)):
            line_with_band(axes, rows_where(rows, kind=kind, model=model), "round", number, MODEL_NAMES[model])
        last = int(rows["round"].max())
        axes.set_xticks(range(1, last + 1))
        axes.set(xlabel="round", ylabel="training sentences, %", title=f"{kind} words")
        axes.set_ylim(bottom=0)
    legend_below(panels[0])
    return figure


def word_vector_sources(records: RecordSet) -> Figure:
    """Logistic regression left, memory network right."""
    probe = measured_rows(records, "word_vectors", "macro_f1")
    networks = rows_where(measured_rows(records, "vector_sources", "macro_f1"), selection="validation")
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.4))
    data_sets = list(dict.fromkeys(probe["data_set"]))
    sources = list(dict.fromkeys(probe["method"]))
    width = 0.8 / len(data_sets)
    for number, data_set in enumerate(data_sets):
        heights = [float(rows_where(probe, data_set=data_set, method=source)["value"].mean()) for source in sources]
        left.bar(np.arange(len(sources)) + number * width, heights, width, label=data_set, color=COLOURS[number])
    left.set_xticks(np.arange(len(sources)) + 0.4 - width / 2, [str(source).replace("_", " ") for source in sources])
    left.set(title="logistic regression on mean vectors", ylabel="macro-F1, %")
    legend_below(left)
    named = [source for source in sources if source in set(networks["vectors"])]
    for number, (method, name) in enumerate((("plain", "plain"), ("as", "+AS"))):
        for place, source in enumerate(named):
            values = rows_where(networks, vectors=source, method=method)["value"].to_numpy(dtype=np.float64)
            interval = mean_interval(values)
            low, high = (interval.mean if bound is None else bound for bound in (interval.low, interval.high))
            spread = [[interval.mean - low], [high - interval.mean]]
            right.bar(
                place + 0.4 * number,
                interval.mean,
                0.38,
                yerr=spread,
                color=COLOURS[number],
                label=name if place == 0 else None,
            )
    right.set_xticks(np.arange(len(named)) + 0.2, [source.replace("_", " ") for source in named])
    right.set(title="memory network on MAMS", ylabel="macro-F1, %")
    legend_below(right)
    return figure
