"""Points and sequences: what is accepted, and the ways of writing a cycle."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from papers.pointer_networks.examples import (
    Examples,
    canonical_cycles,
    close_cycles,
    join_sequences,
    open_cycles,
    output_lengths,
)

POINTS = torch.rand(2, 4, 2, generator=torch.Generator().manual_seed(0))
SEQUENCES = torch.tensor([[1, 2, 3, 1, 0, -1], [1, 3, 4, 2, 1, 0]])


def test_examples_are_taken_by_slice_position_and_mask():
    examples = Examples(POINTS, SEQUENCES)
    assert (len(examples), examples.size) == (2, 4)
    assert torch.equal(examples[1:].points, POINTS[1:])
    assert torch.equal(examples[torch.tensor([1, 0])].sequences, SEQUENCES.flip(0))
    assert torch.equal(examples[torch.tensor([False, True])].sequences, SEQUENCES[1:])


def test_the_digest_tells_every_change():
    examples = [
        Examples(POINTS, SEQUENCES),
        Examples(POINTS.double(), SEQUENCES),
        Examples(POINTS.flip(0), SEQUENCES),
        Examples(POINTS, SEQUENCES.flip(0)),
        Examples(POINTS, torch.cat([SEQUENCES, torch.full((2, 1), -1)], 1)),
    ]
    assert len({each.digest() for each in examples}) == len(examples)
    assert Examples(POINTS.clone(), SEQUENCES.clone()).digest() == examples[0].digest()
    assert len(examples[0].digest()) == 64


@pytest.mark.parametrize(
    ("points", "sequences", "message"),
    [
        (POINTS[0], SEQUENCES, r"points has shape \(4, 2\)"),
        (POINTS[:0], SEQUENCES[:0], "B >= 1"),
        (POINTS.long(), SEQUENCES, "torch.int64; expected a floating-point"),
        (POINTS / 0, SEQUENCES, "NaN or infinite"),
        (POINTS, SEQUENCES.int(), "sequences has dtype torch.int32"),
        (POINTS, SEQUENCES[:1], r"expected \[2, m\]"),
        (POINTS, SEQUENCES + 1, "from 0 to 5"),
        (POINTS, SEQUENCES - 1, "from -2 to 3"),
        (POINTS, SEQUENCES.to("meta"), "sequences is on meta"),
        (POINTS, torch.tensor([[1, 2, 3, 1], [1, 2, 0, -1]]), "row 0"),
        (POINTS, torch.tensor([[1, 2, 0, -1], [1, 0, 2, -1]]), "row 1"),
        (POINTS, torch.tensor([[1, 2, 0, -1], [1, -1, 2, 0]]), "row 1"),
        (POINTS, torch.tensor([[1, 2, 0, 0], [1, 2, 3, 0]]), "row 0"),
    ],
)
def test_what_examples_refuse(points, sequences, message):
    with pytest.raises(InputError, match=message):
        Examples(points, sequences)


def test_lengths_of_outputs_that_end_and_that_do_not():
    sequences = torch.tensor([[2, 1, 0, 3], [2, 1, 3, 4], [0, 1, 2, 3], [2, -1, 0, 3]])
    lengths, ended = output_lengths(sequences)
    assert lengths.tolist() == [2, 4, 0, 1]
    assert ended.tolist() == [True, False, True, False]


def test_opening_drops_the_closing_position_only():
    sequences = torch.tensor([[3, 1, 2, 3, 0], [3, 1, 2, 0, -1], [3, 0, 1, 1, 1], [0, -1, -1, -1, -1], [3, 1, 3, 1, 2]])
    cycles, lengths, ended = open_cycles(sequences)
    assert cycles[:, :3].tolist() == [[3, 1, 2], [3, 1, 2], [3, -1, -1], [-1, -1, -1], [3, 1, 3]]
    assert lengths.tolist() == [3, 3, 1, 0, 5]
    assert ended.tolist() == [True, True, True, True, False]


@given(st.permutations(range(1, 7)), st.integers(1, 6), st.integers(0, 5), st.booleans())
def test_every_writing_of_a_cycle_has_one_canonical_form(permutation, length, start, backwards):
    cycle = list(permutation[:length])
    turned = cycle[start % length :] + cycle[: start % length]
    turned = turned[::-1] if backwards else turned
    both = torch.tensor([cycle + [-1] * (6 - length), turned + [-1] * (6 - length)])
    lengths = torch.tensor([length, length])
    first, second = canonical_cycles(both, lengths, either_direction=True).tolist()
    assert first == second
    assert first[0] == min(cycle)
    assert sorted(first[:length]) == sorted(cycle)
    assert length < 3 or first[1] < first[length - 1]
    if not backwards:
        first, second = canonical_cycles(both, lengths, either_direction=False).tolist()
        assert first == second
        assert first[1 % length] == cycle[(cycle.index(min(cycle)) + 1) % length]


@given(st.permutations(range(1, 7)), st.lists(st.integers(2, 6), min_size=1, max_size=4))
def test_closing_and_opening_are_inverse(permutation, lengths):
    width = max(lengths)
    cycles = torch.tensor([list(permutation[:length]) + [-1] * (width - length) for length in lengths])
    closed = close_cycles(cycles, torch.tensor(lengths))
    assert closed.shape == (len(lengths), width + 2)
    opened, found, ended = open_cycles(closed)
    assert torch.equal(opened[:, :width], cycles)
    assert found.tolist() == lengths
    assert bool(ended.all())


def test_joining_pads():
    joined = join_sequences([torch.tensor([[1, 0]]), torch.tensor([[1, 2, 0]])])
    assert joined.tolist() == [[1, 0, -1], [1, 2, 0]]
