"""All selectors of all papers in one table and one figure, from records of the shared experiments.

A paper takes part with the experiments named as the modules of this package: coverage, perplexity, retrieval, selection_time
and prefill_time. A paper whose own experiments have these names already calls the shared ones equal_density and
equal_density_perplexity. Its own method is the one named like its folder, or like the folder's beginning; the baselines are
everybody's, and where several papers measured the same baseline on the same window, the mean counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.errors import DataError
from common.figures import PAGE_WIDTH, line_with_band, rows_where
from common.records import Record, RecordSet
from common.selector_comparison.curves import DENSE
from common.selector_comparison.figures import BASELINE_NAMES, TRAINED_LENGTH
from common.statistics import mean_interval
from common.tables import NOT_MEASURED, Table, number, with_interval

DENSITIES = (0.1, 0.2, 0.3)
OTHER_SIZE = ", blocks of "  # in the label of a baseline, where a paper has other blocks than most
NEAREST = 0.25  # retrieval is measured at a few settings of each selector; the one that reads about a quarter is shown
FASTEST_DENSE = "cudnn"
EXPERIMENTS: tuple[str, ...] = ("coverage", "perplexity", "retrieval", "selection_time", "prefill_time")
OTHER_NAMES = {"equal_density": "coverage", "equal_density_perplexity": "perplexity"}


@dataclass(frozen=True)
class Measured:
    """The shared experiments' records of several papers.

    Attributes:
        rows: a line for each row of a record, with `selector` (a label, blocks included where papers differ) and `paper`.
        records: they come from.
    """

    rows: pd.DataFrame
    records: list[Record]

    def of(self, experiment: str, metric: str) -> pd.DataFrame:
        """Rows of a metric; equal cells of several papers are one line, their mean."""
        rows = rows_where(self.rows, experiment=experiment, metric=metric)
        items = ["selector", "text", "length", "window", "density", "threshold", "task", "seed", "trial", "subject", "stage"]
        items = [item for item in items if item in rows and bool(rows[item].notna().any())]
        return pd.DataFrame(rows.groupby(items, dropna=False)["value"].mean()).reset_index()

    @property
    def selectors(self) -> list[str]:
        """Labels: the papers' methods first, then baselines."""
        order = {name: place for place, name in enumerate(BASELINE_NAMES.values())}
        present = rows_where(self.rows, dense=False)["selector"].unique()
        return sorted(present, key=lambda name: (order.get(name.split(OTHER_SIZE)[0], -1), name))


def _label(method: str, paper: str, title: str) -> str | None:
    """What a method is called, None for one that is compared in its paper only."""
    if method == paper or paper.startswith(f"{method}_"):
        return title.split(":")[0]
    return {**BASELINE_NAMES, DENSE: DENSE, FASTEST_DENSE: FASTEST_DENSE}.get(method)


def gather(papers: Mapping[str, tuple[str, RecordSet]]) -> Measured | None:
    """Collect what papers recorded with the shared experiments.

    Args:
        papers: paper -> its title, and its records at one scale.

    Returns:
        None if no paper recorded any.
    """
    tables, used = [], []
    for paper, (title, records) in papers.items():
        experiments = {record.experiment for record in records.records}
        renamed = {name: other for name, other in OTHER_NAMES.items() if name in experiments}
        shared = set(EXPERIMENTS) - set(renamed.values()) | set(renamed)
        mine = [record for record in records.records if record.experiment in shared]
        table = records.table()
        if not mine or "method" not in table:
            continue
        sizes = {record.identity: record.parameters.get("block_size") for record in mine}
        table = table[table["record"].isin(list(sizes))]
        labels = {method: _label(str(method), paper, title) for method in set(table["method"])}
        table = table.assign(
            paper=paper, experiment=table["experiment"].replace(renamed),
            selector=table["method"].map(labels), block_size=table["record"].map(sizes),
            dense=table["method"].isin([DENSE, FASTEST_DENSE]),
        ).dropna(subset=["selector"])  # fmt: skip
        if rows_where(table, metric="coverage_at_density").empty:
            continue  # experiments of that name, but not the shared ones
        tables.append(table)
        used += mine
    if not tables:
        return None
    rows = pd.concat(tables, ignore_index=True)
    usual = rows["block_size"].mode().iloc[0]
    baseline = rows["selector"].isin(list(BASELINE_NAMES.values()))
    other = baseline & (rows["block_size"] != usual)
    sized = rows["selector"] + OTHER_SIZE + rows["block_size"].astype("Int64").astype(str)
    return Measured(rows.assign(selector=rows["selector"].where(~other, sized)), used)


def _shown_length(rows: pd.DataFrame) -> int:
    lengths = sorted(int(one) for one in rows["length"].unique())
    return max([one for one in lengths if one <= TRAINED_LENGTH] or lengths[:1])


def added_loss(measured: Measured) -> pd.DataFrame:
    """Loss at a density minus that of dense attention on the same window, in nats a token."""
    rows = measured.of("perplexity", "negative_log_likelihood_at_density")
    dense = rows_where(measured.of("perplexity", "negative_log_likelihood"), selector=DENSE)
    items = ["text", "length", "window"]
    pairs = rows.merge(dense[[*items, "value"]], on=items, suffixes=("", "_dense"))
    return pairs.assign(value=pairs["value"] - pairs["value_dense"])


def _interval(rows: pd.DataFrame, **wanted: object) -> str:
    values = rows_where(rows, **wanted)["value"].to_numpy(dtype=np.float64) if len(rows) else np.array([])
    return with_interval(mean_interval(values)) if values.size else NOT_MEASURED


def retrieval_lost(measured: Measured, length: int) -> pd.DataFrame:
    """Score minus that of dense attention on the same prompt, in points, on the tasks that every paper measured.

    Returns:
        A line for each selector and threshold: `value`, the mean over prompts, and `density`, the mean over tasks.
    """
    asked = rows_where(measured.rows, experiment="retrieval", metric="score", length=length)
    tasks = [task for task, rows in asked.groupby("task") if rows["paper"].nunique() == asked["paper"].nunique()]
    scores, densities = (measured.of("retrieval", metric) for metric in ("score", "density"))
    scores, densities = (rows.loc[(rows["length"] == length) & rows["task"].isin(tasks), :] for rows in (scores, densities))
    prompt = ["task", "seed", "trial"]
    dense = rows_where(scores, selector=DENSE)[[*prompt, "value"]]
    pairs = scores.loc[scores["threshold"].notna(), :].merge(dense, on=prompt, suffixes=("", "_dense"))
    pairs = pairs.assign(value=pairs["value"] - pairs["value_dense"])
    setting = ["selector", "threshold"]
    means = [pd.DataFrame(rows.groupby(setting)["value"].mean()).reset_index() for rows in (pairs, densities)]
    means[1] = means[1].rename(columns={"value": "density"})
    return means[0].merge(means[1], on=setting)


def _lost_near(lost: pd.DataFrame, selector: str, density: float) -> str:
    """The points of the setting whose density is nearest, and that density."""
    found = rows_where(lost, selector=selector)
    if found.empty:
        return NOT_MEASURED
    nearest = found.loc[(found["density"] - density).abs().idxmin()]
    return f"{nearest['value']:+.1f} (at {nearest['density']:.2f})"


def _time(rows: pd.DataFrame, **wanted: object) -> float | None:
    values = rows_where(rows, **wanted)["value"] if len(rows) else pd.Series(dtype=float)
    return float(values.median()) if len(values) else None


def comparison_table(measured: Measured, notes: tuple[str, ...] = ()) -> Table:
    """One row a selector: coverage and added loss at equal density, retrieval, and times at the longest length."""
    coverage, loss = measured.of("coverage", "coverage_at_density"), added_loss(measured)
    length = _shown_length(coverage)
    selection, total = measured.of("selection_time", "selection_time"), measured.of("selection_time", "total_time")
    lost = retrieval_lost(measured, length)
    longest = int(total["length"].max()) if len(total) else 0
    dense = _time(total, selector=FASTEST_DENSE, length=longest)
    lines = []
    for selector in measured.selectors:
        line = [selector]
        line += [_interval(coverage, selector=selector, length=length, density=wanted) for wanted in DENSITIES]
        line += [_interval(loss, selector=selector, length=length, density=wanted) for wanted in DENSITIES[1:]]
        line.append(_lost_near(lost, selector, NEAREST))
        choose, whole = (_time(rows, selector=selector, length=longest) for rows in (selection, total))
        line.append(number(100 * choose / dense) if choose and dense else NOT_MEASURED)
        line.append(number(dense / whole) if whole and dense else NOT_MEASURED)
        lines.append(tuple(line))
    return Table(
        name="selectors",
        title=f"Sparse attention at equal density: {length:,} tokens of text, times at {longest:,}",
        columns=(
            "Selector",
            *(f"Coverage at {wanted:g}" for wanted in DENSITIES),
            *(f"Loss added at {wanted:g} (nats)" for wanted in DENSITIES[1:]),
            f"Retrieval, points to dense (density nearest {NEAREST:g})",
            "Selection, % of dense",
            "Speed-up over dense",
        ),
        rows=tuple(lines),
        notes=(
            "Means with 95% intervals over windows of texts. Density is the share of the causal blocks (of the causal pairs of "
            "query and key where keys are listed). Dense times are cuDNN's in the same run, on structured inputs in the shape "
            "of Llama-3.1-8B; a selector's time is selection and attention at the setting of its paper's configuration.",
            "The oracle takes the best blocks of true mass, but as large a share of every row and head: a selector that gives "
            "more blocks to the rows and heads that need them can lie above it.",
            "XAttention forms a logit for every two groups of eight tokens and every head, so its selection grows with the "
            "square of the length; how much of its time is due to ours being plain PyTorch was not measured. HiP searches "
            "keys, not blocks: a tree of them for every group of queries and every head, with scattered keys to gather and a "
            "choice in every round, which is the method's own cost.",
            "Retrieval: score minus that of dense attention on the same prompts, over the tasks that all papers measured, at "
            "the measured setting that reads the share nearest to the one named.",
            *notes,
        ),
    )


def _lines(axes: Axes, rows: pd.DataFrame, selectors: list[str]) -> None:
    for place, selector in enumerate(selectors):
        found = rows_where(rows, selector=selector)
        if len(found):
            line_with_band(axes, found, "density", place, selector)


def comparison_figure(measured: Measured) -> Figure:
    """Coverage (left) and added loss (right) of every selector against density, baselines at the usual size of blocks.

    Raises:
        DataError: there is no coverage.
    """
    coverage, loss = measured.of("coverage", "coverage_at_density"), added_loss(measured)
    if coverage.empty:
        raise DataError("The records hold no coverage_at_density. Run the papers' experiment coverage first.")
    length = _shown_length(coverage)
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 3.4))
    selectors = [name for name in measured.selectors if OTHER_SIZE not in name]
    _lines(left, rows_where(coverage, length=length), selectors)
    _lines(right, rows_where(loss, length=length), selectors)
    left.set_ylabel("attention mass covered")
    right.set_ylabel("loss added to dense attention's\n(nats a token)")
    right.set_yscale("symlog", linthresh=0.01)
    for axes in (left, right):
        axes.set_title(f"{length:,} tokens")
        axes.set_xlabel("density")
    found = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=4, handlelength=2.8)
    return figure
