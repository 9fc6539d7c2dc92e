"""DTFD-MIL (Zhang et al., 2022) with aggregated feature selection: ABMIL on pseudo-bags, then ABMIL on their features."""

import torch
from torch import Tensor, nn

from common.training.counter_random import uniform
from papers.acmil.bag_model import BagModel, Outputs, Reduce, softmax_over_instances
from papers.acmil.gated_attention import GatedAttention


def pseudo_bags(mask: Tensor, G: int, seed: Tensor | None) -> Tensor:
    """Split each bag into G pseudo-bags whose sizes differ by one at most: bool [B, G, N], True where an instance belongs.

    Args:
        mask: bool [B, N].
        G: pseudo-bags; a bag of fewer instances leaves some empty.
        seed: of a random split; None splits by position, in inference.
    """
    n = mask.sum(1, keepdim=True)
    if seed is None:
        rank = mask.long().cumsum(1) - 1
    else:
        rank = uniform(seed, *mask.shape).masked_fill(~mask, 2.0).argsort(1).argsort(1)
    group = (rank * G).div(n, rounding_mode="floor")
    return (group[:, None] == torch.arange(G, device=mask.device)[:, None]) & mask[:, None]


class DTFD(BagModel):
    """Tier 1: z_g = Σ_n a_gn h_n of pseudo-bag g, logits_g. Tier 2: ABMIL on z_1..z_G.

    Args:
        D_feat: features of an instance.
        L: size of h.
        D: hidden size of both attentions.
        classes: C.
        G: pseudo-bags.
    """

    def __init__(self, D_feat: int, L: int, D: int, classes: int, *, G: int = 4):
        super().__init__()
        self.G = G
        self.reduce = Reduce(D_feat, L)
        self.attention_1, self.classifier_1 = GatedAttention(L, D), nn.Linear(L, classes)
        self.attention_2, self.classifier_2 = GatedAttention(L, D), nn.Linear(L, classes)

    def forward(self, X: Tensor, mask: Tensor, seed: Tensor | None = None) -> Outputs:
        """`logits` [B, C], `pseudo_logits` [B, G, C], `pseudo_exists` [B, G], `attention` Σ_g b_g a_g [B, 1, N]."""
        H = self.reduce(X)
        members = pseudo_bags(mask, self.G, seed)
        exists = members.any(-1)
        # An empty pseudo-bag gets the whole bag, so that its softmax is defined; what follows leaves it out.
        a = softmax_over_instances(self.attention_1(H), members | ~exists[..., None] & mask[:, None])
        z = a @ H
        b = softmax_over_instances(self.attention_2(z), exists[:, None])  # [B, 1, G]
        return {
            "logits": self.classifier_2((b @ z)[:, 0]),
            "pseudo_logits": self.classifier_1(z),
            "pseudo_exists": exists,
            "attention": b @ a,
            "instances": H,
        }

    def loss(self, outputs: Outputs, Y: Tensor) -> Tensor:
        """Mean cross entropy of the pseudo-bags, which have the bag's label, plus that of tier 2: [B]."""
        logits, weight = outputs["pseudo_logits"], outputs["pseudo_exists"].float()
        each = nn.functional.cross_entropy(logits.transpose(1, 2), Y[:, None].expand(-1, self.G), reduction="none")
        tier_1 = (each * weight).sum(1) / weight.sum(1)
        return tier_1 + nn.functional.cross_entropy(outputs["logits"], Y, reduction="none")
