"""Top-p: the shortest prefix of the sorted scores that reaches a share."""

import torch
from torch import Tensor

from common.errors import InputError

# A float32 cumulative sum of a few thousand shares is off by less than this.
ROUNDING = 1e-6


def check_share(name: str, value: float) -> None:
    """Check a share: 0 < value <= 1.

    Raises:
        InputError: it is outside.
    """
    if not 0 < value <= 1:
        raise InputError(f"{name} is {value}; it must be above 0 and at most 1.")


def shortest_prefix(scores: Tensor, tau: float, allowed: Tensor) -> Tensor:
    """Per row, the highest scores in descending order up to and including the one with which their sum reaches tau.

    An entry is kept if and only if the entries before it sum to less than tau (less than tau - 1e-6, so that rounding cannot
    add an entry). Hence the first allowed entry is always kept, and where the sum never reaches tau, all allowed entries are
    (PBS-Attn, Algorithm 2). tau = 1 keeps all allowed entries. Ties: lower column first.

    Args:
        scores: non-negative shares, float [..., T]; a row's allowed entries sum to 1 (or are all 0).
        tau: share to reach, 0 < tau <= 1.
        allowed: bool, broadcastable to scores: which entries may be kept.

    Returns:
        bool, the shape of scores. In a row with a NaN every allowed entry is kept, so that the NaN reaches the output as it
        does in dense attention instead of being dropped with its block.

    Raises:
        InputError: tau is not in (0, 1].
    """
    check_share("tau", tau)
    allowed = allowed.expand_as(scores)
    if tau == 1:
        return allowed.clone()
    ordered, columns = torch.sort(scores.masked_fill(~allowed, -1.0), dim=-1, descending=True, stable=True)
    shares = ordered.clamp(min=0)
    before = shares.cumsum(-1) - shares
    kept = ~(before >= tau - ROUNDING)
    kept[..., 0] = True
    return torch.zeros_like(kept).scatter(-1, columns, kept) & allowed
