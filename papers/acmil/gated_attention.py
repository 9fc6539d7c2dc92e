"""Gated attention (Ilse et al., 2018; ACMIL, Section 3.1): the scores of instances."""

import torch
from torch import Tensor, nn


class GatedAttention(nn.Module):
    """s_in = w_i^T (tanh(V1 h_n + b1) ⊙ sigm(V2 h_n + b2)) + b_i for branches i = 1..M.

    Args:
        L: size of h.
        D: rows of V1 and V2 (128 in the paper).
        M: branches.
        shared_trunk: one V1 and V2 for all branches (official code); False gives each branch its own (the paper's text).
    """

    def __init__(self, L: int, D: int, M: int = 1, *, shared_trunk: bool = True):
        super().__init__()
        self.M, self.trunks = M, 1 if shared_trunk else M
        self.V1 = nn.Linear(L, self.trunks * D)
        self.V2 = nn.Linear(L, self.trunks * D)
        self.w = nn.Linear(D, M)

    def forward(self, H: Tensor) -> Tensor:
        """Scores S [B, M, N] of instances H [B, N, L]."""
        gated = torch.tanh(self.V1(H)) * torch.sigmoid(self.V2(H))
        if self.trunks == 1:
            return self.w(gated).transpose(1, 2)
        gated = gated.unflatten(-1, (self.M, -1))  # [B, N, M, D]
        return (gated * self.w.weight).sum(-1).transpose(1, 2) + self.w.bias[:, None]
