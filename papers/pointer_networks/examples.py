"""Points and output sequences: the notation that tasks, networks and metrics share (arXiv 1506.03134, Section 2).

Points are a tensor [B, n, 2]. An output sequence is a row of an int64 tensor [B, m]:

    1 .. n   a pointer to an input position, from 1 as in the paper
    0        `END`, the end of the output (the paper's ⇐)
    -1       `PADDING` after the end, ignored by loss and metrics

A *cycle* is a polygon or a tour before it is written as a sequence: its positions once each, int64 [B, m], `PADDING` behind the
first `lengths` [B]. As a sequence it repeats its first position before the end, as the paper's data files do:
[3, 1, 2] is [3, 1, 2, 3, 0].
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from common.errors import InputError

END = 0
PADDING = -1

MEMORY_BUDGET = {"cpu": 2**28, "cuda": 2**32}
"""Bytes that the labelling of a chunk of examples may take, by kind of device."""


@dataclass(frozen=True)
class Examples:
    """Inputs with their expected outputs.

    Attributes:
        points: floating point [B, n, 2].
        sequences: int64 [B, m]: every row some pointers in 1..n, one `END`, then `PADDING`.

    Raises:
        InputError: shapes, dtypes or devices do not fit, a point is not finite, or a row is not of that form.
    """

    points: Tensor
    sequences: Tensor

    def __post_init__(self):
        check_points(self.points, fewest=1)
        check_sequences("sequences", self.sequences, self.points)
        ends = self.sequences == END
        after_the_end = ends.cumsum(1) - ends.long() > 0
        wrong = (ends.sum(1) != 1) | ((self.sequences == PADDING) != after_the_end).any(1)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise InputError(
                f"sequences row {row} is {self.sequences[row].tolist()}; expected pointers, one {END} for the end, "
                f"then only {PADDING}."
            )

    def __len__(self) -> int:
        """Number of examples, B."""
        return len(self.points)

    def __getitem__(self, rows: slice | Tensor) -> "Examples":
        """Some of the examples: a slice, int64 positions or a bool mask [B]."""
        return Examples(self.points[rows], self.sequences[rows])

    @property
    def size(self) -> int:
        """Points an example, n."""
        return self.points.shape[1]

    def to(self, device: torch.device | str) -> "Examples":
        """The same examples on another device."""
        return Examples(self.points.to(device), self.sequences.to(device))

    def digest(self) -> str:
        """SHA-256 of shapes, dtypes and all values, as 64 hexadecimal digits: the same on every device."""
        state = hashlib.sha256()
        for tensor in (self.points, self.sequences):
            state.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
            state.update(tensor.contiguous().cpu().numpy().tobytes())
        return state.hexdigest()


def check_points(points: Tensor, *, fewest: int = 3) -> None:
    """Check that `points` is a finite floating-point tensor [B, n, 2], B >= 1, n >= `fewest`.

    Raises:
        InputError: it is not.
    """
    if points.ndim != 3 or points.shape[2] != 2 or len(points) == 0:
        raise InputError(f"points has shape {tuple(points.shape)}; expected [B, n, 2] with B >= 1.")
    if points.shape[1] < fewest:
        raise InputError(f"points has n = {points.shape[1]} points an example; at least {fewest} are needed.")
    if not points.is_floating_point():
        raise InputError(f"points has dtype {points.dtype}; expected a floating-point dtype.")
    if not bool(points.isfinite().all()):
        raise InputError("points holds NaN or infinite values; every coordinate must be finite.")


def check_sequences(name: str, sequences: Tensor, points: Tensor) -> None:
    """Check that `sequences` is int64 [B, m] with values from `PADDING` to n, B, n and the device being those of `points`.

    Raises:
        InputError: it is not; the message names `name`.
    """
    B, n = points.shape[:2]
    if sequences.dtype != torch.int64:
        raise InputError(f"{name} has dtype {sequences.dtype}; expected torch.int64 (use .long()).")
    if sequences.ndim != 2 or len(sequences) != B or sequences.shape[1] == 0:
        raise InputError(f"{name} has shape {tuple(sequences.shape)}; expected [{B}, m] with m >= 1.")
    if sequences.device != points.device:
        raise InputError(f"{name} is on {sequences.device} and points on {points.device}; they must agree.")
    low, high = (int(value) for value in sequences.aminmax())
    if low < PADDING or high > n:
        raise InputError(f"{name} holds values from {low} to {high}; they must lie in [{PADDING}, {n}], the input positions.")


def memory_chunks(rows: Tensor, bytes_each: int) -> Iterator[Tensor]:
    """Split a tensor along its first dimension so that a chunk stays in `MEMORY_BUDGET`, a row taking `bytes_each` bytes."""
    yield from rows.split(max(1, MEMORY_BUDGET[rows.device.type] // bytes_each))


def join_sequences(parts: list[Tensor]) -> Tensor:
    """Concatenate sequences [B_i, m_i] to [sum B_i, max m_i], with `PADDING` behind the shorter ones."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([pad(part, (0, width - part.shape[1]), value=PADDING) for part in parts])


def output_lengths(sequences: Tensor) -> tuple[Tensor, Tensor]:
    """Pointers before the first `END` or `PADDING`: int64 [B]; and whether an `END` follows them: bool [B].

    A decoder that was stopped before it pointed at the end leaves no `END`.
    """
    pointer = sequences > END
    lengths = pointer.long().cumprod(1).sum(1)
    return lengths, (pad(sequences, (0, 1), value=PADDING).gather(1, lengths[:, None]) == END)[:, 0]


def gather_points(points: Tensor, positions: Tensor) -> Tensor:
    """Coordinates at positions 1..n: [B, m, 2] from points [B, n, 2] and positions [B, m]; `PADDING` gives the first point."""
    return points.gather(1, (positions - 1).clamp_min(0)[..., None].expand(-1, -1, 2))


def turn_cycles(cycles: Tensor, lengths: Tensor, start: Tensor, backwards: Tensor) -> Tensor:
    """Write cycles from another start, and backwards where asked.

    Args:
        cycles: int64 [B, m].
        lengths: int64 [B].
        start: int64 [B], the place in 0..lengths - 1 that becomes the first.
        backwards: bool [B].

    Returns:
        int64 [B, m].
    """
    place = torch.arange(cycles.shape[1], device=cycles.device).expand_as(cycles)
    step = torch.where(backwards, -1, 1)[:, None]
    source = (start[:, None] + step * place) % lengths.clamp_min(1)[:, None]
    return cycles.gather(1, source).masked_fill(place >= lengths[:, None], PADDING)


def canonical_cycles(cycles: Tensor, lengths: Tensor, *, either_direction: bool) -> Tensor:
    """The one way of writing a cycle: from its lowest position; with `either_direction` so that second < last.

    Args:
        cycles: int64 [B, m], m >= 1.
        lengths: int64 [B].
        either_direction: whether a cycle and its reversal are the same thing (a tour) or not (a hull, counter-clockwise).

    Returns:
        int64 [B, m].
    """
    start = cycles.masked_fill(cycles == PADDING, torch.iinfo(torch.int64).max).argmin(1)
    turned = turn_cycles(cycles, lengths, start, torch.zeros_like(start, dtype=torch.bool))
    if not either_direction:
        return turned
    last = turned.gather(1, (lengths - 1).clamp_min(0)[:, None])[:, 0]
    second = turned.gather(1, lengths.clamp_max(2).sub(1).clamp_min(0)[:, None])[:, 0]
    return turn_cycles(turned, lengths, torch.zeros_like(start), second > last)


def close_cycles(cycles: Tensor, lengths: Tensor) -> Tensor:
    """Write cycles as sequences: the first position again, then `END`: int64 [B, max(lengths) + 2]."""
    closed = pad(cycles, (0, 2), value=PADDING)[:, : int(lengths.max()) + 2]
    closed = closed.scatter(1, lengths[:, None], cycles[:, :1])
    return closed.scatter(1, lengths[:, None] + 1, END)


def open_cycles(sequences: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Read sequences as cycles, without the closing position where there is one.

    Returns:
        cycles int64 [B, m], lengths int64 [B], and whether the sequence came to an `END`, bool [B].
    """
    lengths, ended = output_lengths(sequences)
    last = sequences.gather(1, (lengths - 1).clamp_min(0)[:, None])[:, 0]
    lengths = lengths - ((lengths > 1) & (last == sequences[:, 0])).long()
    place = torch.arange(sequences.shape[1], device=sequences.device)
    return sequences.masked_fill(place >= lengths[:, None], PADDING), lengths, ended
