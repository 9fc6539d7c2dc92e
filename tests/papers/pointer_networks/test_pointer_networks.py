"""The three networks against their equations, written here in float64 one example, position and key at a time."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from papers.pointer_networks.pointer_networks import (
    AttentionSequenceToSequence,
    PointerNetwork,
    SequenceToSequence,
)

D, N = 6, 4


def make(name, seed=0, n=N):
    network = {
        "pointer": lambda: PointerNetwork(D, seed=seed),
        "fused": lambda: PointerNetwork(D, seed=seed, scores="fused"),
        "attention": lambda: AttentionSequenceToSequence(D, n, seed=seed),
        "lstm": lambda: SequenceToSequence(D, n, seed=seed),
    }[name]().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(12)  # far from the linear region
    return network


NAMES = ["pointer", "fused", "attention", "lstm"]


def examples(B=3, n=N, m=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(B, n, 2, generator=g, dtype=torch.float64), torch.randint(1, n + 1, (B, m), generator=g)


def cell(weights, x, h, c):
    """Gates of an LSTM in PyTorch's order: input, forget, cell, output."""
    W_ih, W_hh, b_ih, b_hh = weights
    i, f, g, o = (W_ih @ x + b_ih + W_hh @ h + b_hh).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def expected_logits(network, points, sequences):
    p = dict(network.named_parameters())

    def weights(part):
        end = "" if f"{part}.weight_ih" in p else "_l0"
        return [p[f"{part}.{name}{end}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def attention(e, d):
        return torch.stack([p["v"] @ torch.tanh(p["W_1.weight"] @ e_j + p["W_2.weight"] @ d) for e_j in e])

    rows = []
    for P, C in zip(points, sequences.tolist(), strict=True):
        h = c = torch.zeros(D, dtype=torch.float64)
        e = []
        for point in P:
            h, c = cell(weights("encoder"), point, h, c)
            e.append(h)
        blend, row = torch.zeros(D, dtype=torch.float64), []
        for i in range(len(C)):
            x = p["start"] if i == 0 else P[C[i - 1] - 1]
            if isinstance(network, AttentionSequenceToSequence):
                h, c = cell(weights("decoder"), torch.cat([x, blend]), h, c)
                a = attention(e, h).softmax(0)
                blend = torch.stack([a_j * e_j for a_j, e_j in zip(a, e, strict=True)]).sum(0)
                row.append(p["W.weight"] @ torch.cat([h, blend]))
                continue
            h, c = cell(weights("decoder"), x, h, c)
            row.append(attention([p["end"], *e], h) if isinstance(network, PointerNetwork) else p["W.weight"] @ h)
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_equations(name):
    network = make(name)
    points, sequences = examples()
    logits = network(points, sequences)
    assert logits.shape == (3, 5, N + 1)
    torch.testing.assert_close(logits, expected_logits(network, points, sequences), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_equations(name):
    network = make(name)
    points, sequences = examples()
    weights = torch.randn(3, 5, N + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    actual = torch.autograd.grad((network(points, sequences) * weights).sum(), list(network.parameters()))
    expected = torch.autograd.grad((expected_logits(network, points, sequences) * weights).sum(), list(network.parameters()))
    for (parameter, _), a, e in zip(network.named_parameters(), actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-12, msg=lambda text, parameter=parameter: f"{parameter}: {text}")
        assert float(a.abs().max()) > 0, f"{parameter} has no gradient"


@pytest.mark.parametrize("name", NAMES)
def test_steps_give_the_probabilities_of_the_whole_sequence(name):
    network = make(name)
    points, sequences = examples()
    expected = network(points, sequences).log_softmax(-1)
    state, previous = network.begin(points), None
    for i in range(sequences.shape[1]):
        step, state = network.step(state, previous)
        torch.testing.assert_close(step[:, 0], expected[:, i], rtol=1e-10, atol=1e-12)
        previous = sequences[:, i : i + 1]


@pytest.mark.parametrize("name", NAMES)
def test_hypotheses_are_independent_and_can_be_reordered(name):
    network = make(name)
    points, _ = examples()
    paths = torch.tensor([[[1, 2], [3, 1], [2, 2]]]).expand(3, -1, -1)  # three hypotheses of two positions
    _, state = network.step(network.begin(points), None)
    state = state.select(torch.zeros(3, 3, dtype=torch.int64))
    _, state = network.step(state, paths[:, :, 0])
    order = torch.tensor([[2, 0, 1], [0, 0, 2], [1, 2, 0]])
    step, _ = network.step(state.select(order), paths[:, :, 1].gather(1, order))
    for w in range(3):
        chosen = paths[torch.arange(3), order[:, w]]
        whole = network(points, torch.cat([chosen, chosen[:, :1]], dim=1)).log_softmax(-1)
        torch.testing.assert_close(step[:, w], whole[:, 2], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 4), st.integers(0, 2**31))
def test_no_position_sees_itself_or_later_ones(name, i, seed):
    network = make(name)
    points, sequences = examples(seed=seed)
    changed = sequences.clone()
    changed[:, i:] = torch.randint(-1, N + 1, changed[:, i:].shape, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(network(points, sequences)[:, : i + 1], network(points, changed)[:, : i + 1])


@pytest.mark.parametrize("n", [1, 3, 9])
def test_a_pointer_network_takes_any_number_of_points(n):
    network = make("pointer")
    points, sequences = examples(n=n)
    torch.testing.assert_close(network(points, sequences), expected_logits(network, points, sequences), rtol=1e-10, atol=1e-12)


def test_fused_and_plain_scores_have_the_same_parameters_and_results():
    plain, fused = make("pointer"), make("fused")
    points, sequences = examples()
    torch.testing.assert_close(plain(points, sequences), fused(points, sequences), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_bfloat16_autocast_stays_near(name):
    network = make(name).float()
    points, sequences = examples()
    exact = network(points.float(), sequences)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = network(points.float(), sequences)
        state = network.begin(points.float())
        first, _ = network.step(state, None)
    assert float((rounded.float() - exact).abs().max()) < 0.05 * float(exact.abs().max())
    assert first.dtype == torch.float32
    torch.testing.assert_close(first.exp().sum(-1), torch.ones(3, 1))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_drawn_uniformly_from_its_seed(name):
    size = 64

    def build(seed):
        return {
            "pointer": lambda: PointerNetwork(size, seed=seed),
            "fused": lambda: PointerNetwork(size, seed=seed, scores="fused"),
            "attention": lambda: AttentionSequenceToSequence(size, N, seed=seed),
            "lstm": lambda: SequenceToSequence(size, N, seed=seed),
        }[name]()

    torch.manual_seed(1)
    first = build(5)
    torch.manual_seed(2)  # the global generator has no part in it
    again, other = build(5), build(6)
    for (parameter, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), parameter
        assert not torch.equal(a, c), parameter
        assert float(a.detach().abs().max()) <= 0.08
        if a.numel() >= 64:
            assert float(a.detach().std()) == pytest.approx(0.16 / 12**0.5, rel=0.25), parameter
    values = torch.cat([parameter.detach().flatten() for parameter in first.parameters()])
    assert float(values.max()) > 0.0799
    assert float(values.min()) < -0.0799


def test_bad_input():
    points, sequences = examples()
    pointer, lstm, attention = make("pointer"), make("lstm"), make("attention")
    unknown: Any = "fast"
    for call, message in [
        (lambda: PointerNetwork(0, seed=0), "hidden_size is 0; it must be a positive integer"),
        (lambda: SequenceToSequence(4, 0, seed=0), "length is 0; it must be a positive integer"),
        (lambda: PointerNetwork(4, seed=0, scores=unknown), "scores is 'fast'; choose 'plain' or 'fused'"),
        (lambda: AttentionSequenceToSequence(4, 3, seed=0, scores=unknown), "scores is 'fast'; choose"),
        (lambda: pointer(points[0], sequences), r"points has shape \(4, 2\); expected \[B, n, 2\]"),
        (lambda: pointer.begin(points[:, :0]), r"points has shape \(3, 0, 2\); expected \[B, n, 2\]"),
        (lambda: pointer(points, sequences.int()), r"sequences is torch.int32 .* expected int64 \[3, m\]"),
        (lambda: pointer(points, sequences[:2]), r"with shape \(2, 5\); expected int64 \[3, m\]"),
        (lambda: lstm(points[:, :3], sequences), r"fixed vocabulary and takes \[B, 4, 2\] only"),
        (lambda: lstm.begin(points[:, :3]), r"fixed vocabulary and takes \[B, 4, 2\] only"),
        (lambda: attention(points[:, :3], sequences), r"fixed vocabulary and takes \[B, 4, 2\] only"),
    ]:
        with pytest.raises(InputError, match=message):
            call()
