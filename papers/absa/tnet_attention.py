"""TNet-ATT: TNet-AS with attention in place of its convolution (settings of the official code).

    H0 = [→; ←] of an LSTM over the sentence, Ht of another over the target; one LSTM serves both directions
    CPT:  α_ij = softmax_j(Ht_j · h_i),  r_i = Σ_j α_ij Ht_j,  h̃_i = tanh(W [h_i; r_i] + b),
          g_i = σ(W_g h_i + b_g),  out_i = g_i ⊙ h̃_i + (1 − g_i) ⊙ h_i
    H1 = p ⊙ CPT(H0),  H2 = p ⊙ CPT(H1)           with the same CPT, and weights p that fall with the distance to the target
    q = [→Ht at its last step; ←Ht at its first],  α = softmax_i(H2_i · q),  logits = W_c Σ_i α_i H2_i + b_c

σ is the hard sigmoid, min(max(0.2 x + 0.5, 0), 1), in the gates of the LSTM too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.data.aspects import POLARITIES
from papers.absa.progressive_attention import masked_softmax
from papers.absa.recurrence import lstm_states
from papers.absa.replicas import AspectNetwork, Attended, Represented, affine
from papers.absa.sentences import ERASED, Batch

BOUND = 0.01
"""All weights are uniform in ±0.01; biases are 0."""


def hard_sigmoid(x: Tensor) -> Tensor:
    """σ(x) = min(max(0.2 x + 0.5, 0), 1)."""
    return (0.2 * x + 0.5).clamp(0, 1)


def reversal(inside: Tensor, through_padding: bool) -> Tensor:
    """Positions of a sequence read backwards, int64 [..., n] from bool [..., n].

    The words are reversed and padding stays behind them, so that it comes after all words in both directions and changes no
    word's state. With `through_padding`, the padded sequence is reversed as a whole: padding comes first.
    """
    n = inside.shape[-1]
    places = torch.arange(n, device=inside.device).expand(inside.shape)
    lengths = inside.sum(-1, keepdim=True)
    return n - 1 - places if through_padding else torch.where(places < lengths, lengths - 1 - places, places)


class TwoWayLSTM(nn.Module):
    """One LSTM of R replicas, run over sequences forwards and backwards.

    Args:
        W_x: [R, in, 4 h], of the gates o, i, f and the candidate.
        W_h: [R, h, 4 h].
        through_padding: the state runs through padding, as in the official code; else padding has no part.
    """

    def __init__(self, W_x: nn.Parameter, W_h: nn.Parameter, *, through_padding: bool):
        super().__init__()
        self.W_x, self.W_h, self.through_padding = W_x, W_h, through_padding
        self.b = nn.Parameter(torch.zeros(len(W_x), W_x.shape[-1]))

    def forward(self, x: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """[→; ←] in the order of the sequence, [R, B, n, 2 h], and [→ at the last step; ← at the first], [R, B, 2 h].

        Args:
            x: [R, B, n, in].
            inside: what is not padding, bool [R, B, n]: the first positions of a sequence.
        """
        count, n = x.shape[1:3]
        backwards = reversal(inside, self.through_padding)[..., None]
        projected = affine(x, self.W_x, self.b)
        both = torch.cat([projected, projected.gather(2, backwards.expand_as(projected))], dim=1)
        states = lstm_states(both.permute(2, 0, 1, 3).contiguous(), self.W_h).permute(1, 2, 0, 3)
        there, back = states[:, :count], states[:, count:]
        last = torch.full_like(inside[..., :1], n - 1, dtype=torch.int64)
        if not self.through_padding:
            last = (inside.sum(-1, keepdim=True) - 1).clamp(min=0)
        ends = [part.gather(2, last[..., None].expand(-1, -1, -1, part.shape[-1]))[:, :, 0] for part in (there, back)]
        # A reversal undoes itself.
        back = back.gather(2, backwards.expand_as(back))
        return torch.cat([there, back], dim=-1), torch.cat(ends, dim=-1)


class TNetAttention(AspectNetwork):
    """R networks of the kind TNet-ATT.

    Args:
        word_vectors: float32 [words + 1, d], frozen; the first is that of padding and erased words, 0.
        seeds: see `AspectNetwork`.
        copies: see `AspectNetwork`.
        hidden: h of the LSTMs.
        dropout: of word vectors and of the feature. Not inverted: units are scaled by 1 − dropout outside training.
        through_padding: as in the official code, padding takes part in recurrences and in the CPT's softmax.
    """

    word_vectors: Tensor

    def __init__(
        self,
        word_vectors: Tensor,
        *,
        seeds: Sequence[int],
        copies: int = 1,
        hidden: int = 50,
        dropout: float = 0.3,
        through_padding: bool = False,
    ):
        super().__init__(seeds, copies)
        d, width = word_vectors.shape[1], 2 * hidden
        self.dropout, self.through_padding = dropout, through_padding
        self.register_buffer("word_vectors", word_vectors)
        self.sentence_lstm, self.target_lstm = (
            TwoWayLSTM(
                self.uniform(BOUND, d, 4 * hidden), self.uniform(BOUND, hidden, 4 * hidden), through_padding=through_padding
            )
            for _ in range(2)
        )
        self.W, self.b = self.uniform(BOUND, 2 * width, width), self.same(torch.zeros(width))
        self.W_g, self.b_g = self.uniform(BOUND, width, width), self.same(torch.zeros(width))
        self.W_c, self.b_c = self.uniform(BOUND, width, len(POLARITIES)), self.same(torch.zeros(len(POLARITIES)))

    def _dropped(self, x: Tensor) -> Tensor:
        return x * self.keep_mask(x, self.dropout) if self.training else x * (1 - self.dropout)

    def _target_states(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Ht [R, B, m, 2 h], q [R, B, 2 h] and which of the m positions count."""
        real = batch.target_ids != ERASED
        Ht, q = self.target_lstm(self._dropped(self.word_vectors[batch.target_ids]), real)
        return Ht, q, real | self.through_padding

    def _cpt(self, H: Tensor, Ht: Tensor, counts: Tensor) -> Tensor:
        """The context-preserving transformation, AS."""
        weights = masked_softmax(H @ Ht.transpose(-1, -2), counts[:, :, None, :].expand(*H.shape[:3], -1))
        transformed = torch.tanh(affine(torch.cat([H, weights @ Ht], dim=-1), self.W, self.b))
        g = hard_sigmoid(affine(H, self.W_g, self.b_g))
        return g * transformed + (1 - g) * H

    def represent(self, batch: Batch) -> Represented:
        """X is H2, and the query is q."""
        Ht, q, counts = self._target_states(batch)
        H, _ = self.sentence_lstm(self._dropped(self.word_vectors[batch.ids]), batch.inside)
        p = batch.position_weights[..., None]
        for _ in range(2):
            H = p * self._cpt(H, Ht, counts)
        return Represented(H, q)

    def attend(self, represented: Represented, batch: Batch) -> Attended:
        """Attention over the whole sentence, the target's words included; erased words have none."""
        H, q = represented.X, represented.query
        assert q is not None
        attention = masked_softmax((H @ q[..., None])[..., 0], batch.inside & ~batch.erased)
        feature = (attention[..., None, :] @ H)[..., 0, :]
        return Attended(attention, affine(self._dropped(feature), self.W_c, self.b_c))
