"""The end-to-end memory network for aspects, one hop (the paper's MN; settings of the official code).

    v = mean_j B(t_j),   α = softmax_i(A(x_i) · (v M)),   o = Σ_i α_i C(x_i),   v' = o + v H,   logits = v' W

A, B and C are trainable copies of the word vectors. The context is the sentence without the target.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding

from common.data.aspects import POLARITIES
from papers.absa.progressive_attention import masked_softmax
from papers.absa.replicas import AspectNetwork, Attended, Represented, affine
from papers.absa.sentences import ERASED, Batch

BOUND = 0.05
"""M, H and W are uniform in ±0.05."""


class MemoryNetwork(AspectNetwork):
    """R memory networks.

    Args:
        word_vectors: float32 [words + 1, d]; the first is that of padding and erased words, 0.
        seeds: see `AspectNetwork`.
        copies: see `AspectNetwork`.
    """

    def __init__(self, word_vectors: Tensor, *, seeds: Sequence[int], copies: int = 1):
        super().__init__(seeds, copies)
        d = word_vectors.shape[1]
        self.A, self.B, self.C = (self.same(word_vectors) for _ in "ABC")
        self.M, self.H = self.uniform(BOUND, d, d), self.uniform(BOUND, d, d)
        self.W = self.uniform(BOUND, d, len(POLARITIES))

    def _look_up(self, ids: Tensor, table: Tensor) -> Tensor:
        """Vectors [R, B, n, d] of ids [R, B, n] in a replica's own table [R, words + 1, d]; 0 for padding and erased words."""
        replicas, words, d = table.shape
        first = torch.arange(replicas, device=ids.device)[:, None, None] * words
        vectors = embedding(ids + first, table.view(replicas * words, d))
        return vectors * (ids != ERASED)[..., None]

    def represent(self, batch: Batch) -> Represented:
        """X are both memories, [A(x_i); C(x_i)], and the query is v."""
        words = (batch.target_ids != ERASED).sum(-1, keepdim=True).clamp(min=1)
        v = self._look_up(batch.target_ids, self.B).sum(2) / words
        return Represented(torch.cat([self._look_up(batch.ids, self.A), self._look_up(batch.ids, self.C)], dim=-1), v)

    def attend(self, represented: Represented, batch: Batch) -> Attended:
        """See the module's equations."""
        v = represented.query
        assert v is not None
        inputs, outputs = represented.X.chunk(2, dim=-1)
        scores = (inputs @ affine(v, self.M)[..., None])[..., 0]
        attention = masked_softmax(scores, batch.context)
        o = (attention[..., None, :] @ outputs)[..., 0, :]
        return Attended(attention, affine(o + affine(v, self.H), self.W))
