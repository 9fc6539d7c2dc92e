"""The light attention block. A reconstruction: not the authors' block.

Of the paper only the abstract is known to us: a block that slightly affects speed and keeps up with complex blocks. Its form is
not. This one is made of parts that are known to be cheap, a channel gate and a spatial gate with a residual start:

    c = σ(conv1d_k(GAP(x)))                                                              [B, C, 1, 1]
    s = σ(conv1x1(ReLU(BN(conv3x3_depthwise(BN(conv1x1(x): C -> C/r))))): C/r -> 1)      [B, 1, H, W]
    y = x · (1 + α (c s - 1/2))                                                          α = 0 at the start: y = x

k is the odd number nearest to |log2(C)/2 + 1/2|, as in ECA. A user who has the paper replaces this class.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import InputError
from papers.person_reid.channel_attention import eca_kernel_size

PROVENANCE = "reconstruction, not the authors' block"
Parts = Literal["c", "s", "cs"]
Gate = Literal["residual", "mult"]


class Little(nn.Module):
    """The reconstruction.

    Args:
        C: channels of x.
        parts: the gates that are used: channel, spatial, or both; the other one is 1.
        reduction: r.
        gate: `residual` as above; `mult` multiplies by the gates alone, y = x · c s, and does not start at the identity.

    Raises:
        InputError: r leaves no channel.
    """

    def __init__(self, C: int, *, parts: Parts = "cs", reduction: int = 16, gate: Gate = "residual"):
        super().__init__()
        reduced = C // reduction
        if reduced < 1:
            raise InputError(f"reduction is {reduction} at {C} channels; none would be left. Take at most {C}.")
        self.gate = gate
        k = eca_kernel_size(C)
        self.channel = nn.Conv1d(1, 1, k, padding=k // 2, bias=False) if "c" in parts else None
        self.spatial = None
        if "s" in parts:
            self.spatial = nn.Sequential(
                nn.Conv2d(C, reduced, 1, bias=False),
                nn.BatchNorm2d(reduced),
                nn.Conv2d(reduced, reduced, 3, padding=1, groups=reduced, bias=False),
                nn.BatchNorm2d(reduced),
                nn.ReLU(),
                nn.Conv2d(reduced, 1, 1),
            )
        self.alpha = nn.Parameter(torch.zeros(())) if gate == "residual" else None

    def gates(self, x: Tensor) -> Tensor:
        """C s [B, C, H, W], or broadcast to it: x [B, C, H, W], floating point."""
        found: Tensor | None = None
        if self.channel is not None:
            pooled = x.mean(dim=(2, 3))
            found = torch.sigmoid(self.channel(pooled[:, None])).transpose(1, 2)[..., None]
        if self.spatial is not None:
            s = torch.sigmoid(self.spatial(x))
            found = s if found is None else found * s
        assert found is not None
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Y of the shape of x [B, C, H, W]."""
        gates = self.gates(x)
        if self.alpha is None:
            return x * gates
        return x * (1 + self.alpha * (gates - 0.5)).to(x.dtype)
