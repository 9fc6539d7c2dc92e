"""Every block against its equations written as loops in float64, or against PyTorch's own."""

import itertools
import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import conv2d

from common.errors import InputError
from papers.gaam.decoders import ConvolutionalDecoder, LinearDecoder, convolution_down, convolution_up, picture
from papers.gaam.gaussian_attention import GaussianAttention, gaussian_gate
from papers.gaam.gaussian_mixture import GaussianMixture, mixture_weights, product_of_gaussians
from papers.gaam.grouped_query import GroupedQueryAttention
from papers.gaam.importance_factor import importance_factor, layer_contributions
from papers.gaam.models import Method, ModelName, Sizes, make_network, parameter_counts
from papers.gaam.multi_head import Axis, MultiHeadAttention, NormalisedMultiHeadAttention, ResidualMultiHeadAttention

SIZES = Sizes(parts=2, attention_heads=2, channels=5, query=(8, 4, 2, 3), query_picture=(2, 4))


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def looped_gate(Y: np.ndarray, delta: np.ndarray, xi: np.ndarray, squared: bool = False) -> np.ndarray:
    m, d = Y.shape
    G = np.empty_like(Y)
    for j in range(d):
        mu = sum(Y[i, j] for i in range(m)) / m
        variance = abs(sum(Y[i, j] ** 2 for i in range(m)) / m - mu**2) + 1e-8
        for i in range(m):
            u = (Y[i, j] - (mu + delta[j])) / math.sqrt(variance + 1e-5)
            G[i, j] = math.exp(-(u**2) / (2 * (xi[j] ** 2 if squared else xi[j])))
    return G


@pytest.mark.parametrize("squared", [False, True])
def test_gate_is_that_of_the_equations(squared):
    Y, delta, xi = features(3, 5), features(1, 5, seed=1), 1 + features(1, 5, seed=2).abs()
    found = gaussian_gate(Y, delta, xi, exponent="width_squared" if squared else "width")
    assert np.allclose(found.numpy(), looped_gate(Y.numpy(), delta[0].numpy(), xi[0].numpy(), squared), atol=1e-12)


@pytest.mark.parametrize("g", [1, 2, 3])
def test_heads_take_consecutive_layers(g):
    X = features(4, 6, 5)
    module = GaussianAttention(g, 5).double()
    with torch.no_grad():
        module.delta.copy_(features(g, 1, 5, seed=3))
        module.xi.copy_(1 + features(g, 1, 5, seed=4).abs())
    found, m = module(X).detach().numpy(), 6 // g
    for sample, head in itertools.product(range(4), range(g)):
        Y = X[sample, head * m : (head + 1) * m].numpy()
        G = looped_gate(Y, module.delta[head, 0].detach().numpy(), module.xi[head, 0].detach().numpy())
        # The gate is computed in float32 where training is.
        assert np.allclose(found[sample, head * m : (head + 1) * m], Y * G, atol=1e-5)


def test_starts_at_the_papers_values_and_has_its_parameters():
    module = GaussianAttention(8, 1024)
    assert (module.delta == 0).all()
    assert (module.xi == 2).all()
    assert sum(x.numel() for x in module.parameters()) == 16_384
    assert not list(GaussianAttention(8, 16, learned=False).parameters())


@pytest.mark.parametrize(("layers", "g"), [(6, 6), (6, 4), (6, 0), (1, 1)])
def test_heads_that_leave_single_layers_or_do_not_divide_are_refused(layers, g):
    with pytest.raises(InputError, match="heads"):
        GaussianAttention(max(g, 1), 5).gate(torch.zeros(layers, 5)) if g else make_network(
            Method(model="gaam", heads="parts"), SIZES.model_copy(update={"parts": 0}), layers, 6, 2
        )


def test_constant_features_pass_unchanged():
    X = torch.full((6, 5), 3.0)
    assert torch.allclose(GaussianAttention(2, 5)(X), X)


def test_a_head_of_two_layers_has_a_constant_gate():
    X = features(20, 4, 50)
    apart = (X[:, 0::2] - X[:, 1::2]).abs() > 0.1  # the terms that keep the root from 0 are small beside the variance
    gate = GaussianAttention(2, 50).gate(X).unflatten(1, (2, 2)).movedim(2, -1)[apart]
    assert len(gate) > 1000
    assert torch.allclose(gate, torch.full_like(gate, math.exp(-0.25)), atol=2e-3)


def test_a_width_that_crosses_zero_does_not_explode():
    gate = gaussian_gate(features(3, 4), torch.zeros(1, 4), torch.tensor([[-1.0, 0.0, 1e-9, 2.0]]))
    assert torch.isfinite(gate).all()
    assert ((gate >= 0) & (gate <= 1)).all()


@given(seed=st.integers(0, 10_000), layers=st.integers(2, 7), scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
@settings(max_examples=40, deadline=None)
def test_the_gate_lies_in_0_to_1_and_knows_no_scale(seed, layers, scale, shift):
    Y = features(layers, 3, seed=seed)
    delta, xi = torch.zeros(1, 3), torch.full((1, 3), 2.0)
    gate = gaussian_gate(Y, delta, xi)
    assert ((gate > 0) & (gate <= 1)).all()
    if scale > 0.1 and Y.var(0, correction=0).min() > 0.1:  # the constants in the root are small beside the variance
        assert torch.allclose(gaussian_gate(scale * Y + shift, delta, xi), gate, atol=2e-3)
    normalised = gaussian_gate(Y, delta, xi, normalised=True)
    assert torch.allclose(normalised.sum(0), torch.ones(3, dtype=torch.float64))
    assert torch.allclose(normalised, gate / gate.sum(0))


def looped_mixture(Y: np.ndarray, m: np.ndarray, c: np.ndarray, keep: np.ndarray) -> np.ndarray:
    layers, d = Y.shape
    weights = np.zeros_like(Y)
    for j in range(d):
        column = [Y[i, j] if keep[i, j] else 0.0 for i in range(layers)]
        mu = sum(column) / layers
        variance = sum((x - mu) ** 2 for x in column) / (layers - 1) + 1e-8
        for i in range(layers):
            density = 1.0
            for mi, ci in zip(m, c, strict=True):
                u = (column[i] - mu - mi) / math.sqrt(variance)
                density *= math.exp(-(u**2) / (2 * ci**2)) / math.sqrt(2 * math.pi * ci**2)
            weights[i, j] = density if keep[i, j] else 0.0
        weights[:, j] /= max(weights[:, j].sum(), 1e-8)
    return weights


@pytest.mark.parametrize("padded", [False, True])
def test_mixture_is_that_of_the_equations(padded):
    Y, m, c = features(4, 5), 0.3 * features(3, seed=1), features(3, seed=2).exp()
    keep = torch.ones(4, 5, dtype=torch.bool)
    if padded:
        keep[1, 2] = keep[3, 0] = keep[0, 0] = False
    found = mixture_weights(Y, m, c, keep=keep if padded else None)
    assert np.allclose(found.numpy(), looped_mixture(Y.numpy(), m.numpy(), c.numpy(), keep.numpy()), atol=1e-12)


def test_mixture_block_splits_layers_passes_padding_through_and_adds_its_input():
    X = features(2, 7, 3).float()
    X[0, 2, 1] = -9.0
    plain = GaussianMixture(3, 4, padding_value=-9.0, residual=False)
    out = plain(X).detach()
    assert out[0, 2, 1] == -9.0
    for first, last, head in ((0, 2, 0), (2, 4, 1), (4, 7, 2)):  # the last head takes the rest
        for sample in range(2):
            Y = X[sample, first:last].double()
            weights = looped_mixture(
                Y.numpy(), plain.m[head].detach().numpy(), plain.c[head].detach().numpy(), (Y != -9).numpy()
            )
            expected = np.where(Y.numpy() == -9, -9, Y.numpy() * weights)
            assert np.allclose(out[sample, first:last], expected, atol=1e-4)
    block = GaussianMixture(3, 4, padding_value=-9.0)
    block.load_state_dict(plain.state_dict())
    assert torch.allclose(block(X), out + X)
    assert sum(x.numel() for x in GaussianMixture(8, 4).parameters()) == 64


def test_product_of_gaussians_is_one_gaussian():
    m, c = features(4), features(4, seed=5).exp()
    mean, deviation = product_of_gaussians(m, c)
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)
    product = torch.exp(-((x[:, None] - m) ** 2) / (2 * c**2)).prod(1)
    single = torch.exp(-((x - mean) ** 2) / (2 * deviation**2))
    ratio = product / single
    assert torch.allclose(ratio, ratio[0].expand(50), rtol=1e-8)


def test_mixture_needs_two_layers_a_head():
    with pytest.raises(InputError, match="at most 3"):
        GaussianMixture(4, 4)(torch.zeros(6, 3))
    with pytest.raises(InputError, match="one layer"):
        mixture_weights(torch.zeros(1, 3), torch.zeros(2), torch.ones(2))


@pytest.mark.parametrize("axis", ["layers", "batch"])
def test_multi_head_attention_is_pytorchs(axis: Axis):
    X, d, heads = features(5, 3, 8), 8, 2
    ours = MultiHeadAttention(d, heads, axis).double()
    theirs = nn.MultiheadAttention(d, heads, batch_first=axis == "layers", dtype=torch.float64)  # the code leaves it out
    with torch.no_grad():
        nn.init.normal_(ours.query_key_value.bias)
        theirs.in_proj_weight.copy_(ours.query_key_value.weight)
        theirs.in_proj_bias.copy_(ours.query_key_value.bias)
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    assert torch.allclose(ours(X), theirs(X, X, X, need_weights=False)[0])
    assert torch.allclose(ours(torch.stack([X, 2 * X]))[0], ours(X))


def test_attention_over_the_batch_axis_mixes_samples_and_over_layers_does_not():
    X = features(5, 3, 8)
    other = X.clone()
    other[4] += 1
    layers, batch = MultiHeadAttention(8, 2, "layers").double(), MultiHeadAttention(8, 2, "batch").double()
    assert torch.allclose(layers(X)[:4], layers(other)[:4])
    assert not torch.allclose(batch(X)[:4], batch(other)[:4])
    alone = X[:, :1]
    assert torch.allclose(batch(X)[:, :1], batch(alone))  # layers are read one by one


def test_batch_normalisation_is_over_layers():
    module = NormalisedMultiHeadAttention(8, 2, 3).double()
    out = module(features(20, 3, 8))
    assert torch.allclose(out.mean((0, 2)), torch.zeros(3, dtype=torch.float64), atol=1e-9)
    module.eval()
    X = features(2, 4, 3, 8)
    assert torch.allclose(module(X)[1], module(X[1]))


def test_residual_attention_adds_its_input():
    module = ResidualMultiHeadAttention(8, 2).double()
    X = features(5, 3, 8)
    with torch.no_grad():
        module.attention.out.weight.zero_()
    assert torch.equal(module(X), X)


def test_heads_must_divide():
    with pytest.raises(InputError, match="3 heads do not divide 8"):
        MultiHeadAttention(8, 3)
    with pytest.raises(InputError, match="do not divide 3 query heads"):
        GroupedQueryAttention(8, 8, 3, 2, 4)


@pytest.mark.parametrize("per_query", [False, True])
def test_grouped_query_attention_is_that_of_the_code_and_of_the_citation(per_query):
    query_heads, key_heads, head, N = 4, 2, 3, 5
    module = GroupedQueryAttention(6, 8, query_heads, key_heads, head, per_query=per_query).double()
    X = features(N, 6)
    x = module.reduce(X).detach().numpy()
    Q, K, V = (layer(torch.from_numpy(x)).detach().numpy() for layer in (module.query, module.key, module.value))
    groups = query_heads // key_heads
    joined = []
    for key in range(key_heads):
        k, v = (part[:, key * head : (key + 1) * head] for part in (K, V))
        scores = [Q[:, q * head : (q + 1) * head] @ k.T for q in range(key * groups, (key + 1) * groups)]
        # The code: queries divided by sqrt(head), scores summed over the group, divided by sqrt(head) again.
        scores = (
            [s / math.sqrt(head) for s in scores] if per_query else [np.sum(scores, axis=0) / math.sqrt(head) / math.sqrt(head)]
        )
        for s in scores:
            weights = np.exp(s - s.max(1, keepdims=True))
            joined.append(weights / weights.sum(1, keepdims=True) @ v)
    expected = module.out(module.normalisation(torch.from_numpy(np.concatenate(joined, axis=1))))
    assert torch.allclose(module(X), expected)
    assert torch.allclose(module(torch.stack([X, X + 1]))[0], expected)


def test_convolutions_are_pytorchs():
    x, up, down = features(2, 3, 4, 5), features(7, 3, 3, 3, seed=1), features(3, 7, 3, 3, seed=2)
    bias_up, bias_down = features(7, seed=3), features(3, seed=4)
    hidden = convolution_up(x.movedim(1, -1), up, bias_up).movedim(-1, 1)
    assert torch.allclose(hidden, conv2d(x, up, bias_up, padding=1))
    out = convolution_down(hidden.movedim(1, -1), down, bias_down).movedim(-1, 1)
    assert torch.allclose(out, conv2d(hidden, down, bias_down, padding=1))


def test_decoder_is_the_papers():
    decoder = ConvolutionalDecoder(4, (2, 3), 5, 7).double()
    C = features(3, 4, 6)
    hidden = torch.relu(decoder.up(C.view(3, 4, 2, 3)))
    expected = decoder.classifier(torch.relu(decoder.down(hidden)).flatten(1))
    assert torch.allclose(decoder(C), expected)
    with pytest.raises(InputError, match="7 features make no picture of 2 x 3"):
        decoder(features(3, 4, 7))


@pytest.mark.parametrize(
    ("width", "shape"), [(1024, (32, 32)), (5120, (64, 80)), (384, (16, 24)), (192, (12, 16)), (7, (1, 7))]
)
def test_pictures_are_as_square_as_they_can_be(width, shape):
    assert picture(width) == shape


def test_linear_decoders():
    X = features(2, 3, 4)
    last, average, weighted = (LinearDecoder(3, 4, 5, pooling).double() for pooling in ("last", "average", "weighted"))
    assert torch.allclose(last(X), last.classifier(X[:, 2]))
    assert torch.allclose(average(X), average.classifier(X.mean(1)))
    with torch.no_grad():
        weighted.weights.copy_(torch.tensor([0.0, 1.0, 2.0]))
    e = np.exp([0.0, 1.0, 2.0])
    assert torch.allclose(weighted(X), weighted.classifier(torch.einsum("n,bnd->bd", torch.from_numpy(e / e.sum()), X)))
    with pytest.raises(InputError, match="pooling is 'max'"):
        LinearDecoder(3, 4, 5, "max")


def test_importance_factor_by_hand():
    IF = importance_factor(np.array([[0.2, 0.6], [1.0, 0.2]]))
    assert np.allclose(IF, [[0, 0.5], [1, 0]])
    assert np.allclose(layer_contributions(IF), [100 / 3, 200 / 3])
    assert np.allclose(layer_contributions(importance_factor(np.full((4, 3), 0.7))), 25)
    with pytest.raises(InputError, match="shape"):
        importance_factor(np.zeros(3))
    with pytest.raises(InputError, match="finite"):
        importance_factor(np.array([[np.nan, 1.0]]))


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_importance_lies_in_0_to_1_and_contributions_sum_to_100(seed, N, d):
    DA = np.random.default_rng(seed).random((N, d))
    IF = importance_factor(DA)
    assert IF.min() >= 0
    assert IF.max() <= 1
    assert layer_contributions(IF).sum() == pytest.approx(100)
    assert np.array_equal(np.argsort(IF, axis=None), np.argsort(DA, axis=None))


@pytest.mark.parametrize("name", get_args(ModelName))
def test_every_model_reads_batches_of_batches_and_learns(name):
    network = make_network(Method(model=name), SIZES, 4, 6, 3).eval()
    X = features(2, 5, 4, 6).float()
    out = network(X)
    assert out.shape == (2, 5, 3)
    assert torch.allclose(network(X[1]), out[1], atol=1e-6)
    out.square().sum().backward()
    assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in network.parameters())
    counts = parameter_counts(network)
    assert counts["attention"] + counts["decoder"] + counts["classifier"] == sum(x.numel() for x in network.parameters())


def test_the_gate_of_a_network_without_one_is_refused():
    with pytest.raises(InputError, match="no Gaussian gate"):
        make_network(Method(model="mha"), SIZES, 4, 6, 3)(torch.zeros(1, 4, 6), want_gate=True)
    X = torch.randn(3, 4, 6)
    network = make_network(Method(model="gqgaam", heads="parts"), SIZES, 4, 6, 3)
    assert torch.equal(network(X, want_gate=True), GaussianAttention(2, 6).gate(X))
    assert parameter_counts(network)["gate"] == 24
    assert parameter_counts(make_network(Method(model="gqgaam", gate=False), SIZES, 4, 6, 3))["gate"] == 0
