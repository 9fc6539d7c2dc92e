"""The loss of a mask: cross entropy and soft Dice. The authors' region mutual information loss was not published."""

from torch import Tensor
from torch.nn.functional import softplus

from common.errors import InputError


def cross_entropy_and_dice(logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean cross entropy of pixels plus the mean over images of 1 - (2 Σ p g + 1) / (Σ p + Σ g + 1).

    Args:
        logits: float [B, 2, H, W], background and grounding.
        target: bool [B, H, W].
        valid: bool [B, H, W]; other pixels count nowhere. None: all count.

    Returns:
        float32 without dimensions.

    Raises:
        InputError: shapes do not fit.
    """
    if logits.ndim != 4 or logits.shape[1] != 2 or target.shape != logits[:, 0].shape:
        raise InputError(
            f"logits are {tuple(logits.shape)} and target {tuple(target.shape)}; expected [B, 2, H, W] and [B, H, W]."
        )
    z = (logits[:, 1] - logits[:, 0]).float()  # with two classes, cross entropy is that of a sigmoid of the difference
    g = target.float()
    p = z.sigmoid()
    entropy = softplus(z) - z * g
    if valid is None:
        mean = entropy.mean()
    else:
        kept = valid.float()
        g, p = g * kept, p * kept
        mean = (entropy * kept).sum() / kept.sum().clamp(min=1)
    overlap, sizes = (p * g).sum((1, 2)), p.sum((1, 2)) + g.sum((1, 2))
    return mean + (1 - (2 * overlap + 1) / (sizes + 1)).mean()
