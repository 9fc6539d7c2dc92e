"""The baselines against PyTorch, loops and scipy; the numbers that sum up attention."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import skew, spearmanr

from papers.tscan.attention_profile import causal_expectation, hours_correlations, jaccards, spearman
from papers.tscan.gru_d import GRUD
from papers.tscan.logistic_regression import PARTS, standardised, summary_features
from papers.tscan.lstm import LSTM, LSTMDirection
from papers.tscan.severity_scores import probabilities
from papers.tscan.temporal_spatial import Sizes
from papers.tscan.transformer import Transformer


@pytest.mark.parametrize("both", [False, True])
def test_the_lstm_equals_pytorchs(both):
    network = LSTM(3, 2, 4, 0.3, both_directions=both).eval()
    reference = torch.nn.LSTM(3, 4, batch_first=True, bidirectional=both)
    with torch.no_grad():
        for direction, suffix in zip(network.directions, ("", "_reverse"), strict=False):
            assert isinstance(direction, LSTMDirection)
            getattr(reference, f"weight_ih_l0{suffix}").copy_(direction.W.weight)
            getattr(reference, f"weight_hh_l0{suffix}").copy_(direction.U.weight)
            getattr(reference, f"bias_ih_l0{suffix}").copy_(direction.W.bias)
            getattr(reference, f"bias_hh_l0{suffix}").zero_()
    X = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    _, (h, _) = reference(X)
    torch.testing.assert_close(network(X), network.dense(torch.cat(list(h), dim=1)))


def test_gru_d_equals_loops():
    torch.manual_seed(0)
    network = GRUD(2, 1, 3, 0.0).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    x, m = torch.randn(1, 5, 2, dtype=torch.float64), torch.tensor([[[1, 0], [0, 1], [1, 1], [0, 0], [0, 1]]]).double()
    delta = torch.tensor([[[0, 0], [1, 1], [2, 1], [1, 1], [2, 2]]]).double()
    found = network(torch.cat([x, m, delta], dim=-1)).item()
    sigmoid = lambda a: 1 / (1 + math.exp(-a))  # noqa: E731
    array = {name: p.detach().numpy() for name, p in network.named_parameters()}
    h = [0.0] * 3
    for t in range(5):
        d = delta[0, t].tolist()
        gx = [math.exp(-max(0, array["decay_x"][i] * d[i] + array["offset_x"][i])) for i in range(2)]
        gh = [math.exp(-max(0, array["decay_h.weight"][k] @ d + array["decay_h.bias"][k])) for k in range(3)]
        hat = [x[0, t, i].item() if m[0, t, i] else gx[i] * x[0, t, i].item() for i in range(2)]
        h = [g * value for g, value in zip(gh, h, strict=True)]
        inputs = array["W.weight"] @ [*hat, *m[0, t].tolist()] + array["W.bias"]
        state = array["U.weight"] @ h + array["U.bias"]
        r = [sigmoid(inputs[k] + state[k]) for k in range(3)]
        z = [sigmoid(inputs[3 + k] + state[3 + k]) for k in range(3)]
        new = [math.tanh(inputs[6 + k] + r[k] * state[6 + k]) for k in range(3)]
        h = [(1 - z[k]) * new[k] + z[k] * h[k] for k in range(3)]
    assert found == pytest.approx(float(array["dense.weight"][0] @ h + array["dense.bias"][0]))


def test_the_transformer_hides_padding():
    network = Transformer(6, 3, 1, 4, 2, Sizes(8, 2, 6, 0.3)).eval()
    X = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    present = torch.tensor([False, False, True, True, True, True]).expand(2, -1)
    other = X.clone()
    other[:, :2] = 50
    torch.testing.assert_close(network(X, present), network(other, present))
    assert not torch.allclose(network(X), network(other))


def test_summary_features_equal_scipy_on_what_was_observed():
    values = np.random.default_rng(0).normal(size=(2, 48, 2))
    values[0, ::3, 0] = np.nan
    values[1, :, 1] = np.nan  # never observed
    values[1, :, 0] = 7.0  # constant
    found = summary_features(values).reshape(2, len(PARTS), 6, 2)
    for number, (start, end) in enumerate(PARTS):
        part = values[0, int(start * 48) : math.ceil(end * 48), 0]
        part = part[~np.isnan(part)]
        expected = [part.min(), part.max(), part.mean(), part.std(), skew(part), len(part)]
        np.testing.assert_allclose(found[0, number, :, 0], expected, atol=1e-12)
        np.testing.assert_allclose(found[1, number, 3:5, 0], 0)
        assert np.isnan(found[1, number, :5, 1]).all()
        assert found[1, number, 5, 1] == 0


def test_standardised_uses_training_rows_and_makes_constant_and_empty_columns_zero():
    features = np.array([[1.0, 5.0, np.nan], [3.0, 5.0, np.nan], [9.0, 5.0, 4.0], [np.nan, 5.0, 4.0]])
    found = standardised(features, np.array([0, 1]))
    np.testing.assert_allclose(found[:, 0], [-1, 1, 7, 0])
    np.testing.assert_allclose(found[:, 1], 0)
    np.testing.assert_allclose(found[:2, 2], 0)


def test_a_severity_score_keeps_its_order():
    rng = np.random.default_rng(0)
    score, labels = np.arange(40.0), (np.arange(40) + rng.normal(0, 8, 40) > 20).astype(int)
    found = probabilities(score, labels, np.arange(30), np.arange(40))
    assert (np.diff(found) > 0).all()
    assert 0 < found.min() < found.max() < 1


def test_a_causal_mask_alone_favours_early_tokens():
    expected = [sum(1 / (q + 1) for q in range(k, 4)) / 4 for k in range(4)]
    np.testing.assert_allclose(causal_expectation(4), expected)
    assert causal_expectation(4).sum() == pytest.approx(1)
    found = hours_correlations(np.tile(causal_expectation(4), 2), 2, causal=True)
    assert found["inside"] == pytest.approx(-1)
    assert found["corrected"] == 0


def test_spearman_equals_scipy_and_is_zero_where_a_side_is_constant():
    a, b = np.array([1.0, 3, 2, 2]), np.array([4.0, 4, 1, 0])
    assert spearman(a, b) == pytest.approx(spearmanr(a, b)[0])
    assert spearman(a, np.ones(4)) == 0
    assert hours_correlations(np.arange(6.0), 2, causal=False) == pytest.approx({"inside": 1, "all": 1, "corrected": 1})


def test_jaccard_of_the_greatest():
    values = np.array([[3.0, 2, 1, 0], [3.0, 0, 2, 1], [0.0, 1, 2, 3]])
    assert jaccards(values, 2) == [1 / 3, 0, 1 / 3]
