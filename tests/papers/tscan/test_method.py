"""Each block of TSCAN against a loop-written version of its equations in float64; masks, padding, constant input."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from common.errors import InputError
from papers.tscan.fusion import FUSIONS, Fusion, mean_over_hours
from papers.tscan.multi_head_attention import MultiHeadAttention, causal_mask, positional_encoding, received_attention
from papers.tscan.temporal_spatial import CODE, PAPER, TSCAN, Branch, Encoder, Fuse, Sizes
from papers.tscan.variants import VARIANTS, variant_named

SIZES = Sizes(E=8, heads=2, feed_forward=6, dropout=0.3)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights_of(layer):
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def dense(layer, x):
    W, b = weights_of(layer)
    return [sum(W[i][j] * x[j] for j in range(len(x))) + b[i] for i in range(len(b))]


def loop_attention(mha, Q, K, V, hidden):
    """One example, head by head and query by query; hidden(i, j) says that query i may not see key j."""
    q, k, v = ([dense(layer, x) for x in X] for layer, X in ((mha.W_q, Q), (mha.W_k, K), (mha.W_v, V)))
    size = len(q[0]) // mha.heads
    outputs, weights = [], np.zeros((mha.heads, len(q), len(k)))
    for i in range(len(q)):
        joined = []
        for h in range(mha.heads):
            part = slice(h * size, (h + 1) * size)
            scores = [
                -1e9 if hidden(i, j) else sum(a * b for a, b in zip(q[i][part], k[j][part], strict=True)) / math.sqrt(size)
                for j in range(len(k))
            ]
            exponentials = [math.exp(score - max(scores)) for score in scores]
            weights[h, i] = [e / sum(exponentials) for e in exponentials]
            joined += [sum(weights[h, i, j] * v[j][part][c] for j in range(len(k))) for c in range(size)]
        outputs.append(dense(mha.W_o, joined))
    return outputs, weights


def loop_norm(norm, x):
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    g, b = weights_of(norm)
    return [(value - mean) / math.sqrt(variance + 1e-6) * g[i] + b[i] for i, value in enumerate(x)]


def loop_mlp(layers, x):
    return dense(layers[2], [max(0.0, value) for value in dense(layers[0], x)])


def add(a, b):
    return [x + y for x, y in zip(a, b, strict=True)]


def loop_encoder(encoder, X, hidden):
    a, _ = loop_attention(encoder.attention, X, X, X, hidden)
    x = [loop_norm(encoder.LN1, add(*pair)) for pair in zip(X, a, strict=True)]
    return [loop_norm(encoder.LN2, add(row, loop_mlp(encoder.FFN, row))) for row in x]


def loop_fuse(fuse, U, Z, hidden, cross_hidden):
    a, _ = loop_attention(fuse.MHA_self, U, U, U, hidden)
    q = [loop_norm(fuse.LN1, add(*pair)) for pair in zip(U, a, strict=True)]
    V = Z if fuse.MLP is None else [loop_mlp(fuse.MLP, [*q_t, *z_t]) for q_t, z_t in zip(q, Z, strict=True)]
    c, _ = loop_attention(fuse.MHA_cross, q, Z, V, cross_hidden)
    norm = fuse.LN1 if fuse.LN1_cross is None else fuse.LN1_cross
    r = [loop_norm(norm, add(*pair)) for pair in zip(q, c, strict=True)]
    return [loop_norm(fuse.LN2, add(row, loop_mlp(fuse.FFN, row))) for row in r]


def see_all(i, j):
    return False


def later(i, j):
    return j > i


def perturbed(module, seed=0):
    """In float64 and evaluation mode, every parameter moved, so that norms and biases take part."""
    module = module.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


@pytest.mark.parametrize("width", [1, 2, 5, 12, 45])
def test_the_positional_encoding_has_sines_first_then_cosines(width):
    found = positional_encoding(7, width)
    frequencies = [10000 ** (-2 * (i // 2) / width) for i in range(width)]
    for position in range(7):
        sines = [math.sin(position * frequencies[i]) for i in range(0, width, 2)]
        cosines = [math.cos(position * frequencies[i]) for i in range(1, width, 2)]
        np.testing.assert_allclose(found[position], [*sines, *cosines], atol=1e-6)


@pytest.mark.parametrize(("mask", "hidden"), [(None, see_all), (causal_mask(4), later)])
def test_attention_equals_loops(mask, hidden):
    mha = perturbed(MultiHeadAttention(5, 3, 8, 2))
    Q, K, V = drawn(2, 4, 5), drawn(2, 4, 5, seed=1), drawn(2, 4, 3, seed=2)
    outputs, weights = mha(Q, K, V, mask)
    for b in range(2):
        expected, expected_weights = loop_attention(mha, Q[b].tolist(), K[b].tolist(), V[b].tolist(), hidden)
        np.testing.assert_allclose(outputs[b].detach(), expected, atol=1e-10)
        np.testing.assert_allclose(weights[b].detach(), expected_weights, atol=1e-10)
    received = received_attention(weights)
    np.testing.assert_allclose(received.detach(), weights.detach().numpy().sum((1, 2)) / 8, atol=1e-12)


def test_a_query_that_may_see_nothing_sees_all_alike():
    mha = perturbed(MultiHeadAttention(5, 5, 8, 2))
    x = drawn(1, 3, 5)
    _, weights = mha(x, x, x, torch.ones(3, 3, dtype=torch.bool))
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 3))


def test_heads_must_divide():
    with pytest.raises(InputError, match="E is 10 and heads 4"):
        MultiHeadAttention(5, 5, 10, 4)


@pytest.mark.parametrize(("mask", "hidden"), [(None, see_all), (causal_mask(4), later)])
def test_the_encoder_equals_loops(mask, hidden):
    encoder = perturbed(Encoder(5, SIZES))
    x = drawn(2, 4, 5)
    found, _ = encoder(x, mask)
    for b in range(2):
        np.testing.assert_allclose(found[b].detach(), loop_encoder(encoder, x[b].tolist(), hidden), atol=1e-9)


@pytest.mark.parametrize(("variant", "mask", "hidden"), [(PAPER, None, see_all), (CODE, causal_mask(4), later)])
def test_the_fuse_block_equals_loops(variant, mask, hidden):
    fuse = perturbed(Fuse(5, SIZES, variant))
    u, z = drawn(2, 4, 5), drawn(2, 4, 5, seed=1)
    found, _ = fuse(u, z, mask, mask)
    for b in range(2):
        expected = loop_fuse(fuse, u[b].tolist(), z[b].tolist(), hidden, hidden)
        np.testing.assert_allclose(found[b].detach(), expected, atol=1e-9)
    assert (fuse.LN1_cross is None) == variant.shared_norm
    assert (fuse.MLP is None) == (variant.value == "state")


@pytest.mark.parametrize("variant", [PAPER, CODE])
def test_the_whole_network_goes_through_segments_of_both_branches(variant):
    T, d, n = 8, 3, 4
    variant = replace(variant, fusion="concatenation_of_hours")
    network = perturbed(TSCAN(T, d, 2, SIZES, variant))
    X = drawn(2, T, d)
    hidden_t, hidden_s = (later if causal else see_all for causal in (variant.causal_hours, variant.causal_variables))
    for b in range(2):
        ends = []
        for branch, transpose, hidden in ((network.temporal, False, hidden_t), (network.spatial, True, hidden_s)):
            assert branch is not None
            segments = [X[b, j * T // n : (j + 1) * T // n] for j in range(n)]
            segments = [(s.T if transpose else s) + branch.PE for s in segments]
            z = loop_encoder(branch.encoder, segments[0].tolist(), hidden)
            for segment, fuse in zip(segments[1:], branch.fuse, strict=True):
                z = loop_fuse(fuse, segment.tolist(), z, hidden, hidden)
            ends += list(map(list, zip(*z, strict=True))) if transpose else z
        mean = [sum(row[c] for row in ends) / len(ends) for c in range(d)]
        np.testing.assert_allclose(network(X)[b].detach(), dense(network.head.dense, mean), atol=1e-8)


def test_causal_hours_hide_later_ones_inside_a_segment_and_the_plain_ones_do_not():
    for causal in (True, False):
        branch = perturbed(Branch(4, 5, SIZES, replace(CODE, segments=2), causal=causal))
        X = [drawn(1, 4, 5), drawn(1, 4, 5, seed=1)]
        changed = [X[0].clone(), X[1].clone()]
        changed[0][:, 3] += 1  # the last hour of both segments
        changed[1][:, 3] += 1
        same = torch.allclose(branch(X)[0][:, :3], branch(changed)[0][:, :3])
        assert same == causal


def test_padded_hours_are_hidden_by_the_papers_variant_and_attended_by_the_codes():
    X, present = drawn(3, 8, 5), torch.ones(3, 8, dtype=torch.bool)
    present[:, :3] = False
    other = X.clone()
    other[:, :3] = 100 * drawn(3, 3, 5, seed=5)
    temporal = {"branches": "temporal", "segments": 2}
    hides = perturbed(TSCAN(8, 5, 1, SIZES, replace(PAPER, **temporal)))
    torch.testing.assert_close(hides(X, present), hides(other, present))
    attends = perturbed(TSCAN(8, 5, 1, SIZES, replace(CODE, **temporal)))
    assert not torch.allclose(attends(X, present), attends(other, present))
    torch.testing.assert_close(hides(X, torch.ones_like(present)), hides(X))


def test_mean_over_hours_counts_the_present_and_all_where_none_is():
    z = drawn(2, 3, 2)
    present = torch.tensor([[False, True, True], [False, False, False]])
    found = mean_over_hours(z, present)
    torch.testing.assert_close(found[0], (z[0, 1] + z[0, 2]) / 2)
    torch.testing.assert_close(found[1], z[1].mean(0))


def test_without_carry_over_earlier_segments_do_not_matter():
    variant = replace(CODE, segments=2, carry=False)
    network = perturbed(TSCAN(8, 5, 1, SIZES, variant))
    X = drawn(2, 8, 5)
    other = X.clone()
    other[:, :4] += 1
    torch.testing.assert_close(network(X), network(other))
    carrying = perturbed(TSCAN(8, 5, 1, SIZES, replace(variant, carry=True)))
    assert not torch.allclose(carrying(X), carrying(other))


@pytest.mark.parametrize("name", get_args(Fusion))
def test_each_fusion_equals_its_formula(name):
    head = perturbed(FUSIONS[name](3, 2, 0.3))
    z = [drawn(2, 4, 3), drawn(2, 4, 3, seed=1)]
    found = head(z, None)
    for b in range(2):
        t, s = z[0][b].mean(0).tolist(), z[1][b].mean(0).tolist()
        if name == "maximum":
            expected = [max(pair) for pair in zip(dense(head.dense[0], t), dense(head.dense[1], s), strict=True)]
        else:
            joined = {
                "concatenation_of_hours": [(x + y) / 2 for x, y in zip(t, s, strict=True)],
                "concatenation_of_variables": [*t, *s],
                "addition": add(t, s),
                "bilinear": [
                    sum(float(z[0][b, h, i] * z[1][b, h, j]) for h in range(4)) / 4 for i in range(3) for j in range(3)
                ],
            }[name]
            expected = dense(head.dense, joined)
        np.testing.assert_allclose(found[b].detach(), expected, atol=1e-10)


def test_constant_variables_and_missing_values_put_in_as_zero_give_finite_gradients():
    for variant in (PAPER, CODE):
        network = TSCAN(8, 5, 1, SIZES, variant)
        X = torch.zeros(2, 8, 5)
        X[:, :, 0] = 3.0
        network(X).sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_received_attention_sums_to_one_in_every_segment():
    network = perturbed(TSCAN(8, 5, 1, SIZES, PAPER))
    _, received = network(drawn(2, 8, 5), attention=True)
    torch.testing.assert_close(received.hours.unflatten(1, (4, 2)).sum(2), torch.ones(2, 4, dtype=torch.float64))
    torch.testing.assert_close(received.variables.sum(2), torch.ones(2, 4, dtype=torch.float64))


def test_segments_must_divide_the_hours_and_variants_are_known():
    with pytest.raises(InputError, match="segments is 4 and T is 10"):
        TSCAN(10, 5, 1, SIZES, PAPER)
    with pytest.raises(InputError, match="no variant 'papre'"):
        variant_named("papre")
    for variant in VARIANTS.values():
        assert TSCAN(16, 5, 2, SIZES, variant)(torch.zeros(1, 16, 5)).shape == (1, 2)
