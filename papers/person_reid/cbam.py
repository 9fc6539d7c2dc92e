"""CBAM (Woo et al., ECCV 2018): a gate on channels, then a gate on positions.

x' = x  · σ(MLP(mean over positions) + MLP(max over positions))      MLP: C -> C/16 -> C
y  = x' · σ(BN(conv7x7([mean over channels; max over channels])))
"""

import torch
from torch import Tensor, nn

REDUCTION = 16


class CBAM(nn.Module):
    """Convolutional block attention module.

    Args:
        C: channels of x.
    """

    def __init__(self, C: int):
        super().__init__()
        reduced = max(C // REDUCTION, 1)
        self.MLP = nn.Sequential(nn.Conv2d(C, reduced, 1, bias=False), nn.ReLU(), nn.Conv2d(reduced, C, 1, bias=False))
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """X [B, C, H, W] to the same shape."""
        x = x * torch.sigmoid(self.MLP(x.mean(dim=(2, 3), keepdim=True)) + self.MLP(x.amax(dim=(2, 3), keepdim=True)))
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.norm(self.conv(pooled)))
