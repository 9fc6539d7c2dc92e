"""Gates on channels: SE (Hu et al., CVPR 2018), its one-layer form (Lee and Park, CVPR 2020) and ECA (Wang et al., CVPR 2020).

With z = GAP(x), the mean over positions:

    SE    y = x · σ(W2 ReLU(W1 z))         W1: C -> C/16
    eSE   y = x · hardsigmoid(W z)         W: C -> C
    ECA   y = x · σ(conv1d_k(z))           k over neighbouring channels
"""

import math

import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

REDUCTION = 16


def eca_kernel_size(C: int) -> int:
    """k: |log2(C)/2 + 1/2| rounded down, and one more where that is even."""
    k = int(abs(math.log2(C) / 2 + 0.5))
    return k if k % 2 else k + 1


class SE(SqueezeExcitation):
    """Squeeze and excitation: x [B, C, H, W] to the same shape."""

    def __init__(self, C: int):
        super().__init__(C, max(C // REDUCTION, 1))


class EffectiveSE(nn.Module):
    """Squeeze and excitation with one layer, so that no channel is lost on the way."""

    def __init__(self, C: int):
        super().__init__()
        self.W = nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        """X [B, C, H, W] to the same shape."""
        return x * nn.functional.hardsigmoid(self.W(x.mean(dim=(2, 3), keepdim=True)))


class ECA(nn.Module):
    """Efficient channel attention: k weights in all."""

    def __init__(self, C: int):
        super().__init__()
        k = eca_kernel_size(C)
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """X [B, C, H, W] to the same shape."""
        z = x.mean(dim=(2, 3))
        return x * torch.sigmoid(self.conv(z[:, None])).transpose(1, 2)[..., None]
