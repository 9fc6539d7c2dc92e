"""Multi-head attention over layers (Vaswani et al., 2017), and over the batch as the official code of GAAM computes it.

The code calls `nn.MultiheadAttention(d, heads)` on X [B, N, d] without `batch_first`, so that the first axis counts as the
sequence: every sample attends to the other samples of its batch, layer by layer, in training and in validation. `axis="layers"`
is what the paper describes.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import InputError

Axis = Literal["layers", "batch"]


class MultiHeadAttention(nn.Module):
    """Self-attention without mask and dropout; parameters and initialisation are those of `nn.MultiheadAttention`.

    That class takes three dimensions alone; this one takes any number of batches, which evaluation needs.

    Args:
        d: features.
        heads: they divide d.
        axis: "layers" attends from layer to layer within a sample, "batch" from sample to sample within a layer.
    """

    def __init__(self, d: int, heads: int, axis: Axis = "layers"):
        super().__init__()
        if d % heads:
            raise InputError(f"{heads} heads do not divide {d} features.")
        self.heads, self.axis = heads, axis
        self.query_key_value = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        nn.init.xavier_uniform_(self.query_key_value.weight)
        nn.init.zeros_(self.query_key_value.bias)
        nn.init.zeros_(self.out.bias)

    def attend(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Result and softmax weights: X [..., B, N, d] to the same shape and [..., heads, L, L] along the attended axis."""
        x = X if self.axis == "layers" else X.transpose(-3, -2)
        Q, K, V = (part.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for part in self.query_key_value(x).chunk(3, dim=-1))
        # Written out: fused attention has no rule for networks side by side, and the sequences are short.
        weights = torch.softmax(Q @ K.transpose(-1, -2) / math.sqrt(Q.shape[-1]), dim=-1)
        out = self.out((weights @ V).transpose(-3, -2).flatten(-2))
        return out if self.axis == "layers" else out.transpose(-3, -2), weights

    def forward(self, X: Tensor) -> Tensor:
        """X [..., B, N, d] to the same shape; `axis="batch"` needs the batch."""
        return self.attend(X)[0]


class NormalisedMultiHeadAttention(nn.Module):
    """Attention and then batch normalisation over the N layers as channels (MHA → BN).

    Args:
        d: features.
        heads: of attention.
        N: layers.
        axis: see `MultiHeadAttention`.
    """

    def __init__(self, d: int, heads: int, N: int, axis: Axis = "layers"):
        super().__init__()
        self.attention = MultiHeadAttention(d, heads, axis)
        self.normalisation = nn.BatchNorm1d(N)

    def forward(self, X: Tensor) -> Tensor:
        """X [..., B, N, d] to the same shape."""
        out = self.attention(X)
        return self.normalisation(out.flatten(0, -3)).view_as(out)


class ResidualMultiHeadAttention(nn.Module):
    """X + attention(LayerNorm(X)) over layers: what a Transformer's block does, which the paper's baseline leaves out.

    Args:
        d: features.
        heads: of attention.
    """

    def __init__(self, d: int, heads: int):
        super().__init__()
        self.normalisation = nn.LayerNorm(d)
        self.attention = MultiHeadAttention(d, heads, "layers")

    def forward(self, X: Tensor) -> Tensor:
        """X [..., N, d] to the same shape."""
        return X + self.attention(self.normalisation(X))
