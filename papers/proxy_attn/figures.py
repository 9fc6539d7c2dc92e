"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.errors import DataError
from common.figures import COLOURS, PAGE_WIDTH, line_with_band, measured_rows, rows_where
from common.records import RecordSet
from common.selector_comparison import figures as shared

NAMES = {"proxy_attn": "ProxyAttn", **shared.BASELINE_NAMES}
MINIMUM = {"proxy_attn_minimum": "ProxyAttn, minimum budget"}
# There are as many looks of lines as names; the minimum budget takes the place of a selector that is not measured.
TIMED = {**{method: label for method, label in NAMES.items() if method != "oracle"}, **MINIMUM}
ASKED = dict(next(iter(MINIMUM.items())) if method == "vertical_slash" else (method, label) for method, label in NAMES.items())
VARIANTS = {
    "mean_pooled": "mean, not maximum, of the proxy scores",
    "fixed_budget": "one budget for all heads",
    "more_proxies": "a proxy head for each key head",
    "row_share": "budget as a share of each row",
}


def coverage_against_density(records: RecordSet) -> Figure:
    """Attention mass covered at equal density, beside the baselines and the oracle."""
    return shared.coverage_against_density(records, NAMES)


def perplexity_against_density(records: RecordSet) -> Figure:
    """Loss added to dense attention's at equal density, beside the baselines and the oracle."""
    return shared.perplexity_against_density(records, NAMES)


def retrieval_scores(records: RecordSet) -> Figure:
    """Retrieval against the density of the prefill."""
    return shared.retrieval_scores(records, ASKED)


def times_by_length(records: RecordSet) -> Figure:
    """Time to select, and to select and attend, by length."""
    return shared.times_by_length(records, TIMED)


def prefill_speed_up(records: RecordSet) -> Figure:
    """Speed-up of a whole model's prefill by length."""
    return shared.prefill_speed_up(records, {"proxy_attn_minimum": "ProxyAttn"})


def ablations(records: RecordSet) -> Figure:
    """Coverage of the method minus that of its variants, at equal density."""
    rows = measured_rows(records, "ablations", "coverage_gain")
    length = shared.length_shown(rows)
    rows = rows_where(rows, length=length)
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH * 0.7, 3.2))
    axes.axhline(0, color="black", linewidth=1)
    present = set(rows["than"])
    for number, (variant, label) in enumerate(VARIANTS.items()):
        if variant in present:
            gain = rows_where(rows, than=variant)
            line_with_band(axes, gain.assign(value=100 * gain["value"]), "density", number, label)
    axes.set_xlabel("density (share of the causal blocks read)")
    axes.set_ylabel("coverage gained over the variant\n(percentage points)")
    axes.set_title(f"{length:,} tokens")
    figure.legend(loc="outside upper center", ncols=2, handlelength=3)
    return figure


def head_agreement(records: RecordSet) -> Figure:
    """What the heads of a layer share, and the spread of their budgets."""
    found = [record for record in records.of("heads") if "budgets" in record.arrays]
    if not found:
        raise DataError("The records of heads hold no budgets. Run that experiment first.")
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.8))
    measures = {"own_mass": "own top tokens", "shared_mass": "another head's", "random_mass": "random tokens"}
    places = sorted(int(skipped) for skipped in measured_rows(records, "heads", "shared_mass")["skipped"].unique())
    for number, (metric, label) in enumerate(measures.items()):
        rows = measured_rows(records, "heads", metric)
        values = [rows_where(rows, skipped=skipped)["value"].mean() for skipped in places]
        x = np.arange(len(places)) + 0.26 * (number - 1)
        bars = left.bar(x, values, 0.24, color=COLOURS[number], label=label)
        left.bar_label(bars, [f"{value:.2f}" for value in values], fontsize=6.5, padding=1)
    names = ["all tokens" if skipped == 0 else f"without the first {skipped}" for skipped in places]
    left.set_xticks(range(len(places)), names)
    left.set_ylabel("share of a head's attention")
    left.set_ylim(0, 1.08)
    left.grid(axis="x", visible=False)
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, handlelength=1.2)

    record = found[0]
    budgets = records.arrays(record)["budgets"]  # [layers, H]
    layers = np.arange(len(budgets))
    right.plot(np.repeat(layers, budgets.shape[1]), budgets.ravel(), ".", color=COLOURS[0], markersize=3, label="a head")
    right.plot(layers, budgets.mean(1), color=COLOURS[1], label="mean of the layer")
    right.set_xlabel("layer")
    right.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    right.set_ylabel("budget (share of the blocks)")
    right.set_ylim(0, 1.04)
    right.set_title(f"{record.axes['text']}, {int(record.axes['length']):,} tokens")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, handlelength=1.6)
    return figure
