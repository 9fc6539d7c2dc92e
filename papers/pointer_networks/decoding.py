"""Decoding: the most probable output sequences of a network, by beam search (arXiv 1506.03134, Sections 2.1 and 4).

A beam keeps the `width` most probable hypotheses of each example; width 1 is greedy decoding. Hypotheses of different length
compare their summed log-probability, without normalisation by length. A hypothesis that has ended keeps its place as long as
it is among the most probable. Log-probabilities only fall, so the search stops when the best hypothesis of every example has
ended.

A *constraint* says which positions may follow a prefix; forbidden ones are passed over, and the probabilities of the rest are
not normalised again. The paper restricts the travelling salesman's beam to valid tours (`ClosedTours`) and decodes the other
tasks without constraint; `ClosedPolygons` is ours, for comparison.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.checks import check_positive_int
from papers.pointer_networks.examples import END, PADDING, join_sequences
from papers.pointer_networks.pointer_networks import DecoderState

CHECK_EVERY = 8
"""Steps between two looks at whether all examples have ended: a look waits for the device."""


class Decoder(Protocol):
    """What decoding asks of a network: the three of `pointer_networks` have it."""

    def begin(self, points: Tensor) -> DecoderState:
        """The state of the empty output of points [B, n, 2]."""
        ...

    def step(self, state: DecoderState, previous: Tensor | None) -> tuple[Tensor, DecoderState]:
        """Log-probabilities [B, w, n + 1] of what follows `previous` [B, w], and the next state."""
        ...


class Constraint(Protocol):
    """Which positions may follow."""

    def allowed(self, prefixes: Tensor, n: int) -> Tensor:
        """Positions that may follow.

        Args:
            prefixes: int64 [B, w, i], the hypotheses so far; what follows one that has ended is not asked.
            n: points of an example.

        Returns:
            bool [B, w, n + 1], at least one position of a hypothesis that has not ended.
        """
        ...


@dataclass(frozen=True)
class ClosedTours:
    """Valid tours: every position once, then the first again, then the end."""

    def allowed(self, prefixes: Tensor, n: int) -> Tensor:
        """As in `Constraint`."""
        return _closed_cycles(prefixes, n, fewest=n)


@dataclass(frozen=True)
class ClosedPolygons:
    """Polygons: no position twice; the first again after three positions or more, then the end."""

    def allowed(self, prefixes: Tensor, n: int) -> Tensor:
        """As in `Constraint`."""
        return _closed_cycles(prefixes, n, fewest=min(3, n))


def _closed_cycles(prefixes: Tensor, n: int, fewest: int) -> Tensor:
    """Positions not visited, and the first one from `fewest` on; after it only the end."""
    visited = torch.zeros(*prefixes.shape[:2], n + 1, dtype=torch.bool, device=prefixes.device)
    visited[..., END] = True
    i = prefixes.shape[2]
    if i == 0:
        return ~visited
    visited = visited.scatter(2, prefixes.clamp_min(END), True)
    first = prefixes[:, :, :1]
    allowed = (~visited).scatter(2, first.clamp_min(END), i >= fewest)
    only_end = torch.zeros_like(visited).index_fill(2, torch.tensor(END, device=visited.device), True)
    closed = (prefixes[:, :, -1:] == first) if i > 1 else torch.zeros_like(first, dtype=torch.bool)
    return torch.where(closed, only_end, allowed)


@dataclass(frozen=True)
class Decoded:
    """Output sequences.

    Attributes:
        sequences: int64 [B, m] in the notation of `examples`; a row that was stopped at the greatest length has no `END`.
        log_probabilities: of the sequences, at least float32 [B].
    """

    sequences: Tensor
    log_probabilities: Tensor


def greedy(
    network: Decoder, points: Tensor, *, max_length: int, constraint: Constraint | None = None, batch_size: int = 5000
) -> Decoded:
    """Take the most probable position at every step: a beam of width 1."""
    return beam_search(network, points, width=1, max_length=max_length, constraint=constraint, batch_size=batch_size)


@torch.inference_mode()
def beam_search(
    network: Decoder,
    points: Tensor,
    *,
    width: int,
    max_length: int,
    constraint: Constraint | None = None,
    batch_size: int = 5000,
) -> Decoded:
    """The most probable output sequence that a beam finds, for every example.

    Args:
        network: on the device of the points; decode under `torch.autocast` for lower precision.
        points: floating [B, n, 2].
        width: hypotheses kept.
        max_length: greatest m, the end included.
        constraint: which positions may follow; None is all.
        batch_size: examples at a time; a step holds a few tensors [batch_size * width, n + 1], and with plain scores
            [batch_size * width, n + 1, d].

    Returns:
        A sequence for every example, and its log-probability. Of two equal hypotheses any.

    Raises:
        InputError: a number is not positive, or a shape does not fit.
    """
    for name, value in (("width", width), ("max_length", max_length), ("batch_size", batch_size)):
        check_positive_int(name, value)
    if points.ndim != 3 or len(points) == 0:
        raise InputError(f"points has shape {tuple(points.shape)}; expected [B, n, 2] with B >= 1.")
    parts = [_search(network, batch, width, max_length, constraint) for batch in points.split(batch_size)]
    return Decoded(join_sequences([part.sequences for part in parts]), torch.cat([part.log_probabilities for part in parts]))


def _search(network: Decoder, points: Tensor, width: int, max_length: int, constraint: Constraint | None) -> Decoded:
    B, n = points.shape[:2]
    state, previous = network.begin(points), None
    sequences = torch.full((B, 1, max_length), PADDING, device=points.device)
    ended = torch.zeros(B, 1, dtype=torch.bool, device=points.device)
    total: Tensor | None = None  # [B, w], summed log-probabilities
    for i in range(max_length):
        step, state = network.step(state, previous)
        if constraint is not None:
            step = step.masked_fill(~constraint.allowed(sequences[:, :, :i], n), float("-inf"))
        # A hypothesis that has ended has one continuation, of probability 1; it stands in the column of the end.
        step = step.masked_fill(ended[..., None], float("-inf"))
        step[..., END] = torch.where(ended, 0.0, step[..., END])
        candidates = (step if total is None else total[..., None] + step).flatten(1)  # [B, w * (n + 1)]
        total, place = candidates.topk(min(width, candidates.shape[1]), dim=1)
        parents, chosen = place // (n + 1), place % (n + 1)

        state = state.select(parents)
        ended = ended.gather(1, parents)
        sequences = sequences.take_along_dim(parents[..., None], dim=1)
        sequences[:, :, i] = chosen.masked_fill(ended, PADDING)
        ended = ended | (chosen == END)
        previous = chosen
        if (i + 1) % CHECK_EVERY == 0 and bool(ended[:, 0].all()):  # topk sorts: the best comes first
            break
    assert total is not None
    best = sequences[:, 0]
    longest = int((best != PADDING).sum(1).max())
    return Decoded(best[:, :longest], total[:, 0])
