"""The template paper: its method against a hand-worked example and PyTorch, its experiment, its claims."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from common.claims import judge_all
from common.configuration import check_parameters, read_paper_config
from common.errors import InputError
from common.experiment import Context
from common.present import draw
from common.records import RecordSet
from papers._template.scaled_dot_product import attention_weights
from papers._template.softmax_gradient import Settings, run
from tests.example_records import TEMPLATE, measure_template


def test_the_weights_of_a_hand_worked_example():
    # d_k = 4, so the scale is 1/2: logits (2 ln 3, 0) / 2 give e^(ln 3) : 1 = 3 : 1, unscaled 9 : 1.
    Q = torch.tensor([[2 * math.log(3), 0, 0, 0]], dtype=torch.float64)
    K = torch.eye(4, dtype=torch.float64)[:2]
    torch.testing.assert_close(attention_weights(Q, K), torch.tensor([[0.75, 0.25]], dtype=torch.float64))
    torch.testing.assert_close(attention_weights(Q, K, scaled=False), torch.tensor([[0.9, 0.1]], dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 70)),
    scaled=st.booleans(),
)
def test_equals_pytorchs_attention(seed, shape, scaled):
    B, n, m, d_k = shape
    generator = torch.Generator().manual_seed(seed)
    Q, K, V = (torch.randn(B, length, d_k, generator=generator, dtype=torch.float64) for length in (n, m, m))
    expected = scaled_dot_product_attention(Q, K, V, scale=None if scaled else 1.0)
    weights = attention_weights(Q, K, scaled=scaled)
    torch.testing.assert_close(weights @ V, expected)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, n, dtype=torch.float64))


def test_different_dimensions_are_refused():
    with pytest.raises(InputError, match="Q has d_k = 4 and K has 8"):
        attention_weights(torch.zeros(2, 4), torch.zeros(2, 8))


def test_the_experiment_measures_variance_and_gradient_of_each_dimension():
    chosen = Settings(seed=3, d_k=[2, 8], keys=5, queries=7)
    rows = run(chosen, Context(device="cpu", label="test")).rows
    assert [(row.metric, row.method, row.setting["d_k"]) for row in rows] == [
        (metric, method, d_k)
        for d_k in (2, 8)
        for metric, method in (("variance_of_dot_product", ""), ("gradient_norm", "scaled"), ("gradient_norm", "plain"))
    ]
    for d_k in chosen.d_k:
        generator = torch.Generator().manual_seed(3)
        Q = torch.randn(7, d_k, generator=generator, dtype=torch.float64)
        K = torch.randn(5, d_k, generator=generator, dtype=torch.float64)
        dots = [sum(a * b for a, b in zip(q, k, strict=True)) for q in Q.tolist() for k in K.tolist()]
        found = {(row.metric, row.method): row.value for row in rows if row.setting["d_k"] == d_k}
        assert found["variance_of_dot_product", ""] == pytest.approx(np.var(dots, ddof=1))
        for method, scale in (("scaled", 1 / math.sqrt(d_k)), ("plain", 1.0)):
            norms = [
                torch.autograd.functional.jacobian(lambda x: x.softmax(-1), scale * (K @ q)).norm().item()  # type: ignore[union-attr]
                for q in Q
            ]
            assert found["gradient_norm", method] == pytest.approx(np.mean(norms))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    measure_template(folder, "standard")
    return RecordSet(folder)


def test_its_claims_are_judged_on_a_cpu_and_follow_the_numbers(records):
    verdicts = {verdict.claim: verdict for verdict in judge_all(TEMPLATE, records, "standard")}
    assert verdicts["translation_quality"].words == "not tested (this example trains no translation model)"
    table = records.table()
    variances = table[(table["metric"] == "variance_of_dot_product") & (table["d_k"] == 64)]["value"]
    (piece,) = verdicts["variance_is_d_k"].evidence
    assert piece.estimate == pytest.approx(variances.mean() - 64)
    assert verdicts["variance_is_d_k"].outcome == "reproduced"
    gradients = table[table["metric"] == "gradient_norm"].pivot(index=["d_k", "seed"], columns="method", values="value")
    gains = gradients["scaled"] - gradients["plain"]
    judged = {piece.group: piece for piece in verdicts["scaling_keeps_gradients"].evidence}
    assert list(judged) == ["d_k=64", "d_k=256"]
    for group, piece in judged.items():
        gain = gains.loc[float(group.removeprefix("d_k="))]
        assert piece.estimate == pytest.approx(gain.mean())
        if (gain > 0).all():
            assert piece.outcome == "reproduced"
        if (gain < 0).all():
            assert piece.outcome == "contradicted"


def test_nothing_is_judged_at_smoke(records):
    assert {verdict.outcome for verdict in judge_all(TEMPLATE, records, "smoke")} == {"not tested"}


def test_its_configuration_is_valid_and_its_figures_are_drawn(records, tmp_path):
    config = read_paper_config(TEMPLATE / "config.yaml")
    check_parameters(config, TEMPLATE / "config.yaml")
    for name in config.figures:
        draw(config, name, records, tmp_path / name)
        assert (tmp_path / f"{name}.svg").stat().st_size > 1000
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
