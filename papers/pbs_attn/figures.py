"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from common.errors import DataError
from common.figures import PAGE_WIDTH
from common.records import RecordSet
from common.reported import read_reported
from common.statistics import mean_interval

ORDER_NAMES = {
    "none": "natural order",
    "last_block": "last-block queries (PBS-Attn)",
    "random_query": "random queries",
    "average_query": "average query",
    "greedy": "greedy, local",
    "random": "random order",
}
STAGE_NAMES = {"permute": "permute", "select": "select blocks", "attention": "block-sparse attention"}
DENSE_NAMES = {"flash": "FlashAttention-2", "cudnn": "cuDNN", "flex": "FlexAttention", "math": "PyTorch math"}


def _reported_densities() -> dict[int, tuple[float, float]]:
    """Table 5 of the paper: length -> density without and with permutation (selected blocks of 128 / causal blocks)."""
    blocks = {entry.id: float(entry.value) for entry in read_reported(Path(__file__).with_name("reported.csv"))}
    densities = {}
    for length in (8192, 16384, 32768, 65536, 131072):
        causal = length // 128 * (length // 128 + 1) / 2
        without, with_ = (blocks[f"t5-{length // 1024}k-{column}"] / causal for column in ("without", "with"))
        densities[length] = (without, with_)
    return densities


def _where(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """The lines of a table with the given values in the given columns."""
    keep = np.ones(len(table), dtype=bool)
    for column, value in wanted.items():
        keep &= (table[column] == value).to_numpy()
    return table.loc[keep, :]


def _rows(records: RecordSet, experiment: str, metric: str) -> pd.DataFrame:
    table = records.table()
    rows = _where(table, experiment=experiment, metric=metric)
    if rows.empty:
        raise DataError(f"The records hold no {metric} of {experiment}. Run that experiment first.")
    return rows


def _length_shown(rows: pd.DataFrame) -> int:
    """The longest length within the subject's trained context of 8,192 tokens."""
    lengths = sorted(rows["length"].unique())
    return int(max([length for length in lengths if length <= 8192] or lengths))


def _line_with_band(axes: Axes, rows: pd.DataFrame, x: str, colour: str, label: str, width: float = 1.4) -> None:
    """Mean of `value` against x with its 95% interval."""
    places = sorted(float(place) for place in rows[x].unique())
    groups = [(place, mean_interval(_where(rows, **{x: place})["value"].to_numpy(dtype=np.float64))) for place in places]
    axes.plot(places, [interval.mean for _, interval in groups], color=colour, label=label, marker="o", linewidth=width)
    low = [interval.mean if interval.low is None else interval.low for _, interval in groups]
    high = [interval.mean if interval.high is None else interval.high for _, interval in groups]
    axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


def coverage_against_density(records: RecordSet) -> Figure:
    """Coverage against density: oracle selection by key order, and the paper's selection over thresholds."""
    oracle = _rows(records, "coverage", "oracle_coverage")
    length = _length_shown(oracle)
    oracle = _where(oracle, length=length)
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.7))
    for number, (order, label) in enumerate(ORDER_NAMES.items()):
        rows = _where(oracle, method=order)
        if not rows.empty:
            width = 1.8 if order in ("none", "last_block") else 1.0
            _line_with_band(left, rows, "density", f"C{number}", label, width)
    left.set_title(f"oracle selection, {length:,} tokens")
    left.legend(loc="lower right")

    selected = {name: _rows(records, "coverage", f"selected_{name}") for name in ("density", "coverage")}
    lines = {
        "none": "natural order",
        "last_block": "PBS-Attn",
        "last_block_shared": "PBS-Attn, shared",
        "mean_pooling": "MeanPooling",
    }
    for number, (method, label) in enumerate(lines.items()):
        means = [_where(frame, length=length, method=method).groupby("tau")["value"].mean() for frame in selected.values()]
        right.plot(means[0].to_numpy(), means[1].to_numpy(), color=f"C{(0, 1, 3, 6)[number]}", marker="o", label=label)
        for tau, x, y in zip(means[0].index, means[0].to_numpy(), means[1].to_numpy(), strict=True):
            if method == "last_block":
                right.annotate(f"{tau:g}", (x, y), xytext=(3, -8), textcoords="offset points", fontsize=6, color="#555555")
    right.set_title(rf"selection by threshold $\tau$, {length:,} tokens")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.set_xlabel("density (blocks read / causal blocks)")
        axes.set_ylabel("coverage of attention mass")
    return figure


def selected_blocks_by_length(records: RecordSet) -> Figure:
    """Density at the paper's threshold by length, without and with sorting; and the reduction."""
    rows = _where(_rows(records, "coverage", "selected_density"), tau=0.9)
    saved = _where(_rows(records, "coverage", "fewer_blocks"), than="none")
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.5))
    for method, colour, label in (("none", "C0", "natural order"), ("last_block", "C1", "sorted (PBS-Attn)")):
        _line_with_band(left, _where(rows, method=method), "length", colour, label)
    densities = _reported_densities()
    for column, marker, label in ((0, "o", "paper, natural order"), (1, "s", "paper, sorted")):
        values = [pair[column] for pair in densities.values()]
        left.plot(list(densities), values, color="#999999", marker=marker, linestyle="--", linewidth=1, label=label)
    left.set_ylabel("selected blocks / causal blocks")
    _line_with_band(right, saved, "length", "C1", "SmolLM2-135M")
    reported = [100 * (1 - with_ / without) for without, with_ in densities.values()]
    right.plot(list(densities), reported, color="#999999", marker="o", linestyle="--", linewidth=1, label="paper, Llama-3.1-8B")
    right.axhline(0, color="#444444", linewidth=0.6)
    right.set_ylabel("fewer blocks by sorting, %")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1024:g}K")
        axes.set_xlabel("context length (tokens)")
        axes.legend()
    return figure


def time_breakdown(records: RecordSet) -> Figure:
    """Stacked stages of the pipeline beside dense kernels, relative to the fastest dense kernel at each length."""
    rows = _rows(records, "pipeline_time", "time")
    lengths = sorted(int(length) for length in rows["length"].unique())
    dense = [name for name in DENSE_NAMES if name in set(rows["method"])]
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH, 2.8))
    width = 0.8 / (len(dense) + 1)
    places = rows[["method", "stage", "length"]].itertuples(index=False, name=None)
    times = {
        (str(method), str(stage), int(length)): float(_where(rows, method=method, stage=stage, length=length)["value"].median())
        for method, stage, length in places
    }
    for place, length in enumerate(lengths):
        fastest = min(times[name, "total", length] for name in dense)
        bottom = 0.0
        for number, (stage, label) in enumerate(STAGE_NAMES.items()):
            height = times["pbs_attn", stage, length] / fastest
            axes.bar(
                place - 0.4 + width / 2,
                height,
                width * 0.92,
                bottom=bottom,
                color=("#E69F00", "#009E73", "#D55E00")[number],
                label=f"PBS-Attn: {label}" if place == 0 else None,
            )
            bottom += height
        axes.annotate(
            f"{times['pbs_attn', 'total', length]:.3g} ms",
            (place - 0.4 + width / 2, bottom),
            ha="center",
            va="bottom",
            fontsize=6,
        )
        for number, name in enumerate(dense):
            height = times[name, "total", length] / fastest
            x = place - 0.4 + width * (number + 1.5)
            colour = ("#0072B2", "#56B4E9", "#999999", "#CC79A7")[number]
            axes.bar(x, height, width * 0.92, color=colour, label=DENSE_NAMES[name] if place == 0 else None)
            axes.annotate(f"{times[name, 'total', length]:.3g} ms", (x, height), ha="center", va="bottom", fontsize=6)
    axes.set_xticks(range(len(lengths)), [f"{length // 1024}K" for length in lengths])
    axes.set_xlabel("context length (tokens)")
    axes.set_ylabel("time / fastest dense kernel")
    axes.grid(axis="x", visible=False)
    axes.legend(ncols=2, loc="upper right")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
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
    figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH * 0.75, 2.6), sharey=True)
    titles = {"none": "natural order", "last_block": "sorted inside segments"}
    image = None
    for axes, (order, title) in zip(panels, titles.items(), strict=True):
        mass = np.where(arrays[f"map_{order}"] > 1e-4, arrays[f"map_{order}"], np.nan)
        image = axes.imshow(mass, norm=LogNorm(1e-4, 1), cmap="viridis", interpolation="nearest")
        density = float(arrays[f"density_at_coverage_{order}"][layer, head])
        axes.set_title(f"{title}: {100 * density:.0f}% of the blocks hold 97.5%")
        axes.set_xlabel("key block")
        axes.grid(visible=False)
    panels[0].set_ylabel("query block")
    assert image is not None
    figure.colorbar(image, ax=panels, label="attention mass", shrink=0.9)
    figure.suptitle(f"layer {layer}, head {head}, {shown:,} tokens of {record.axes['text']}", fontsize=8)
    return figure
