"""The experiments on tiny inputs: what is measured is what the names say."""

from typing import Any

import pytest
import torch

from common.experiment import Context
from common.sparse_attention import selection_density, sparse_attention, structured_inputs
from papers.pbs_attn import exactness, pipeline_time, prefill_time
from papers.pbs_attn.comparison import compared_families
from papers.pbs_attn.pbs_attn import PBSAttention
from papers.pbs_attn.pipeline_time import Stages

SIZES: dict[str, Any] = {"block_size": 16, "segment_size": 32}
SHAPE: dict[str, Any] = {"heads": 4, "key_heads": 2, "head_dim": 64}
ON_CPU = Context(device="cpu", label="test")


def inputs(N=200):
    return structured_inputs(N, **SHAPE, topic_chunk=32, locality_period=128, heavy_hitter_period=8)


def rows_of(measurement, metric):
    return [row for row in measurement.rows if row.metric == metric]


def test_every_order_is_exact_on_the_cpu():
    settings = exactness.Settings(
        seed=0, dtypes=["float32"], lengths=[100], **SHAPE, **SIZES, orders=["none", "last_block", "greedy", "random"],
        reference_lengths=[64],
    )  # fmt: skip
    errors = rows_of(exactness.run(settings, ON_CPU), "relative_error")
    assert {row.method for row in errors} == {"dense", "none", "last_block", "greedy", "random"}
    assert all(row.value <= 1e-5 for row in errors)


def test_the_stages_make_the_whole():
    q, k, v = inputs()
    method = PBSAttention(**SIZES)
    stages = Stages(method, q, k, v)
    expected = sparse_attention(q, k, v, method.select(q, k))
    assert torch.equal(stages.total(), expected)
    assert torch.equal(stages.attention(), expected)
    assert torch.equal(stages.select().indices, stages.blocks.indices)


def test_pipeline_rows_follow_from_one_another():
    settings = pipeline_time.Settings(
        length=200, seed=0, **SHAPE, dtype="float32", topic_logits=(1.0, 4.0), locality_logit=3.0, structure={200: 0.3},
        **SIZES, tau=0.9, dense=["math"], repeat_milliseconds=1,
    )  # fmt: skip
    measurement = pipeline_time.run(settings, ON_CPU)
    times = {(row.method, row.setting["stage"]): row.value for row in rows_of(measurement, "time")}
    overhead = 100 * (times["pbs_attn", "permute"] + times["pbs_attn", "select"]) / times["pbs_attn", "total"]
    assert rows_of(measurement, "overhead")[0].value == pytest.approx(overhead)
    assert {row.setting["over"] for row in rows_of(measurement, "speed_up")} == {"math", "fastest dense"}
    shares = {row.method: row.value for row in rows_of(measurement, "selected_density")}
    fewer = rows_of(measurement, "fewer_blocks")[0].value
    assert fewer == pytest.approx(100 * (1 - shares["last_block"] / shares["none"]))
    blocks = {row.method: row.value for row in rows_of(measurement, "selected_blocks")}
    assert blocks["none"] == pytest.approx(shares["none"] * 13 * 14 / 2)  # 200 tokens are 13 blocks of 16


def test_prefill_of_a_random_model():
    settings = prefill_time.Settings(
        subject="random", lengths={"random": [300]}, pretrained="", text="", shape="tiny", layers=1, dtype="float32",
        block_size=128, segment_size=256, tau=0.9, densities={300: 0.6}, baseline="sdpa", repeat_milliseconds=1, seed=0,
    )  # fmt: skip
    measurement = prefill_time.run(settings, ON_CPU)
    times = {row.method: row.value for row in rows_of(measurement, "prefill_time")}
    assert rows_of(measurement, "prefill_speed_up")[0].value == pytest.approx(times["dense"] / times["pbs_attn"])
    assert 0 < rows_of(measurement, "executed_density")[0].value < 1.5


def test_the_family_is_the_method_by_threshold():
    families = compared_families(16, 32)
    assert families["pbs_attn"](0.7) == PBSAttention(**SIZES, tau=0.7)
    q, k, _ = inputs()
    less, more = (selection_density(families["pbs_attn"](tau).select(q, k)).mean() for tau in (0.2, 0.95))
    assert less < more
