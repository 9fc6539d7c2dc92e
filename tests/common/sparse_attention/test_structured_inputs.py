"""The generator puts the logits where it says."""

import pytest
import torch

from common.errors import InputError
from common.sparse_attention import structured_inputs


def logits(inputs, key_head, group):
    q = inputs.q[0, key_head * group].double()
    return q @ inputs.k[0, key_head].double().mT / inputs.q.shape[-1] ** 0.5


QUIET = {"sink_logit": 0.0, "heavy_hitter_logit": 0.0, "topic_logits": (0.0, 0.0), "locality_logit": 0.0}


def test_shapes_dtype_and_seed():
    first = structured_inputs(100, heads=4, key_heads=2, head_dim=64, seed=3, dtype=torch.bfloat16)
    again = structured_inputs(100, heads=4, key_heads=2, head_dim=64, seed=3, dtype=torch.bfloat16)
    other = structured_inputs(100, heads=4, key_heads=2, head_dim=64, seed=4, dtype=torch.bfloat16)
    assert [x.shape for x in first] == [(1, 4, 100, 64), (1, 2, 100, 64), (1, 2, 100, 64)]
    for x, same, different in zip(first, again, other, strict=True):
        assert x.dtype == torch.bfloat16
        assert torch.equal(x, same)
        assert not torch.equal(x, different)


def test_without_components_everything_is_unit_noise():
    inputs = structured_inputs(2000, heads=2, key_heads=1, **QUIET)
    for x in inputs:
        assert float(x.mean()) == pytest.approx(0, abs=0.01)
        assert float(x.std()) == pytest.approx(1, abs=0.01)
    assert float(logits(inputs, 0, 2).std()) == pytest.approx(1, abs=0.02)


def test_sink():
    inputs = structured_inputs(2000, heads=1, key_heads=1, **{**QUIET, "sink_logit": 8.0})
    scores = logits(inputs, 0, 1)
    assert float(scores[:, 0].mean()) == pytest.approx(8, abs=1.5)
    assert float(scores[:, 1:].mean()) == pytest.approx(0, abs=0.1)


def test_heavy_hitters():
    inputs = structured_inputs(4000, heads=1, key_heads=1, **{**QUIET, "heavy_hitter_logit": 5.0})
    means = logits(inputs, 0, 1).mean(0)
    heavy = means > 3
    assert float(heavy.double().mean()) == pytest.approx(1 / 64, rel=0.4)
    assert float(means[heavy].mean()) == pytest.approx(5, abs=0.5)
    assert float(means[~heavy].mean()) == pytest.approx(0, abs=0.1)


def test_topics_differ_by_key_head():
    inputs = structured_inputs(4000, heads=4, key_heads=2, topics=4, topic_chunk=200, **{**QUIET, "topic_logits": (3.0, 7.0)})
    for key_head, logit in enumerate((3.0, 7.0)):
        chunks = logits(inputs, key_head, 2).unflatten(0, (20, 200)).unflatten(2, (20, 200)).mean((1, 3))
        same = chunks > logit / 2
        assert same.diagonal().all()
        assert float(chunks[same].mean()) == pytest.approx(logit, abs=0.1)
        assert float(chunks[~same].mean()) == pytest.approx(0, abs=0.1)
        assert 0.1 < float(same.double().mean()) < 0.6


def test_locality():
    inputs = structured_inputs(1024, heads=1, key_heads=1, locality_period=1024, **{**QUIET, "locality_logit": 3.0})
    scores = logits(inputs, 0, 1)
    for offset, expected in ((0, 3.0), (256, 0.0), (512, -3.0)):
        assert float(scores.diagonal(-offset).mean()) == pytest.approx(expected, abs=0.25)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("length is 0", {"length": 0}),
        ("does not divide", {"length": 8, "heads": 3, "key_heads": 2}),
        ("head_dim is 16", {"length": 8, "head_dim": 16}),
        ("sink_logit is -1", {"length": 8, "sink_logit": -1.0}),
        ("topic_logits is -2", {"length": 8, "topic_logits": (3.0, -2.0)}),
    ],
)
def test_bad_input_is_named(message, arguments):
    with pytest.raises(InputError, match=message):
        structured_inputs(**arguments)
