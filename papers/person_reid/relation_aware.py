"""Relation-aware global attention, RGA-SC (Zhang et al., CVPR 2020): a gate on positions, then one on channels.

Of n nodes with features of size d (positions: n = N, d = C; channels: n = C, d = N), with e(·) a 1x1 convolution without bias,
batch normalisation and ReLU, r = 8:

    G   = θᵀ φ                          [n, n], θ, φ = e: d -> d/r
    R_i = e([G_i:, G_:i]): 2n -> n/r    relations of node i to all others, both directions
    g_i = mean over channels of e(x_i): d -> d/r
    a_i = σ(BN(W e([g_i, R_i]): 1 + n/r -> (1 + n/r)/r -> 1))
    y_i = a_i x_i

The number of positions is fixed when the block is made.
"""

import torch
from torch import Tensor, nn

from common.errors import InputError

REDUCTION = 8


def _embedding(channels: int, out: int) -> nn.Sequential:
    """e(·) on [B, channels, n]."""
    return nn.Sequential(nn.Conv1d(channels, out, 1, bias=False), nn.BatchNorm1d(out), nn.ReLU())


class RelationGate(nn.Module):
    """The gates a of n nodes.

    Args:
        n: nodes.
        d: size of their features.
    """

    def __init__(self, n: int, d: int):
        super().__init__()
        small_d, small_n = max(d // REDUCTION, 1), max(n // REDUCTION, 1)
        self.n = n
        self.theta, self.phi = _embedding(d, small_d), _embedding(d, small_d)
        self.relations = _embedding(2 * n, small_n)
        self.own = _embedding(d, small_d)
        hidden = max((1 + small_n) // REDUCTION, 1)
        self.gate = nn.Sequential(
            _embedding(1 + small_n, hidden), nn.Conv1d(hidden, 1, 1, bias=False), nn.BatchNorm1d(1)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """A [B, 1, n] of nodes x [B, d, n]."""
        G = self.theta(x).transpose(1, 2) @ self.phi(x)  # [B, n, n]
        R = self.relations(torch.cat([G.transpose(1, 2), G], dim=1))  # node i in column i: its row of G, then its column
        g = self.own(x).mean(dim=1, keepdim=True)
        return torch.sigmoid(self.gate(torch.cat([g, R], dim=1)))


class RGA(nn.Module):
    """RGA-SC for feature maps of one size.

    Args:
        C: channels of x.
        positions: N = H W.
    """

    def __init__(self, C: int, positions: int):
        super().__init__()
        self.spatial = RelationGate(positions, C)
        self.channel = RelationGate(C, positions)

    def forward(self, x: Tensor) -> Tensor:
        """X [B, C, H, W] to the same shape.

        Raises:
            InputError: x has another number of positions than the block was made for.
        """
        if x.shape[2] * x.shape[3] != self.spatial.n:
            raise InputError(f"x is {list(x.shape)}; this block was made for {self.spatial.n} positions.")
        flat = x.flatten(2)  # [B, C, N]
        flat = flat * self.spatial(flat)
        flat = flat * self.channel(flat.transpose(1, 2)).transpose(1, 2)
        return flat.unflatten(2, x.shape[2:])
