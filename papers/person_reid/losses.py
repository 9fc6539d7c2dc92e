"""The two losses of the bag of tricks (Luo et al., CVPRW 2019), as fast-reid writes them.

L_id      = mean of Σ_k -q_k log softmax(logits)_k         q: 1 - ε for the true identity, ε/(K - 1) for others
L_triplet = mean over anchors of max(0, d_ap - d_an + m)   d_ap: the farthest image of the identity in the batch,
d_an: the nearest of another (batch-hard), Euclidean
"""

import torch
from torch import Tensor

from common.errors import InputError


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, epsilon: float = 0.1) -> Tensor:
    """L_id, a scalar.

    Args:
        logits: floating point [B, K], K at least 2.
        labels: int64 [B], 0..K - 1.
        epsilon: ε.

    Raises:
        InputError: there is one class alone.
    """
    K = logits.shape[1]
    if K < 2:
        raise InputError(f"logits is {list(logits.shape)}; label smoothing needs at least two identities.")
    logs = logits.log_softmax(dim=1)
    true = logs.gather(1, labels[:, None])[:, 0]
    others = logs.sum(dim=1) - true
    return -((1 - epsilon) * true + epsilon / (K - 1) * others).mean()


def batch_hard_triplet(f: Tensor, labels: Tensor, margin: float = 0.3) -> Tensor:
    """L_triplet, a scalar.

    Args:
        f: floating point [B, d], not normalised. The batch holds at least two identities.
        labels: int64 [B].
        margin: m.
    """
    squared = (f[:, None] - f[None]).square().sum(dim=-1)
    distances = squared.clamp(min=1e-12).sqrt()
    same = labels[:, None] == labels
    d_ap = distances.masked_fill(~same, -torch.inf).amax(dim=1)
    d_an = distances.masked_fill(same, torch.inf).amin(dim=1)
    return torch.relu(d_ap - d_an + margin).mean()
