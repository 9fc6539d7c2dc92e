"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from common.figures import COLUMN_WIDTH
from common.records import RecordSet


def gradient_against_dimension(records: RecordSet) -> Figure:
    """Mean gradient norm of the softmax against d_k, one line a method, one thin line a seed."""
    table = records.table()
    rows = table[table["metric"] == "gradient_norm"]
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.2))
    for number, (method, group) in enumerate(rows.groupby("method")):
        for _, line in group.groupby("seed"):
            axes.plot(line["d_k"], line["value"], color=f"C{number}", alpha=0.25, linewidth=0.8)
        mean = group.groupby("d_k")["value"].mean()
        axes.plot(mean.index, mean.to_numpy(), color=f"C{number}", marker="o", label=str(method))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(r"$d_k$")
    axes.set_ylabel("gradient norm of the softmax")
    axes.legend()
    return figure
