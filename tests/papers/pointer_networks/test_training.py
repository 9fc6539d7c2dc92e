"""Losses by hand, data sets in buckets, and three networks that learn a tiny set by heart."""

import math

import pytest
import torch

from common.errors import InputError
from common.training import train
from papers.pointer_networks.decoding import beam_search, greedy
from papers.pointer_networks.examples import END, PADDING, Examples
from papers.pointer_networks.pointer_networks import AttentionSequenceToSequence, PointerNetwork, SequenceToSequence
from papers.pointer_networks.recipes import FAITHFUL, MODERN, SequenceRecipe
from papers.pointer_networks.training import (
    buckets_of,
    make_network,
    sequence_loss,
    sequence_replica,
    steps_of,
)

FAST = SequenceRecipe(optimiser="adam", learning_rate=0.02, batch_size=8, clip_norm=2.0)


def sorted_points(n, count, seed=0):
    """Examples whose output names the points from left to right, leaving out those in the upper fifth of the square."""
    points = torch.rand(count, n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows = []
    for P in points.tolist():
        order = [j + 1 for j in sorted(range(n), key=lambda j: P[j][0]) if P[j][1] < 0.8]
        rows.append([*order, END] + [PADDING] * (n + 2 - len(order)))
    return Examples(points, torch.tensor(rows))


def test_losses_by_hand():
    probabilities = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], [[0.2, 0.4, 0.4], [0.3, 0.3, 0.4]]])
    sequences = torch.tensor([[1, END], [END, PADDING]])
    first, second, third = -math.log(0.25), -math.log(0.1), -math.log(0.2)
    logits = probabilities.log() + 3.0
    assert float(sequence_loss(logits, sequences)) == pytest.approx((first + second + third) / 3, abs=1e-6)
    assert float(sequence_loss(logits, sequences, "sequence")) == pytest.approx((first + second + third) / 2, abs=1e-6)


def test_the_loss_of_rounded_logits_is_computed_in_float32():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    sequences = torch.tensor([[1, 4, 0], [2, 0, -1]])
    rounded = logits.bfloat16()
    loss = sequence_loss(rounded, sequences)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(sequence_loss(rounded.double(), sequences)), rel=1e-6)


@pytest.mark.parametrize(("epochs", "expected"), [(1, 3), (10, 28), (0.001, 1)])
def test_steps_of_epochs(epochs, expected):
    buckets = {n: (torch.zeros(count, n, 2), torch.zeros(count, 3)) for n, count in ((3, 10), (4, 12))}
    assert steps_of(epochs, buckets, FAST) == expected


def test_buckets_leave_out_common_padding():
    data = sorted_points(4, 30)
    ((points, sequences),) = buckets_of({4: data}, "cpu").values()
    assert points.dtype == torch.float32
    assert torch.equal(points.double(), data.points.float().double())
    longest = int((data.sequences != PADDING).sum(1).max())
    assert sequences.shape == (30, longest)
    assert torch.equal(sequences, data.sequences[:, :longest])


def test_networks_by_name():
    networks = {
        PointerNetwork: make_network("pointer", 8, seed=1),
        AttentionSequenceToSequence: make_network("attention", 8, seed=1, length=5),
        SequenceToSequence: make_network("lstm", 8, seed=1, length=5),
    }
    for kind, network in networks.items():
        assert type(network) is kind
        assert network(torch.rand(2, 5, 2), torch.tensor([[1, 2, 0], [3, 0, -1]])).shape == (2, 3, 6)


def test_recipes_are_those_of_the_paper_and_of_today():
    assert (FAITHFUL.optimiser, FAITHFUL.batch_size, FAITHFUL.clip_norm, FAITHFUL.loss) == ("sgd", 128, 2.0, "token")
    assert {FAITHFUL.rate(step, 1000) for step in (0, 500, 999)} == {1.0}
    assert (MODERN.optimiser, MODERN.batch_size, MODERN.clip_norm) == ("adam", 128, 2.0)
    assert MODERN.rate(100, 1000) == pytest.approx(2e-3)
    assert MODERN.rate(999, 1000) == pytest.approx(2e-5)


def exact_share(network, data):
    """Share of examples whose greedy output is the expected one."""
    found = greedy(network, data.points.float(), max_length=data.sequences.shape[1]).sequences
    width = found.shape[1]
    right = (found == data.sequences[:, :width]).all(1) & (data.sequences[:, width:] == PADDING).all(1)
    return float(right.double().mean())


def teacher_forced_share(network, data):
    """Share of positions whose most probable value is the expected one."""
    with torch.no_grad():
        chosen = network(data.points.float(), data.sequences).argmax(-1)
    counted = data.sequences != PADDING
    return float((chosen == data.sequences)[counted].double().mean())


@pytest.mark.parametrize("method", ["pointer", "attention", "lstm"])
def test_a_tiny_set_is_learnt_by_heart(method):
    data = sorted_points(4, 8)
    network = make_network(method, 32, seed=0, length=None if method == "pointer" else 4)
    before = exact_share(network, data)
    replica = sequence_replica(method, network, FAST, buckets_of({4: data}, "cpu"), steps=300, order_seed=0)
    curve = train([replica])[method]
    assert before < 0.5
    assert teacher_forced_share(network, data) == 1.0
    assert exact_share(network, data) == 1.0
    beam = beam_search(network, data.points.float(), width=3, max_length=6).sequences
    assert torch.equal(beam, data.sequences[:, : beam.shape[1]])
    assert curve[-1]["loss"] < 1.0


def test_one_pointer_network_learns_several_lengths_from_the_fused_scores():
    data = {n: sorted_points(n, 6, seed=n) for n in (2, 3)}
    network = make_network("pointer", 32, seed=0, scores="fused")
    recipe = FAST.model_copy(update={"batch_size": 6})
    train([sequence_replica("pointer", network, recipe, buckets_of(data, "cpu"), steps=500, order_seed=0)])
    for examples in data.values():
        assert teacher_forced_share(network, examples) == 1.0
        assert exact_share(network, examples) == 1.0


def test_bad_input():
    data = sorted_points(3, 8)
    for call, message in [
        (lambda: make_network("pointer", 8, seed=0, length=5), "length is 5 for 'pointer'"),
        (lambda: make_network("lstm", 8, seed=0), "length is None for 'lstm'"),
        (lambda: make_network("attention", 8, seed=0), "length is None for 'attention'"),
        (lambda: buckets_of({4: data}, "cpu"), r"examples\[4\] has 3 points"),
        (
            lambda: sequence_replica("a", make_network("pointer", 8, seed=0), MODERN, buckets_of({3: data}, "cpu"),
                                     steps=1, order_seed=0),
            "bucket 3 has 8 examples and a batch takes 128",
        ),
        (
            lambda: sequence_replica("a", make_network("pointer", 8, seed=0), MODERN, {}, steps=1, order_seed=0),
            "buckets is empty",
        ),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_tiny_set_is_learnt_by_heart_on_gpu(precision):
    data = {n: sorted_points(n, 8, seed=n) for n in (3, 4)}
    buckets = buckets_of(data, "cuda")
    recipe = FAST.model_copy(update={"precision": precision})
    networks = {
        "plain": make_network("pointer", 32, seed=0),
        "fused": make_network("pointer", 32, seed=0, scores="fused"),
    }
    replicas = [sequence_replica(name, network, recipe, buckets, steps=800, order_seed=0) for name, network in networks.items()]
    fixed = {4: buckets[4]}
    for method in ("attention", "lstm"):
        networks[method] = make_network(method, 32, seed=0, length=4)
        replicas.append(sequence_replica(method, networks[method], recipe, fixed, steps=800, order_seed=0))
    train(replicas)
    for name, network in networks.items():
        for n in (3, 4) if name in ("plain", "fused") else (4,):
            assert exact_share(network, data[n].to("cuda")) == 1.0, (name, n)
