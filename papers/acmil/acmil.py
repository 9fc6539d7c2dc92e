"""ACMIL (arXiv 2311.07125): multiple branch attention (MBA) and stochastic top-K instance masking (STKIM).

    a_i = softmax(S_i),  z_i = a_i H,  p_i = C_i(z_i)                       branches i = 1..M (Section 3.2)
    a = (1/M) Σ_i a_i,   z = a H,      p = C_bag(z)                         the bag
    L = L_b + L_p + L_d                                                     Section 3.4
    L_b = CE(p, Y),  L_p = (1/M) Σ_i CE(p_i, Y),  L_d = 2/(M(M-1)) Σ_{i<j} cos(a_i, a_j)

STKIM (Section 3.3, in training only): of the K largest attentions of a branch, a share p is set to 0 and the rest renormalised.
"""

import torch
from torch import Tensor, nn

from common.training.counter_random import uniform
from papers.acmil.bag_model import BagModel, Outputs, Reduce, softmax_over_instances
from papers.acmil.gated_attention import GatedAttention


def stochastic_top_k_mask(
    S: Tensor, mask: Tensor, seed: Tensor, K: int, p: float, *, share: float | None = None, bernoulli: bool = False
) -> Tensor:
    """Which instances STKIM takes out.

    Args:
        S: scores [B, M, N].
        mask: bool [B, N], True where there is an instance.
        seed: int64 without dimensions.
        K: how many of the largest scores may be taken out; a bag of n instances has K' = min(K, n).
        p: in the official code, exactly floor(K' p) of them are taken out, drawn without replacement.
        share: with one, K' = min(K, n, ⌈share n⌉).
        bernoulli: take out each of the K' with probability p (the paper's text).

    Returns:
        bool [B, M, N]. At least one instance of a bag always stays in.
    """
    B, M, N = S.shape
    k = min(K, N)
    if k == 0:
        return torch.zeros_like(S, dtype=torch.bool)
    n = mask.sum(-1)[:, None, None]
    K_bag = n.clamp(max=k) if share is None else torch.ceil(share * n).long().clamp(max=k)
    top = S.detach().masked_fill(~mask[:, None], -torch.inf).topk(k, dim=-1).indices
    place = torch.arange(k, device=S.device)
    drawn = uniform(seed, B, M, k).masked_fill(place >= K_bag, 2.0)  # numbers beyond K' come last
    rank = drawn.argsort(-1).argsort(-1)
    out = drawn < p if bernoulli else rank < torch.floor(K_bag * p + 1e-4)
    out = out & (place < K_bag) & (rank < n - 1)
    return torch.zeros_like(S, dtype=torch.bool).scatter(-1, top, out)


def diversity_loss(a: Tensor) -> Tensor:
    """L_d: the mean cosine of two branches' heat maps. a [B, M, N] to [B]; 0 for one branch."""
    M = a.shape[1]
    if M == 1:
        return a.new_zeros(a.shape[0])
    unit = a / a.norm(dim=-1, keepdim=True)
    cosines = unit @ unit.transpose(1, 2)
    return cosines.triu(diagonal=1).sum((1, 2)) * 2 / (M * (M - 1))


class ACMIL(BagModel):
    """MBA with M branches and STKIM.

    Args:
        D_feat: features of an instance.
        L: size of h.
        D: hidden size of the attention.
        classes: C.
        M: branches. M = 1 without masking is ABMIL.
        K: of STKIM; 0 masks nothing.
        p: of STKIM.
        share: see `stochastic_top_k_mask`.
        bernoulli: see `stochastic_top_k_mask`.
        shared_trunk: see `GatedAttention`.
        diversity: weight of L_d.
    """

    def __init__(
        self, D_feat: int, L: int, D: int, classes: int, *, M: int = 5, K: int = 10, p: float = 0.6, share: float | None = None,
        bernoulli: bool = False, shared_trunk: bool = True, diversity: float = 1.0,
    ):  # fmt: skip
        super().__init__()
        self.M, self.K, self.p, self.share, self.bernoulli, self.diversity = M, K, p, share, bernoulli, diversity
        self.reduce = Reduce(D_feat, L)
        self.attention = GatedAttention(L, D, M, shared_trunk=shared_trunk)
        self.C = nn.ModuleList(nn.Linear(L, classes) for _ in range(M if M > 1 else 0))
        self.C_bag = nn.Linear(L, classes)

    def forward(self, X: Tensor, mask: Tensor, seed: Tensor | None = None) -> Outputs:
        """`logits` p [B, C], `branch_logits` p_i [B, M, C] (M > 1), `attention` a_i [B, M, N], `instances` h [B, N, L].

        With a seed the heat maps are masked, those of the outputs too.
        """
        H = self.reduce(X)
        S = self.attention(H)
        if seed is not None and self.K > 0 and self.p > 0:
            out = stochastic_top_k_mask(S, mask, seed, self.K, self.p, share=self.share, bernoulli=self.bernoulli)
            S = S.masked_fill(out, -torch.inf)
        a = softmax_over_instances(S, mask[:, None])
        z = a @ H
        outputs = {"logits": self.C_bag(z.mean(1)), "attention": a, "instances": H}
        if self.M > 1:
            outputs["branch_logits"] = torch.stack([C(z[:, i]) for i, C in enumerate(self.C)], dim=1)
        return outputs

    def loss(self, outputs: Outputs, Y: Tensor) -> Tensor:
        """L = L_b + L_p + L_d of each bag: [B]."""
        L_b = nn.functional.cross_entropy(outputs["logits"], Y, reduction="none")
        if self.M == 1:
            return L_b
        p = outputs["branch_logits"]
        L_p = nn.functional.cross_entropy(p.transpose(1, 2), Y[:, None].expand(-1, self.M), reduction="none").mean(1)
        return L_b + L_p + self.diversity * diversity_loss(outputs["attention"])
