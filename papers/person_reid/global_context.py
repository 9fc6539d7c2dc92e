"""Global context (Cao et al., GCNet, 2019): one attention map for all positions, whose summary is added everywhere.

a = softmax over positions of W_k x            [B, 1, N]
y = x + W_v2 ReLU(LN(W_v1 Σ_j a_j x_j))        W_v1: C -> C/8
"""

import torch
from torch import Tensor, nn

REDUCTION = 8


class GlobalContext(nn.Module):
    """The GC block.

    Args:
        C: channels of x.
    """

    def __init__(self, C: int):
        super().__init__()
        reduced = max(C // REDUCTION, 1)
        self.W_k = nn.Conv2d(C, 1, 1)
        self.W_v1 = nn.Linear(C, reduced)
        self.norm = nn.LayerNorm(reduced)
        self.W_v2 = nn.Linear(reduced, C)

    def forward(self, x: Tensor) -> Tensor:
        """X [B, C, H, W] to the same shape."""
        a = self.W_k(x).flatten(2).softmax(dim=-1)
        context = torch.einsum("bcn,bn->bc", x.flatten(2), a[:, 0])
        return x + self.W_v2(torch.relu(self.norm(self.W_v1(context))))[:, :, None, None]
