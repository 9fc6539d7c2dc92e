"""The mixture of Gaussians (the paper's appendix B and its module repository): a gate with 2 n scalars for each head.

For a head Y, its mean μ and unbiased variance σ² over the normalised axis, and n pairs of scalars (m_i, c_i):

    u_i     = (Y - (μ + m_i)) / sqrt(σ²)
    mixture = Π_i exp(-u_i² / (2 c_i²)) / sqrt(2 π c_i²)       then divided by its sum over the axis
    out     = Y ⊙ mixture                                       a block adds its input: x ← out + x

The product of Gaussians is one Gaussian (`product_of_gaussians`), so that several of them add no shape within a head.
"""

import math

import torch
from torch import Tensor, nn

from common.errors import InputError

EPSILON = 1e-8
SMALLEST_WIDTH = 1e-3  # of |c|: the density has no limit where a width goes to 0


def mixture_weights(Y: Tensor, m: Tensor, c: Tensor, *, keep: Tensor | None = None) -> Tensor:
    """The normalised product of n Gaussians over the layers of one head.

    Args:
        Y: [..., layers, d], at least two layers.
        m: offsets [n].
        c: widths [n].
        keep: bool like Y; False is padding: it counts as 0 in the statistics and gets no weight. None: there is none.

    Returns:
        [..., layers, d], float32 or wider: sums over layers to 1, unless all densities underflow.

    Raises:
        InputError: Y has a single layer.
    """
    if Y.shape[-2] < 2:
        raise InputError("A head of the mixture has one layer, whose variance is not defined; take fewer heads.")
    x = Y if keep is None else torch.where(keep, Y, 0.0)
    mu = x.mean(-2, keepdim=True)
    variance = x.var(-2, keepdim=True, correction=1) + EPSILON
    u = (x - mu)[..., None] - m  # [..., layers, d, n]
    u = u / variance.sqrt()[..., None]
    width = c.square().clamp(min=SMALLEST_WIDTH**2)
    # The product as a sum of logarithms: the gradient of `prod` counts zeros on the host, and a CUDA graph cannot hold that.
    mixture = torch.exp(-(u.square() / (2 * width) + torch.log(2 * math.pi * width) / 2).sum(-1))
    if keep is not None:
        mixture = torch.where(keep, mixture, 0.0)
    return mixture / mixture.sum(-2, keepdim=True).clamp(min=EPSILON)


def product_of_gaussians(m: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the one Gaussian that is proportional to Π_i N(m_i, c_i²): scalars from [n] and [n]."""
    precision = (1 / c.square()).sum()
    return (m / c.square()).sum() / precision, precision.rsqrt()


class GaussianMixture(nn.Module):
    """The mixture on all layers, with its residual: 2 g n parameters.

    Args:
        g: heads; each takes N // g consecutive layers and the last one the rest.
        n: Gaussians of a head.
        padding_value: entries of X equal to it are passed through unchanged and count as 0 in the statistics; None: none are.
        residual: add the input, as the block of the module repository does.
    """

    def __init__(self, g: int, n: int = 4, *, padding_value: float | None = None, residual: bool = True):
        super().__init__()
        self.g, self.padding_value, self.residual = g, padding_value, residual
        self.m = nn.Parameter(torch.zeros(g, n))
        self.c = nn.Parameter(torch.randn(g, n).exp())

    def gate(self, X: Tensor) -> Tensor:
        """Weights of X [..., N, d]: float32, the same shape.

        Raises:
            InputError: a head would have less than two layers.
        """
        N = X.shape[-2]
        if N // self.g < 2:
            raise InputError(f"g = {self.g} heads leave one of {N} layers with less than two; take at most {N // 2}.")
        sizes = [N // self.g] * (self.g - 1)
        heads = X.float().split([*sizes, N - sum(sizes)], dim=-2)
        keep = [None if self.padding_value is None else Y.ne(self.padding_value) for Y in heads]
        every = zip(heads, keep, self.m.unbind(0), self.c.unbind(0), strict=True)
        return torch.cat([mixture_weights(Y, m, c, keep=kept) for Y, kept, m, c in every], dim=-2)

    def forward(self, X: Tensor) -> Tensor:
        """X [..., N, d] to X ⊙ mixture, plus X with the residual."""
        out = X * self.gate(X)
        if self.padding_value is not None:
            out = torch.where(X.eq(self.padding_value), X, out)
        return out + X if self.residual else out
