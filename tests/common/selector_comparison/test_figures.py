"""The shared figures: lines at the measured places, methods without records left out, lengths that are not there refused."""

from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from common.errors import DataError
from common.figures import style
from common.selector_comparison import figures

NAMES = {"ours": "Ours", "absent": "Absent", "mean_pooling": "mean pooling"}


def records(*rows) -> Any:
    """A record set of rows (experiment, metric, method, value, settings)."""
    table = pd.DataFrame(
        [{"experiment": e, "metric": m, "method": name, "value": v, **setting} for e, m, name, v, setting in rows]
    )
    return SimpleNamespace(table=lambda: table)


@pytest.fixture(autouse=True)
def drawing():
    with style():
        yield
        plt.close("all")


def line(axes, label):
    (found,) = [one for one in axes.get_lines() if one.get_label() == label]
    return list(found.get_xdata()), list(found.get_ydata())


def curve(metric, experiment, method, values):
    return [
        (experiment, metric, method, value + 0.01 * window, {"text": "t", "length": n, "density": d, "window": window})
        for (n, d), value in values.items()
        for window in (0, 1)
    ]


def test_coverage_by_density_and_by_length():
    found = records(
        *curve("coverage_at_density", "coverage", "ours", {(4096, 0.1): 0.5, (4096, 0.2): 0.6, (16384, 0.2): 0.7}),
        *curve("coverage_at_density", "coverage", "mean_pooling", {(4096, 0.2): 0.4}),
    )
    left, right = figures.coverage_against_density(found, NAMES).axes
    assert left.get_title() == "4,096 tokens"  # the longest within the trained context
    assert line(left, "Ours") == ([0.1, 0.2], [pytest.approx(0.505), pytest.approx(0.605)])
    assert right.get_title() == "density 0.2"
    assert line(right, "Ours") == ([4096, 16384], [pytest.approx(0.605), pytest.approx(0.705)])
    assert all("Absent" not in axes.get_legend_handles_labels()[1] for axes in (left, right))
    assert figures.coverage_against_density(found, NAMES, length=16384).axes[0].get_title() == "16,384 tokens"
    with pytest.raises(DataError, match="no length 512; they hold 4096, 16384"):
        figures.coverage_against_density(found, NAMES, length=512)
    with pytest.raises(DataError, match="no coverage_at_density of elsewhere"):
        figures.coverage_against_density(found, NAMES, experiment="elsewhere")


def test_losses_are_those_added_to_dense_attention():
    dense = [
        ("perplexity", "negative_log_likelihood", "dense", 3.0 + window, {"text": "t", "length": 2048, "window": window})
        for window in (0, 1)
    ]
    sparse = [
        ("perplexity", "negative_log_likelihood_at_density", "ours", 3.2 + window,
         {"text": "t", "length": 2048, "density": 0.2, "window": window})
        for window in (0, 1)
    ]  # fmt: skip
    left, _ = figures.perplexity_against_density(records(*dense, *sparse), NAMES).axes
    assert line(left, "Ours") == ([0.2], [pytest.approx(0.2)])


def test_retrieval_stands_at_the_measured_density():
    place = {"task": "passkey", "length": 4096, "seed": 0}
    rows = [
        ("retrieval", metric, method, value, {**place, **at, "trial": trial})
        for metric, offset in (("score", 0.0), ("answer_negative_log_likelihood", 5.0))
        for method, at, values in (("dense", {}, (100.0, 80.0)), ("ours", {"threshold": 0.9}, (60.0, 40.0)))
        for trial, value in enumerate(value + offset for value in values)
    ]
    rows.append(("retrieval", "density", "ours", 0.25, {**place, "threshold": 0.9}))
    above, below = figures.retrieval_scores(records(*rows), NAMES).axes
    assert line(above, "Ours") == ([0.25], [50.0])
    assert line(above, "dense attention")[1] == [90.0, 90.0]
    assert line(below, "Ours") == ([0.25], [55.0])


def test_times_and_speed_ups_by_length():
    rows = [
        ("selection_time", metric, method, value * length, {"length": length})
        for length in (1024, 2048)
        for metric, method, value in (
            ("total_time", "flash", 3.0), ("total_time", "ours", 2.0), ("selection_time", "ours", 1.0)
        )
    ]  # fmt: skip
    left, right = figures.times_by_length(records(*rows), NAMES).axes
    assert line(left, "Ours") == ([1024, 2048], [1024.0, 2048.0])
    assert line(right, "Ours") == ([1024, 2048], [2048.0, 4096.0])
    assert line(left, "dense, FlashAttention-2") == line(right, "dense, FlashAttention-2")

    rows = [
        ("prefill_time", "prefill_speed_up", "ours", 1.5, {"subject": subject, "length": 1024})
        for subject in ("random", "pretrained")
    ]
    panels = figures.prefill_speed_up(records(*rows), NAMES).axes
    assert [line(axes, "Ours") for axes in panels] == [([1024], [1.5])] * 2
