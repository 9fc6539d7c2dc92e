"""Gaussian adaptive attention (GAAM; DAAM from version 4 of the paper on), as the experiments of the paper have it.

The tokens are the N layers of a frozen encoder, each the mean over time of its hidden states: X in R^{N x d}. A head reads
m = N / g consecutive layers Y in R^{m x d}, and for each of the d features (statistics over the head's layers)

    μ  = mean_m(Y)                        σ² = |mean_m(Y²) - μ²| + 1e-8
    u  = (Y - (μ + δ)) / sqrt(σ² + 1e-5)
    G  = exp(-u² / (2 ξ))                 DA, the density attention
    out = Y ⊙ G

δ and ξ in R^d are learned for each head and start at 0 and 2. G is a gate in (0, 1] for each layer and feature: it is not
normalised over layers, and nothing is mixed across layers or samples. A head of two layers has u = ±1 before training, whatever
it reads, so that its gate is constant; a head of one layer has σ² = 0 and is refused.

This file is the method alone: it can be lifted out of the suite and used as it is.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import InputError

EPSILON_VARIANCE = 1e-8
EPSILON_ROOT = 1e-5
SMALLEST_WIDTH = 1e-3  # ξ is not bounded in the paper; the gate explodes where it crosses 0
Exponent = Literal["width", "width_squared"]


def split_heads(X: Tensor, g: int) -> Tensor:
    """Consecutive layers to heads: [..., N, d] to [..., g, N / g, d].

    Raises:
        InputError: g does not divide N, or would leave a head with a single layer.
    """
    N = X.shape[-2]
    if g < 1 or N % g or N // g < 2:
        fitting = [heads for heads in range(1, N // 2 + 1) if N % heads == 0]
        raise InputError(f"g = {g} heads do not split {N} layers into equal parts of at least two; g may be one of {fitting}.")
    return X.unflatten(-2, (g, N // g))


def gaussian_gate(Y: Tensor, delta: Tensor, xi: Tensor, *, exponent: Exponent = "width", normalised: bool = False) -> Tensor:
    """The gate G of one or more heads.

    Args:
        Y: layers of a head [..., m, d], floating point; float32 or wider, as σ² of float16 underflows.
        delta: offset δ of the mean [..., 1, d].
        xi: width ξ [..., 1, d]; values below 1e-3 count as 1e-3.
        exponent: "width" is u² / (2 ξ) (Algorithm 1 and the official code), "width_squared" u² / (2 ξ²) (the paper's text).
        normalised: divide by the sum over the m layers, as figure and text of the mixture suggest; the code does not.

    Returns:
        [..., m, d].
    """
    mu = Y.mean(-2, keepdim=True)
    variance = (Y.square().mean(-2, keepdim=True) - mu.square()).abs() + EPSILON_VARIANCE
    u = (Y - (mu + delta)) / torch.sqrt(variance + EPSILON_ROOT)
    xi = xi.clamp(min=SMALLEST_WIDTH)
    G = torch.exp(-u.square() / (2 * (xi if exponent == "width" else xi.square())))
    return G / G.sum(-2, keepdim=True).clamp(min=EPSILON_VARIANCE) if normalised else G


class GaussianAttention(nn.Module):
    """The gate on all layers: 2 g d parameters.

    Args:
        g: heads; they divide the layers into parts of at least two.
        d: features.
        learned: False keeps δ = 0 and ξ = 2: the control that separates what is learned from what the fixed gate does.
        exponent: see `gaussian_gate`.
        normalised: see `gaussian_gate`.
    """

    delta: Tensor
    xi: Tensor

    def __init__(self, g: int, d: int, *, learned: bool = True, exponent: Exponent = "width", normalised: bool = False):
        super().__init__()
        self.g, self.normalised = g, normalised
        self.exponent: Exponent = exponent
        delta, xi = torch.zeros(g, 1, d), torch.full((g, 1, d), 2.0)
        if learned:
            self.delta, self.xi = nn.Parameter(delta), nn.Parameter(xi)
        else:
            self.register_buffer("delta", delta)
            self.register_buffer("xi", xi)

    def gate(self, X: Tensor) -> Tensor:
        """DA of X [..., N, d]: float32, the same shape."""
        heads = split_heads(X.float(), self.g)
        return gaussian_gate(heads, self.delta, self.xi, exponent=self.exponent, normalised=self.normalised).flatten(-3, -2)

    def forward(self, X: Tensor) -> Tensor:
        """X [..., N, d] to X ⊙ DA."""
        return X * self.gate(X)
