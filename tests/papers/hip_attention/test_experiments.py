"""The experiments on tiny inputs: what is measured is what the names say."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.experiment import Context, Measurement
from common.sparse_attention import selection_density
from papers.hip_attention import recall, search_time
from papers.hip_attention.comparisons import compare_lists
from papers.hip_attention.families import families
from papers.hip_attention.hip_attention import HierarchicalPruning
from papers.hip_attention.recall import gaussian_process, local_inputs
from papers.hip_attention.search_time import slope

ON_CPU = Context(device="cpu", label="test")
SEARCH: dict[str, Any] = {
    "block_q": 8, "block_k": 2, "top_k": 32, "window": 16, "sink": 4, "stride_q": 2, "top_ks": [16, 32],
    "block_qs": [8], "block_ks": [1, 2],
}  # fmt: skip


def recall_settings(**changes):
    return recall.Settings(
        **{
            **SEARCH, "correlation_length": 8, "length": 400, "seed": 0, "queries": 16, "heads": 2, "head_dim": 64,
            "deviation": 3.0, "spread": 0.5, **changes,
        }
    )  # fmt: skip


def rows_of(measurement, metric, **setting):
    return [row for row in measurement.rows if row.metric == metric and setting.items() <= row.setting.items()]


@pytest.mark.parametrize("correlation_length", [0, 1, 8])
def test_gaussian_processes_have_their_variance_and_correlation(correlation_length):
    x = gaussian_process((4, 4000, 8), correlation_length, torch.Generator().manual_seed(0))
    assert x.shape == (4, 4000, 8)
    assert float(x.var()) == pytest.approx(1, abs=0.05)
    for distance in (1, 4, 12):
        # Smoothing white noise by a Gaussian of width w gives a correlation of exp(-distance² / (4 w²)).
        expected = torch.tensor(-(distance**2) / (4 * correlation_length**2)).exp().item() if correlation_length else 0.0
        assert float((x[:, distance:] * x[:, :-distance]).mean()) == pytest.approx(expected, abs=0.06)


def test_scores_have_the_deviation_that_was_asked_for():
    q, k = local_inputs(recall_settings(length=3000), 8, "cpu")
    assert float((q @ k.mT / 8).std()) == pytest.approx(3, rel=0.1)
    same = torch.nn.functional.cosine_similarity(q[0, :, 0], q[0, :, 7], dim=-1).mean()
    other = torch.nn.functional.cosine_similarity(q[0, :, 0], q[0, :, 8], dim=-1).mean()
    assert float(same) > float(other) + 0.3


def test_recall_compares_lists_and_varies_the_search():
    measurement = recall.run(recall_settings(), ON_CPU)
    found = {row.method: row.value for row in rows_of(measurement, "recall", sweep="none")}
    assert set(found) == {"hip", "first", "last", "random", "strided", "exact"}
    assert found["hip"] > found["random"]
    assert found["exact"] >= max(found.values()) - 1e-9
    assert {row.setting["top_k"] for row in rows_of(measurement, "attention_mass", sweep="top_k")} == {16, 32}
    blocks = rows_of(measurement, "recall", sweep="blocks")
    lost = rows_of(measurement, "recall_lost", sweep="blocks")
    assert [1 - row.value for row in lost] == pytest.approx([row.value for row in blocks])
    varied = next(row.value for row in rows_of(measurement, "recall", sweep="top_k", top_k=32))
    assert varied == pytest.approx(found["hip"])  # the same settings again


def test_center_best_counts_heads():
    s = recall_settings()
    measurement = Measurement()
    inputs = [lambda hip, seed=seed: local_inputs(recall_settings(seed=seed), hip.block_q, "cpu") for seed in range(3)]
    compare_lists(s, inputs, measurement, 0, window=5)
    (row,) = rows_of(measurement, "center_best")
    assert row.setting == {"window": 5}
    assert row.value * 6 / 100 == pytest.approx(round(row.value * 6 / 100))  # of three layers of two heads


@settings(max_examples=20, deadline=None)
@given(power=st.floats(0.1, 3), factor=st.floats(1e-3, 1e3))
def test_the_slope_is_the_power_of_the_length(power, factor):
    lengths = [1024, 4096, 8192, 65536]
    assert slope(lengths, [factor * length**power for length in lengths]) == pytest.approx(power)


def test_search_times_follow_from_one_another():
    s = search_time.Settings(
        seed=0, lengths=[128, 256], heads=2, key_heads=1, head_dim=64, dtype="float32", topic_logits=(1.0, 4.0),
        locality_logit=3.0, block_q=16, block_k=2, window=16, sink=4, stride_q=2, top_ks=[16, 32], grid_length=128,
        block_qs=[16], block_ks=[1, 2], dense=["math"], repeat_milliseconds=1,
    )  # fmt: skip
    measurement = search_time.run(s, ON_CPU)
    times = {
        (row.method, row.setting["stage"], row.setting["length"], row.setting.get("top_k")): row.value
        for row in rows_of(measurement, "time")
    }
    assert len(times) == 2 + 2 * 2 * 3
    for row in rows_of(measurement, "speed_up", over="math"):
        length, top_k = row.setting["length"], row.setting["top_k"]
        assert row.value == pytest.approx(times["math", "total", length, None] / times["hip", "total", length, top_k])
    (row,) = rows_of(measurement, "slope", stage="search", top_k=16)
    assert row.value == pytest.approx(slope([128, 256], [times["hip", "search", length, 16] for length in (128, 256)]))
    assert [row.setting["block_k"] for row in rows_of(measurement, "searches_per_second")] == [1, 2]


def test_the_family_is_swept_over_k():
    made = families(128)
    assert {"hip", "mean_pooling", "xattention", "flexprefill", "vertical_slash", "streaming_llm"} <= set(made)
    q = torch.randn(1, 2, 600, 64)
    few, many = (made["hip"](k).select(q, q) for k in (8.0, 64.0))
    assert (selection_density(few) < selection_density(many)).all()


def test_the_formula_itself_grows_faster_than_the_limit_of_the_claim():
    """Rounds over all query blocks, T / b_q times log2(M / n), at the lengths that are timed: the README's exponent."""
    hip = HierarchicalPruning(block_q=64, top_k=512)
    lengths = [8192, 16384, 32768, 65536, 131072]
    rounds = [float((hip.searched(length, length).double() / hip.nodes).clamp(min=1).log2().ceil().sum()) for length in lengths]
    assert slope(lengths, rounds) == pytest.approx(1.31, abs=0.005)
