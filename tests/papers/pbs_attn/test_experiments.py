"""The experiments on tiny inputs: what is measured is what the names say."""

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from common.experiment import Context
from common.sparse_attention import density, sparse_attention, structured_inputs
from papers.pbs_attn import exactness, pipeline_time, prefill_time
from papers.pbs_attn.pbs_attn import PBSAttention
from papers.pbs_attn.pipeline_time import Stages, dense_attention
from papers.pbs_attn.prefill_time import AtDensity, blocks_at_density

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


@pytest.mark.parametrize("name", ["math"])
def test_dense_baselines_are_causal_attention(name):
    q, k, v = inputs(70)
    expected = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(dense_attention(name, q, k, v)(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["flash", "cudnn", "flex"])
def test_dense_baselines_on_gpu_are_causal_attention(name):
    q, k, v = (x.cuda().bfloat16() for x in inputs(512))
    expected = scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True, enable_gqa=True)
    error = (dense_attention(name, q, k, v)().double() - expected).norm() / expected.norm()
    assert error < 1e-2


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


def test_blocks_at_density_have_that_density():
    q, k, v = inputs(640)
    method = PBSAttention(**SIZES)
    lists = blocks_at_density(640, 4, 0.4, method, "cpu", seed=0)
    lists.check_contents(40, 2)
    mask = lists.to_mask(40)
    for i in range(40):
        own = 2
        wanted = max(math.ceil(0.4 * (i + 1)), own)
        earlier = i // 2 * 2
        assert mask[0, :, i].sum(-1).tolist() == [min(wanted, own + earlier)] * 4
        assert mask[0, :, i, 0].all() == (wanted > own or i < 2)
    assert float(density(mask, 32, 16).mean()) == pytest.approx(0.4, abs=0.05)
    selection = AtDensity(method, lists).select(q, k)
    assert torch.equal(selection.mask, mask)
    assert selection.key_order is not None
    assert torch.equal(selection.key_order, method.key_order(q, k))
    assert sparse_attention(q, k, v, selection).isfinite().all()


def test_prefill_of_a_random_model():
    settings = prefill_time.Settings(
        subject="random", lengths={"random": [300]}, pretrained="", text="", shape="tiny", layers=1, dtype="float32",
        block_size=128, segment_size=256, tau=0.9, densities={300: 0.6}, baseline="sdpa", repeat_milliseconds=1, seed=0,
    )  # fmt: skip
    measurement = prefill_time.run(settings, ON_CPU)
    times = {row.method: row.value for row in rows_of(measurement, "prefill_time")}
    assert rows_of(measurement, "prefill_speed_up")[0].value == pytest.approx(times["dense"] / times["pbs_attn"])
    assert 0 < rows_of(measurement, "executed_density")[0].value < 1.5
