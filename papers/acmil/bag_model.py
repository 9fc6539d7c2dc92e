"""What every method here shares: the shapes, the reduction of features, and the softmax over the instances of a bag."""

import torch
from torch import Tensor, nn

Outputs = dict[str, Tensor]
"""What a model returns for B bags of N instances and C classes: always `logits` [B, C]; `attention` [B, M, N] where the
method has heat maps, each summing to 1 over the instances; and whatever its loss needs."""


class BagModel(nn.Module):
    """A classifier of bags.

    `forward(X, mask, seed)` takes features [B, N, D_feat], mask bool [B, N] (True where there is an instance, at least one a
    bag), and a seed (int64, no dimensions) for what a method draws in training; None is inference.
    """

    def loss(self, outputs: Outputs, Y: Tensor) -> Tensor:
        """Training loss of each bag: [B], from what `forward` returned and labels int64 [B]. Here: cross entropy."""
        return nn.functional.cross_entropy(outputs["logits"], Y, reduction="none")


class Reduce(nn.Module):
    """h = ReLU(W0 x), W0 in R^{L x D_feat} without a bias (card of the official code, step 1)."""

    def __init__(self, D_feat: int, L: int):
        super().__init__()
        self.W0 = nn.Linear(D_feat, L, bias=False)

    def forward(self, X: Tensor) -> Tensor:
        """[..., D_feat] to [..., L]."""
        return torch.relu(self.W0(X))


def softmax_over_instances(S: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where `mask` is True, 0 elsewhere, in float32 (float64 where S is).

    Args:
        S: scores [..., N]; -inf takes an instance out.
        mask: bool, broadcast to S. At least one instance that is in must have a finite score.
    """
    S = S if S.dtype == torch.float64 else S.float()  # many instances: half precision does not resolve their shares
    return torch.softmax(S.masked_fill(~mask, -torch.inf), dim=-1)
