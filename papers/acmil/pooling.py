"""Mean and max pooling of reduced features: the two baselines without attention."""

import torch
from torch import Tensor, nn

from papers.acmil.bag_model import BagModel, Outputs, Reduce


class Pooling(BagModel):
    """z = mean or elementwise maximum of h over the bag, logits = W_c z + b_c.

    Args:
        D_feat: features of an instance.
        L: size of h.
        classes: C.
        maximum: the maximum in place of the mean.
    """

    def __init__(self, D_feat: int, L: int, classes: int, *, maximum: bool):
        super().__init__()
        self.maximum = maximum
        self.reduce = Reduce(D_feat, L)
        self.classifier = nn.Linear(L, classes)

    def forward(self, X: Tensor, mask: Tensor, seed: Tensor | None = None) -> Outputs:
        """`logits` [B, C], `instances` h [B, N, L]."""
        del seed  # draws nothing
        H = self.reduce(X)
        inside = mask[..., None]
        maximum, mean = H.masked_fill(~inside, -torch.inf).amax(1), H.masked_fill(~inside, 0).sum(1) / inside.sum(1)
        z = maximum if self.maximum else mean
        return {"logits": self.classifier(z), "instances": H}
