"""One style for all figures, and writing them as SVG and PNG."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from common.errors import DataError
from common.files import whole_or_absent
from common.statistics import mean_interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from common.records import RecordSet

COLUMN_WIDTH = 3.5  # inches: one column of a two-column paper
PAGE_WIDTH = 7.0
# Okabe and Ito's palette: told apart by readers with colour vision deficiencies.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Marker and dashes go with the colour, so that lines stay apart in greyscale print.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))
STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "reattend",
    "hatch.linewidth": 0.6,
    "image.cmap": "viridis",  # its lightness rises evenly: it survives greyscale
}


def line_look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the line with this number, for `axes.plot(..., **line_look(0))`.

    Past the last colour they start again with hollow markers, each with another marker than before.
    """
    again = number // len(COLOURS)
    look = {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[(number + again) % len(MARKERS)],
        "linestyle": DASHES[(number + again) % len(DASHES)],
    }
    return {**look, "markerfacecolor": "white"} if again else look


def length_axis(axes: "Axes", lengths: Iterable[int]) -> None:
    """A logarithmic horizontal axis of context lengths, with a tick at each: 512, 2K, 128K."""
    from matplotlib.ticker import NullLocator

    places = sorted(set(lengths))
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [length_name(place) for place in places])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("context length (tokens)")


def rows_where(table: "pd.DataFrame", **wanted: object) -> "pd.DataFrame":
    """The lines of a table with the given values in the given columns."""
    keep = np.ones(len(table), dtype=bool)
    for column, value in wanted.items():
        keep &= (table[column] == value).to_numpy()
    return table.loc[keep, :]


def measured_rows(records: "RecordSet", experiment: str, metric: str) -> "pd.DataFrame":
    """The rows of one metric of one experiment. Raises DataError when there are none."""
    rows = rows_where(records.table(), experiment=experiment, metric=metric)
    if rows.empty:
        raise DataError(f"The records hold no {metric} of {experiment}. Run that experiment first.")
    return rows


def line_with_band(axes: "Axes", rows: "pd.DataFrame", x: str, number: int, label: str) -> None:
    """Mean of `value` against column x with its 95% interval, in the look of line `number`."""
    places = sorted(float(place) for place in rows[x].unique())
    groups = [mean_interval(rows_where(rows, **{x: place})["value"].to_numpy(dtype=np.float64)) for place in places]
    look = line_look(number)
    axes.plot(places, [interval.mean for interval in groups], label=label, **look)
    low = [interval.mean if interval.low is None else interval.low for interval in groups]
    high = [interval.mean if interval.high is None else interval.high for interval in groups]
    axes.fill_between(places, low, high, color=look["color"], alpha=0.15, linewidth=0)


def legend_below(axes: "Axes") -> None:
    """A legend in two columns under the axis, where no line can run through it."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, handlelength=3)


def length_name(length: int) -> str:
    """`512`, `2K`, `128K`: a number of tokens with K for 1,024."""
    return f"{length // 1024}K" if length >= 1024 and length % 1024 == 0 else f"{length:,}"


@contextmanager
def style() -> Iterator[None]:
    """Draw in the suite's style, without a display."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from cycler import cycler

    with plt.rc_context(cast(Any, {**STYLE, "axes.prop_cycle": cycler(color=COLOURS)})):
        yield


def save_figure(figure: "Figure", path: Path) -> None:
    """Write `<path>.svg` and `<path>.png`; the same figure gives the same bytes. Raises DataError when it cannot be written."""
    import matplotlib.pyplot as plt

    for _ in range(2):  # laid out once for both formats; the second pass settles what images and colour bars have moved
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for suffix in (".svg", ".png"):
        with whole_or_absent(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, metadata={"Date": None} if suffix == ".svg" else {"Software": None})
    plt.close(figure)
