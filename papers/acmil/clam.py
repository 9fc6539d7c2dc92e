"""CLAM with a single branch (Lu et al., 2021): ABMIL that also tells the most from the least attended instances."""

import torch
from torch import Tensor, nn

from papers.acmil.bag_model import BagModel, Outputs, Reduce, softmax_over_instances
from papers.acmil.gated_attention import GatedAttention


class CLAM(BagModel):
    """The bag as in ABMIL; the classifier of the bag's class tells its k most attended instances from its k least attended.

    Args:
        D_feat: features of an instance.
        L: size of h.
        D: hidden size of the attention.
        classes: C.
        k: instances on each side (B = 8 in the paper); a bag of n instances has min(k, floor(n / 2)).
        bag_weight: of the bag's loss; the instances' has 1 - bag_weight.
    """

    def __init__(self, D_feat: int, L: int, D: int, classes: int, *, k: int = 8, bag_weight: float = 0.7):
        super().__init__()
        self.k, self.bag_weight, self.classes = k, bag_weight, classes
        self.reduce = Reduce(D_feat, L)
        self.attention = GatedAttention(L, D)
        self.classifier = nn.Linear(L, classes)
        self.instance_classifiers = nn.Linear(L, 2 * classes)

    def forward(self, X: Tensor, mask: Tensor, seed: Tensor | None = None) -> Outputs:
        """As ABMIL, and `instance_logits` [B, 2k, C, 2] (k most, then k least attended), `instance_weight` [B, 2k]."""
        del seed  # draws nothing
        H = self.reduce(X)
        S = self.attention(H)
        a = softmax_over_instances(S, mask[:, None])
        k = min(self.k, X.shape[1])
        scores = S[:, 0].detach()
        most = scores.masked_fill(~mask, -torch.inf).topk(k, dim=-1).indices
        least = (-scores).masked_fill(~mask, -torch.inf).topk(k, dim=-1).indices
        chosen = torch.cat([most, least], dim=1)
        k_bag = (mask.sum(1, keepdim=True) // 2).clamp(max=k)
        weight = (torch.arange(k, device=X.device) < k_bag).to(H.dtype).repeat(1, 2)
        of_chosen = H.gather(1, chosen[..., None].expand(-1, -1, H.shape[-1]))
        return {
            "logits": self.classifier((a @ H)[:, 0]),
            "attention": a,
            "instances": H,
            "instance_logits": self.instance_classifiers(of_chosen).unflatten(-1, (self.classes, 2)),
            "instance_weight": weight,
        }

    def loss(self, outputs: Outputs, Y: Tensor) -> Tensor:
        """bag_weight CE(bag) + (1 - bag_weight) mean CE(instances of the classifier of class Y): [B]."""
        logits = outputs["instance_logits"]
        B, twice_k = logits.shape[:2]
        own = logits.gather(2, Y[:, None, None, None].expand(-1, twice_k, 1, 2))[:, :, 0]  # [B, 2k, 2]
        target = (torch.arange(twice_k, device=Y.device) < twice_k // 2).long().expand(B, -1)  # 1: most attended
        each = nn.functional.cross_entropy(own.transpose(1, 2), target, reduction="none")
        weight = outputs["instance_weight"]
        instances = (each * weight).sum(1) / weight.sum(1).clamp(min=1)
        bag = nn.functional.cross_entropy(outputs["logits"], Y, reduction="none")
        return self.bag_weight * bag + (1 - self.bag_weight) * instances
