"""Pointer Networks, whose outputs are positions of the input, and the two networks they are set against.

Vinyals, Fortunato and Jaitly, "Pointer Networks", arXiv 1506.03134 (NIPS 2015), Section 2.

An encoder LSTM reads the points P_1..P_n in the given order; a decoder LSTM starts from its last state and reads the point
chosen last. The attention of the decoder over the encoder *is* the output distribution:

    e_1 .. e_n = LSTM(P_1, .., P_n)
    d_1 .. d_m = LSTM(⇒, P_{C_1}, .., P_{C_(m-1)})
    u_j^i = v^T tanh(W_1 e_j + W_2 d_i),    p(C_i | C_1 .. C_(i-1), P) = softmax_j(u^i)              (Section 2.3)

All decoder inputs are known in training (teacher forcing), so the decoder is one call and all scores are one expression. In
decoding `begin` and `step` go forward by one position, for several hypotheses of each example at once.

| network | output distribution | lengths |
|---|---|---|
| `SequenceToSequence` (2.1) | softmax(W d_i) over a fixed vocabulary | one n |
| `AttentionSequenceToSequence` (2.2) | softmax(W [d_i; d'_i]) over it, d'_i = sum_j softmax_j(u^i) e_j | one n |
| `PointerNetwork` (2.3) | softmax(u^i) over the input | any |

Every network has n + 1 outputs a step: 0 is the end ⇐, j = 1..n the input position j (see `examples`).

Where the paper leaves room:

| item | paper | here |
|---|---|---|
| the end ⇐ of a pointer network | "special tokens" | a learned e_0 beside e_1..e_n, not read by the encoder |
| the begin ⇒ | "special tokens" | a learned point, the decoder's first input |
| encoder's first state | not stated | zeros |
| W_1, W_2, W | no bias is written | none |
| biases of the LSTMs | not mentioned | the two of cuDNN and PyTorch, drawn like the weights |
| initial values | uniform in [-0.08, 0.08] | for every parameter, v, e_0 and ⇒ too |
| d'_0 | not stated | zeros |

Notation: B examples, n points, m output positions, d hidden units, w hypotheses of an example.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.kernels.additive_attention import additive_attention
from common.kernels.checks import check_positive_int
from papers.pointer_networks.examples import gather_points

INITIAL_RANGE = 0.08

Scores = Literal["plain", "fused"]


@dataclass(frozen=True)
class DecoderState:
    """What a decoder needs to go on: `step` takes one and returns the next.

    Attributes:
        points: [B, n, 2].
        memory: what the encoder left, the same for all hypotheses of an example; first size B.
        recurrent: what a hypothesis carries on, each [B, w, d].
    """

    points: Tensor
    memory: tuple[Tensor, ...]
    recurrent: tuple[Tensor, ...]

    def select(self, hypotheses: Tensor) -> "DecoderState":
        """Keep some hypotheses, in a new order.

        Args:
            hypotheses: int64 [B, w'], values in 0..w-1; one may be kept twice.
        """
        index = hypotheses[..., None]
        return replace(self, recurrent=tuple(x.take_along_dim(index, dim=1) for x in self.recurrent))


class EncoderDecoder(nn.Module, ABC):
    """What the three networks share: the encoder, the decoder's inputs, the initial values."""

    encoder: nn.LSTM
    start: nn.Parameter

    def __init__(self, hidden_size: int):
        super().__init__()
        check_positive_int("hidden_size", hidden_size)
        self.hidden_size = hidden_size
        self.encoder = nn.LSTM(2, hidden_size, batch_first=True)
        self.start = nn.Parameter(torch.empty(2))  # ⇒

    def draw_parameters(self, seed: int) -> None:
        """Draw every parameter uniformly from [-0.08, 0.08] on the CPU: the same seed gives the same values everywhere."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                values = torch.empty(parameter.shape, dtype=parameter.dtype)
                parameter.copy_(values.uniform_(-INITIAL_RANGE, INITIAL_RANGE, generator=generator))

    def encode(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read the points.

        Returns:
            e [B, n, d], and the last h and c, each [B, d].
        """
        if points.ndim != 3 or points.shape[2] != 2 or 0 in points.shape:
            raise InputError(f"points has shape {tuple(points.shape)}; expected [B, n, 2] with B >= 1 and n >= 1.")
        e, (h, c) = self.encoder(points)
        return e, h[0], c[0]

    def decoder_inputs(self, points: Tensor, sequences: Tensor) -> Tensor:
        """⇒ and the points of all positions but the last: [B, m, 2]. After the end, where nothing counts, some point."""
        if sequences.dtype != torch.int64 or sequences.ndim != 2 or len(sequences) != len(points) or sequences.shape[1] == 0:
            raise InputError(
                f"sequences is {sequences.dtype} with shape {tuple(sequences.shape)}; expected int64 [{len(points)}, m], "
                "m >= 1."
            )
        chosen = gather_points(points, sequences[:, :-1])
        return torch.cat([self.start.to(points.dtype).expand(len(points), 1, 2), chosen], dim=1)

    def next_input(self, state: DecoderState, previous: Tensor | None) -> Tensor:
        """The decoder's input after the positions `previous` [B, w], or ⇒ where there are none yet: [B, w, 2]."""
        if previous is None:
            return self.start.to(state.points.dtype).expand(len(state.points), 1, 2)
        return gather_points(state.points, previous)

    @abstractmethod
    def forward(self, points: Tensor, sequences: Tensor) -> Tensor:
        """Scores of every next position, given the ones before it in `sequences`.

        Args:
            points: floating [B, n, 2].
            sequences: int64 [B, m], see `examples`; the last position of a row is never read.

        Returns:
            Logits [B, m, n + 1]; a softmax over the last size is p(C_i | C_1 .. C_(i-1), P). Under autocast of lower precision.

        Raises:
            InputError: a shape or a dtype does not fit.
        """

    @abstractmethod
    def begin(self, points: Tensor) -> DecoderState:
        """Read the points [B, n, 2] and return the state of the empty output, one hypothesis an example.

        Raises:
            InputError: the shape does not fit.
        """

    @abstractmethod
    def step(self, state: DecoderState, previous: Tensor | None) -> tuple[Tensor, DecoderState]:
        """Go on by one position.

        Args:
            state: of `begin`, or of the last step.
            previous: int64 [B, w], the positions chosen last; None at the beginning.

        Returns:
            log p(C_i | C_1 .. C_(i-1), P), at least float32 [B, w, n + 1], and the state that has read `previous`.
        """


class PointerNetwork(EncoderDecoder):
    """The method: attention over the input as the output distribution (Section 2.3), O(n m) a sequence.

    Args:
        hidden_size: d.
        seed: of the initial parameters.
        scores: "plain" computes u in plain PyTorch and keeps [B, m, n + 1, d] for the backward pass; "fused" uses
            `common.kernels.additive_attention`, which keeps nothing of that size (on a CUDA device; on the CPU its reference).
    """

    def __init__(self, hidden_size: int, *, seed: int, scores: Scores = "plain"):
        super().__init__(hidden_size)
        self.scores: Scores = check_scores(scores)
        self.decoder = nn.LSTM(2, hidden_size, batch_first=True)
        self.end = nn.Parameter(torch.empty(hidden_size))  # e_0
        self.W_1 = nn.Linear(hidden_size, hidden_size, bias=False)
        self.W_2 = nn.Linear(hidden_size, hidden_size, bias=False)
        self.v = nn.Parameter(torch.empty(hidden_size))
        self.draw_parameters(seed)

    def keys(self, e: Tensor) -> Tensor:
        """W_1 e_j for j = 0..n: [B, n + 1, d]."""
        end = self.end.to(e.dtype).expand(len(e), 1, -1)
        return self.W_1(torch.cat([end, e], dim=1))

    def forward(self, points: Tensor, sequences: Tensor) -> Tensor:
        """As in `EncoderDecoder`."""
        e, h, c = self.encode(points)
        d, _ = self.decoder(self.decoder_inputs(points, sequences), (h[None], c[None]))
        return additive_scores(self.W_2(d), self.keys(e), self.v, self.scores)

    def begin(self, points: Tensor) -> DecoderState:
        """As in `EncoderDecoder`."""
        e, h, c = self.encode(points)
        return DecoderState(points, (self.keys(e),), (h[:, None], c[:, None]))

    def step(self, state: DecoderState, previous: Tensor | None) -> tuple[Tensor, DecoderState]:
        """As in `EncoderDecoder`."""
        d, recurrent = lstm_step(self.decoder, self.next_input(state, previous), state.recurrent)
        u = additive_scores(self.W_2(d), state.memory[0], self.v, self.scores)
        return log_probabilities(u), replace(state, recurrent=recurrent)


class SequenceToSequence(EncoderDecoder):
    """The baseline "LSTM" (Section 2.1): a softmax over a fixed vocabulary of n positions and the end.

    Args:
        hidden_size: d.
        length: n, the only number of points it takes.
        seed: of the initial parameters.
    """

    def __init__(self, hidden_size: int, length: int, *, seed: int):
        super().__init__(hidden_size)
        check_positive_int("length", length)
        self.length = length
        self.decoder = nn.LSTM(2, hidden_size, batch_first=True)
        self.W = nn.Linear(hidden_size, length + 1, bias=False)
        self.draw_parameters(seed)

    def forward(self, points: Tensor, sequences: Tensor) -> Tensor:
        """As in `EncoderDecoder`."""
        check_length(points, self.length)
        _, h, c = self.encode(points)
        d, _ = self.decoder(self.decoder_inputs(points, sequences), (h[None], c[None]))
        return self.W(d)

    def begin(self, points: Tensor) -> DecoderState:
        """As in `EncoderDecoder`."""
        check_length(points, self.length)
        _, h, c = self.encode(points)
        return DecoderState(points, (), (h[:, None], c[:, None]))

    def step(self, state: DecoderState, previous: Tensor | None) -> tuple[Tensor, DecoderState]:
        """As in `EncoderDecoder`."""
        d, recurrent = lstm_step(self.decoder, self.next_input(state, previous), state.recurrent)
        return log_probabilities(self.W(d)), replace(state, recurrent=recurrent)


class AttentionSequenceToSequence(EncoderDecoder):
    """The baseline "+ attention" (Section 2.2, Equation 3): the blend d'_i of the encoder's states helps a fixed vocabulary.

    "d'_i and d_i are concatenated and used as the hidden states from which we make predictions and which we feed to the next
    time step": the next d sees d_i as its own recurrence and d'_i beside its input. So the decoder is a loop, in training too.

    Args:
        hidden_size: d.
        length: n, the only number of points it takes.
        seed: of the initial parameters.
        scores: as in `PointerNetwork`.
    """

    def __init__(self, hidden_size: int, length: int, *, seed: int, scores: Scores = "plain"):
        super().__init__(hidden_size)
        check_positive_int("length", length)
        self.length = length
        self.scores: Scores = check_scores(scores)
        self.decoder = nn.LSTMCell(2 + hidden_size, hidden_size)
        self.W_1 = nn.Linear(hidden_size, hidden_size, bias=False)
        self.W_2 = nn.Linear(hidden_size, hidden_size, bias=False)
        self.v = nn.Parameter(torch.empty(hidden_size))
        self.W = nn.Linear(2 * hidden_size, length + 1, bias=False)
        self.draw_parameters(seed)

    def attend(self, e: Tensor, keys: Tensor, d: Tensor) -> Tensor:
        """d'_i = sum_j softmax_j(u^i) e_j: [B, w, d]."""
        a = additive_scores(self.W_2(d), keys, self.v, self.scores).softmax(-1)
        return a.to(e.dtype) @ e

    def advance(self, x: Tensor, e: Tensor, keys: Tensor, recurrent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One step of the recurrence: inputs [B, w, 2] and (d, c, d') [B, w, d] to the next (d, c, d')."""
        d, c, blend = recurrent
        inputs = torch.cat([x, blend.to(x.dtype)], dim=-1).flatten(0, 1)
        d, c = (y.view(blend.shape) for y in self.decoder(inputs, (d.flatten(0, 1), c.flatten(0, 1))))
        return d, c, self.attend(e, keys, d)

    def forward(self, points: Tensor, sequences: Tensor) -> Tensor:
        """As in `EncoderDecoder`."""
        state = self.begin(points)
        e, keys = state.memory
        recurrent, hidden = state.recurrent, []
        for x in self.decoder_inputs(points, sequences).split(1, dim=1):
            recurrent = self.advance(x, e, keys, recurrent)
            hidden.append(torch.cat([recurrent[0], recurrent[2].to(recurrent[0].dtype)], dim=-1))
        return self.W(torch.cat(hidden, dim=1))

    def begin(self, points: Tensor) -> DecoderState:
        """As in `EncoderDecoder`."""
        check_length(points, self.length)
        e, h, c = self.encode(points)
        return DecoderState(points, (e, self.W_1(e)), (h[:, None], c[:, None], torch.zeros_like(h)[:, None]))

    def step(self, state: DecoderState, previous: Tensor | None) -> tuple[Tensor, DecoderState]:
        """As in `EncoderDecoder`."""
        e, keys = state.memory
        recurrent = self.advance(self.next_input(state, previous), e, keys, state.recurrent)
        d, _, blend = recurrent
        logits = self.W(torch.cat([d, blend.to(d.dtype)], dim=-1))
        return log_probabilities(logits), replace(state, recurrent=recurrent)


def additive_scores(queries: Tensor, keys: Tensor, v: Tensor, scores: Scores) -> Tensor:
    """u_j^i = v^T tanh(keys_j + queries_i): [B, m, n] of queries [B, m, d], keys [B, n, d] and v [d]."""
    if scores == "fused":
        return additive_attention(queries, keys, v)
    return torch.tanh(queries[:, :, None] + keys[:, None]) @ v


def check_scores(scores: str) -> Scores:
    """The name of a way to compute scores, if it is one.

    Raises:
        InputError: it is not.
    """
    if scores not in ("plain", "fused"):
        raise InputError(f"scores is {scores!r}; choose 'plain' or 'fused'.")
    return scores


def lstm_step(lstm: nn.LSTM, x: Tensor, recurrent: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One step of an LSTM for every hypothesis: inputs [B, w, 2] and (h, c) [B, w, d] to the output [B, w, d] and (h, c)."""
    shape = recurrent[0].shape
    h, c = (y.reshape(1, -1, shape[2]) for y in recurrent)
    d, (h, c) = lstm(x.reshape(-1, 1, x.shape[2]), (h, c))
    return d.view(shape), (h.view(shape), c.view(shape))


def log_probabilities(logits: Tensor) -> Tensor:
    """Logarithm of the softmax over the last size, in float32 or, for float64, float64."""
    return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def check_length(points: Tensor, length: int) -> None:
    """Check that every example has the number of points that a network of fixed vocabulary was made for.

    Raises:
        InputError: it has not.
    """
    if points.ndim != 3 or points.shape[1] != length:
        raise InputError(
            f"points has shape {tuple(points.shape)}; this network has a fixed vocabulary and takes [B, {length}, 2] only. "
            "Train another one for another n, or use a PointerNetwork."
        )
