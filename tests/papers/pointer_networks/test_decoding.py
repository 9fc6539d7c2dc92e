"""Decoding against exhaustive enumeration, a beam search on Python lists, and examples worked by hand."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from papers.pointer_networks.decoding import ClosedPolygons, ClosedTours, beam_search, greedy
from papers.pointer_networks.examples import END, PADDING
from papers.pointer_networks.pointer_networks import (
    AttentionSequenceToSequence,
    DecoderState,
    PointerNetwork,
    SequenceToSequence,
)
from papers.pointer_networks.travelling_salesman import valid_tours

D = 5


def make(name, n, seed, spread=25.0):
    network = {
        "pointer": lambda: PointerNetwork(D, seed=seed),
        "attention": lambda: AttentionSequenceToSequence(D, n, seed=seed),
        "lstm": lambda: SequenceToSequence(D, n, seed=seed),
    }[name]().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(spread)  # far from uniform probabilities
    return network


def draw(B, n, seed):
    return torch.rand(B, n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def log_probability(network, P, sequence):
    """Of one sequence, from the teacher-forced pass."""
    logits = network(P[None], torch.tensor([sequence])).log_softmax(-1)[0]
    return float(sum(logits[i, position] for i, position in enumerate(sequence)))


def complete_sequences(n, max_length):
    """Everything a search may return: ends within max_length, or is cut there."""
    for m in range(max_length):
        for positions in itertools.product(range(1, n + 1), repeat=m):
            yield [*positions, END]
    for positions in itertools.product(range(1, n + 1), repeat=max_length):
        yield list(positions)


def tours(n):
    for order in itertools.permutations(range(1, n + 1)):
        yield [*order, order[0], END]


def polygons(n):
    for m in range(min(3, n), n + 1):
        for order in itertools.permutations(range(1, n + 1), m):
            yield [*order, order[0], END]


def padded(sequence, length):
    return sequence + [PADDING] * (length - len(sequence))


@pytest.mark.parametrize("name", ["pointer", "attention", "lstm"])
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_the_most_probable_of_all_sequences(name, seed):
    n, max_length = 3, 4
    network, points = make(name, n, seed), draw(3, n, seed)
    found = beam_search(network, points, width=200, max_length=max_length)
    for row, P in enumerate(points):
        scored = [(log_probability(network, P, s), s) for s in complete_sequences(n, max_length)]
        best, sequence = max(scored)
        assert found.sequences[row].tolist() == padded(sequence, found.sequences.shape[1])
        assert float(found.log_probabilities[row]) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(("constraint", "allowed", "n"), [(ClosedTours(), tours, 4), (ClosedPolygons(), polygons, 4)])
def test_a_wide_beam_finds_the_most_probable_of_the_allowed_sequences(constraint, allowed, n):
    network, points = make("pointer", n, 1), draw(4, n, 1)
    found = beam_search(network, points, width=200, max_length=n + 2, constraint=constraint)
    for row, P in enumerate(points):
        best, sequence = max((log_probability(network, P, s), s) for s in allowed(n))
        assert found.sequences[row].tolist() == padded(sequence, found.sequences.shape[1])
        assert float(found.log_probabilities[row]) == pytest.approx(best, abs=1e-9)


@torch.no_grad()
def beam_on_lists(network, P, width, max_length):
    """The definition: extend what has not ended, keep the `width` most probable."""
    beam = [(0.0, [])]
    for _ in range(max_length):
        extended = []
        for score, sequence in beam:
            if sequence and sequence[-1] == END:
                extended.append((score, sequence))
                continue
            step = network(P[None], torch.tensor([[*sequence, END]])).log_softmax(-1)[0, len(sequence)]
            extended += [(score + float(value), [*sequence, position]) for position, value in enumerate(step)]
        beam = sorted(extended, reverse=True)[:width]
    return beam[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.sampled_from(["pointer", "attention", "lstm"]), st.integers(0, 2**31))
def test_a_narrow_beam_is_that_of_the_definition(width, name, seed):
    n, max_length = 4, 7
    network, points = make(name, n, seed), draw(2, n, seed)
    found = beam_search(network, points, width=width, max_length=max_length)
    for row, P in enumerate(points):
        score, sequence = beam_on_lists(network, P, width, max_length)
        assert found.sequences[row].tolist() == padded(sequence, found.sequences.shape[1])
        assert float(found.log_probabilities[row]) == pytest.approx(score, abs=1e-9)


class TransitionTable:
    """A decoder whose next position depends on the last one only: probabilities [last or begin, next]."""

    def __init__(self, first, following):
        self.first, self.following = torch.tensor(first).log(), torch.tensor(following).log()

    def begin(self, points):
        return DecoderState(points, (), ())

    def step(self, state, previous):
        if previous is None:
            return self.first.expand(len(state.points), 1, -1), state
        return self.following[previous], state


TABLE = TransitionTable([0.1, 0.5, 0.4], [[1.0, 0.0, 0.0], [0.2, 0.4, 0.4], [0.9, 0.05, 0.05]])


def test_greedy_takes_the_nearest_and_a_beam_looks_further():
    points = torch.zeros(1, 2, 2)
    # Greedy: 1 (0.5), 1 (0.4), 1 (0.4), ...; the best is 2, end: 0.4 * 0.9.
    cut = greedy(TABLE, points, max_length=3)
    assert cut.sequences.tolist() == [[1, 1, 1]]
    assert float(cut.log_probabilities[0]) == pytest.approx(math.log(0.5 * 0.4 * 0.4), abs=1e-6)
    found = beam_search(TABLE, points, width=2, max_length=20)
    assert found.sequences.tolist() == [[2, END]]
    assert float(found.log_probabilities[0]) == pytest.approx(math.log(0.36), abs=1e-6)


def test_an_ended_hypothesis_gives_way_only_to_more_probable_ones():
    table = TransitionTable([0.3, 0.7, 0.0], [[1.0, 0.0, 0.0], [0.0, 0.1, 0.9], [0.9, 0.1, 0.0]])
    found = beam_search(table, torch.zeros(2, 2, 2), width=2, max_length=30)
    assert found.sequences.tolist() == [[1, 2, END]] * 2  # 0.567, though the end alone (0.3) came first
    assert float(found.log_probabilities[0]) == pytest.approx(math.log(0.7 * 0.9 * 0.9), abs=1e-6)


@pytest.mark.parametrize("max_length", [1, 2, 8, 9, 40])
def test_examples_end_at_different_lengths(max_length):
    network, points = make("pointer", 5, 3, spread=40.0), draw(50, 5, 3)
    found = greedy(network, points, max_length=max_length)
    lengths = (found.sequences != PADDING).sum(1)
    assert found.sequences.shape[1] == int(lengths.max()) <= max_length
    for P, row, value in zip(points, found.sequences.tolist(), found.log_probabilities.tolist(), strict=True):
        sequence = [position for position in row if position != PADDING]
        assert row == padded(sequence, len(row))
        assert END not in sequence[:-1]
        assert sequence[-1] == END or len(sequence) == max_length
        assert value == pytest.approx(log_probability(network, P, sequence), abs=1e-9)
        for i in range(len(sequence)):
            step = network(P[None], torch.tensor([[*sequence[:i], END]]))[0, i]
            assert sequence[i] == int(step.argmax())


def test_batches_do_not_change_the_result():
    network, points = make("pointer", 6, 4, spread=40.0), draw(11, 6, 4)
    whole = beam_search(network, points, width=3, max_length=12)
    parts = beam_search(network, points, width=3, max_length=12, batch_size=4)
    assert torch.equal(whole.sequences, parts.sequences)
    torch.testing.assert_close(whole.log_probabilities, parts.log_probabilities)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 7), st.integers(1, 3), st.integers(0, 2**31))
def test_constrained_outputs_are_valid(n, width, seed):
    network, points = make("pointer", n, seed), draw(6, n, seed)
    found = beam_search(network, points, width=width, max_length=n + 2, constraint=ClosedTours())
    for row in found.sequences.tolist():
        assert sorted(row[:n]) == list(range(1, n + 1))
        assert row[n:] == [row[0], END]
    if n >= 3:
        assert bool(valid_tours(points, found.sequences).all())
    found = beam_search(network, points, width=width, max_length=n + 2, constraint=ClosedPolygons())
    for row in found.sequences.tolist():
        end = row.index(END)
        assert end - 1 >= min(3, n)
        assert len(set(row[: end - 1])) == end - 1
        assert row[end - 1] == row[0]


def test_constraints_by_hand():
    def allowed(constraint, prefix, n):
        mask = constraint.allowed(torch.tensor(prefix, dtype=torch.int64).view(1, 1, -1), n)
        assert mask.shape == (1, 1, n + 1)
        return mask[0, 0].nonzero()[:, 0].tolist()

    tour, polygon = ClosedTours(), ClosedPolygons()
    assert allowed(tour, [], 4) == allowed(polygon, [], 4) == [1, 2, 3, 4]
    assert allowed(tour, [2, 4], 4) == allowed(polygon, [2, 4], 4) == [1, 3]
    assert allowed(tour, [2, 4, 1], 4) == [3]
    assert allowed(polygon, [2, 4, 1], 4) == [2, 3]
    assert allowed(tour, [2, 4, 1, 3], 4) == allowed(polygon, [2, 4, 1, 3], 4) == [2]
    assert allowed(tour, [2, 4, 1, 3, 2], 4) == allowed(polygon, [2, 4, 1, 2], 4) == [END]
    assert allowed(polygon, [1, 2], 2) == [1]


def test_bad_input():
    network, points = make("pointer", 3, 0), draw(2, 3, 0)
    for call, message in [
        (lambda: beam_search(network, points, width=0, max_length=4), "width is 0; it must be a positive integer"),
        (lambda: greedy(network, points, max_length=0), "max_length is 0; it must be a positive integer"),
        (lambda: greedy(network, points, max_length=4, batch_size=-1), "batch_size is -1"),
        (lambda: greedy(network, points[0], max_length=4), r"points has shape \(3, 2\); expected \[B, n, 2\]"),
        (lambda: greedy(network, points[:0], max_length=4), r"points has shape \(0, 3, 2\); expected \[B, n, 2\]"),
    ]:
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.gpu
def test_long_inputs_in_large_batches_on_gpu():
    network = PointerNetwork(256, seed=0, scores="fused").cuda()
    points = torch.rand(2000, 500, 2, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    found = beam_search(network, points, width=3, max_length=30, constraint=ClosedPolygons())
    assert found.sequences.shape == (2000, 30)
    every_key_of_every_step = 2000 * 3 * 30 * 501 * 256 * 4
    assert torch.cuda.max_memory_allocated() < every_key_of_every_step / 8
