"""Non-local block (Wang et al., CVPR 2018) as AGW and fast-reid write it: scores over N, no softmax.

    y = (θ φᵀ / N) g          θ, φ, g: 1x1 convolutions C -> inner
    z = BN(W y) + x           W: inner -> C; gain and bias of BN start at 0: z = x

Published AGW numbers come from inner = 1: both repositories compute it as `reduc_ratio // reduc_ratio`. C/2 is what they mean.
"""

from torch import Tensor, nn


class NonLocal(nn.Module):
    """The block.

    Args:
        C: channels of x.
        inner: channels of θ, φ and g; None is C/2.
    """

    def __init__(self, C: int, inner: int | None = None):
        super().__init__()
        inner = max(C // 2, 1) if inner is None else inner
        self.theta, self.phi, self.g = (nn.Conv2d(C, inner, 1) for _ in range(3))
        self.W = nn.Conv2d(inner, C, 1)
        self.norm = nn.BatchNorm2d(C)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        """X [B, C, H, W] to the same shape."""
        theta, phi, g = (layer(x).flatten(2) for layer in (self.theta, self.phi, self.g))  # [B, inner, N]
        scores = theta.transpose(1, 2) @ phi / x.shape[2] / x.shape[3]  # [B, N, N]
        y = (scores @ g.transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
        return self.norm(self.W(y)) + x
