"""The distance-based positional encoding of OAT (Fang et al., 2024), and the sinusoidal one beside it.

One table W [T, w], w = 86 for D = 512, serves row, column and flag: PE(row, column, flag) = concat(W_row, W_column, W_flag),
cut to D/2 entries. The distance-based table is optimised until cos(W_i, W_j) = exp(-(i - j)^2 / (2 σ^2)); its rows have one
norm.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import normalize

NORM = 8.76
"""Of a row: that of the table which comes with the official code. The start decides it, and with it the weight of positions."""


def target_similarity(length: int, sigma: float) -> Tensor:
    """g(i, j) = exp(-(i - j)^2 / (2 σ^2)): float64 [T, T]."""
    i = torch.arange(length, dtype=torch.float64)
    return torch.exp(-((i[:, None] - i[None, :]) ** 2) / (2 * sigma**2))


@lru_cache(maxsize=16)
def distance_table(length: int, width: int, sigma: float, steps: int, seed: int = 0) -> Tensor:
    """W as the official code makes it: Adam, rate 0.01, from N(0, 1), then scaled to `NORM`.

    Args:
        length: T.
        width: of a row.
        sigma: σ.
        steps: of Adam.
        seed: of the start.

    Returns:
        float32 [T, width].
    """
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(length, width, generator=generator, dtype=torch.float64).requires_grad_()
    g = target_similarity(length, sigma)
    optimiser = torch.optim.Adam([W], lr=0.01)
    for _ in range(steps):
        unit, norms = normalize(W, dim=1), W.norm(dim=1)
        loss = ((unit @ unit.T - g) ** 2).sum() + ((norms - norms.mean()) ** 2).mean()
        optimiser.zero_grad()
        (loss / (length * (length - 1))).backward()
        optimiser.step()
    return (NORM * W.detach() / W.detach().norm(dim=1).mean()).float()


def exact_table(length: int, width: int, sigma: float, seed: int = 0) -> Tensor:
    """What `distance_table` aims at, in closed form: the Cholesky factor of g in a random orthonormal basis, times `NORM`.

    Returns:
        float64 [T, width]; width >= T.
    """
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(width, length, generator=generator, dtype=torch.float64)).Q.T
    return NORM * torch.linalg.cholesky(target_similarity(length, sigma)) @ basis


def sinusoidal_table(length: int, width: int) -> Tensor:
    """The code's `original`: sines and cosines of the index, frequencies 10000^(-2i / width): float32 [T, width]."""
    half = width // 2
    frequencies = 10000.0 ** (-2 * torch.arange(half, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def encode_positions(table: Tensor, rows: Tensor, columns: Tensor, flags: Tensor, width: int) -> Tensor:
    """PE(row, column, flag), cut to `width` entries.

    Args:
        table: W [T, w] with 3 w >= width.
        rows: int64 [...].
        columns: int64 [...].
        flags: int64 [...], 1 for the target.
        width: D/2.
    """
    return torch.cat([table[rows], table[columns], table[flags]], dim=-1)[..., :width]
