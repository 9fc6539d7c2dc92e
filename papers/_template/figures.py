"""The figures of this paper: each function takes the records and returns a matplotlib figure."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from common.figures import COLUMN_WIDTH, line_look
from common.records import RecordSet


def gradient_against_dimension(records: RecordSet) -> Figure:
    """Mean gradient norm of the softmax against d_k, one line a method, one thin line a seed."""
    table = records.table()
    rows = table[table["metric"] == "gradient_norm"]
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.2))
    for number, (method, group) in enumerate(rows.groupby("method")):
        look = line_look(number)
        for _, line in group.groupby("seed"):
            axes.plot(line["d_k"], line["value"], color=look["color"], alpha=0.35, linewidth=0.6)
        mean = group.groupby("d_k")["value"].mean()
        axes.plot(mean.index, mean.to_numpy(), label=str(method), **look)
    axes.set_xscale("log", base=2)
    dimensions = sorted({int(d_k) for d_k in table["d_k"]})
    axes.set_xticks(dimensions, [str(d_k) for d_k in dimensions])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(r"dimension of queries and keys $d_k$")
    axes.set_ylabel("gradient norm of the softmax")
    axes.legend()
    return figure
