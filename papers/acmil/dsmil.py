"""DSMIL (Li et al., 2021): a stream of instance scores whose greatest is the query of a second, attending stream."""

import math

import torch
from torch import Tensor, nn

from papers.acmil.bag_model import BagModel, Outputs, Reduce, softmax_over_instances


class DSMIL(BagModel):
    """Two streams.

    c = max_n W h_n, with the critical instance m of each class; q_n = Q(h_n);
    a_nc = softmax_n(q_n · q_m(c) / sqrt(d)), b_c = Σ_n a_nc h_n, bag logits = Σ_c w_c b_c; logits = (c + bag logits) / 2.

    Args:
        D_feat: features of an instance.
        L: size of h.
        D: size d of queries.
        classes: C.
    """

    def __init__(self, D_feat: int, L: int, D: int, classes: int):
        super().__init__()
        self.reduce = Reduce(D_feat, L)
        self.instance_classifier = nn.Linear(L, classes)
        self.Q = nn.Sequential(nn.Linear(L, D), nn.ReLU(), nn.Linear(D, D), nn.Tanh())
        self.bag_classifier = nn.Linear(classes * L, classes)  # a convolution over all of [C, L] in the official code

    def forward(self, X: Tensor, mask: Tensor, seed: Tensor | None = None) -> Outputs:
        """`logits` [B, C]; `maximum_logits`, `bag_logits` [B, C]; `attention` [B, 1, N] of the class with the largest logit."""
        del seed  # draws nothing
        H = self.reduce(X)
        c = self.instance_classifier(H).masked_fill(~mask[..., None], -torch.inf)
        maximum, critical = c.max(dim=1)  # [B, C]
        q = self.Q(H)
        q_m = q.gather(1, critical[..., None].expand(-1, -1, q.shape[-1]))
        a = softmax_over_instances(q_m @ q.transpose(1, 2) / math.sqrt(q.shape[-1]), mask[:, None])  # [B, C, N]
        bag = self.bag_classifier((a @ H).flatten(1))
        logits = (maximum + bag) / 2
        largest = logits.argmax(1)[:, None, None].expand(-1, 1, a.shape[-1])
        return {
            "logits": logits,
            "maximum_logits": maximum,
            "bag_logits": bag,
            "attention": a.gather(1, largest),
            "instances": H,
        }

    def loss(self, outputs: Outputs, Y: Tensor) -> Tensor:
        """Half the cross entropy of each stream: [B]."""
        streams = (outputs["maximum_logits"], outputs["bag_logits"])
        return sum(0.5 * nn.functional.cross_entropy(logits, Y, reduction="none") for logits in streams)  # pyright: ignore[reportReturnType]
