"""ACMIL on multi-head attention (appendix 9.1): each branch attends with 8 heads from a learned query."""

import math

import torch
from torch import Tensor, nn

from papers.acmil.acmil import diversity_loss, stochastic_top_k_mask
from papers.acmil.bag_model import BagModel, Outputs, Reduce, softmax_over_instances

QUERY_SCALE = 1e-3  # standard deviation: the official code's N(0, 1e-6) read as a variance


class MultiHeadACMIL(BagModel):
    """Branch i: s_i = (W_Q q_i) · (W_K h_n) / sqrt(d) in each head, z_i = LayerNorm(W_O concat_heads(a_i W_V h)).

    The bag has its own W_V and W_O and takes the mean over branches of each head's map. M = 1 without masking is plain
    multi-head attention (`MHA` in Table 4).

    Args:
        D_feat: features of an instance.
        L: size of h.
        classes: C.
        heads: dividing L.
        M: branches.
        K: of STKIM, in each branch and head.
        p: of STKIM.
        share: see `stochastic_top_k_mask`.
        bernoulli: see `stochastic_top_k_mask`.
        diversity: weight of L_d, on the mean over heads of each branch's map.
    """

    def __init__(
        self, D_feat: int, L: int, classes: int, *, heads: int = 8, M: int = 5, K: int = 10, p: float = 0.6,
        share: float | None = None, bernoulli: bool = False, diversity: float = 1.0,
    ):  # fmt: skip
        super().__init__()
        self.heads, self.M, self.K, self.p, self.share, self.bernoulli = heads, M, K, p, share, bernoulli
        self.diversity = diversity
        self.reduce = Reduce(D_feat, L)
        self.q = nn.Parameter(QUERY_SCALE * torch.randn(M, L))
        self.W_Q = nn.ModuleList(nn.Linear(L, L) for _ in range(M))
        self.W_K = nn.ModuleList(nn.Linear(L, L) for _ in range(M))
        self.W_V = nn.ModuleList(nn.Linear(L, L) for _ in range(M if M > 1 else 0))
        self.W_O = nn.ModuleList(nn.Linear(L, L) for _ in range(M if M > 1 else 0))
        self.norm = nn.ModuleList(nn.LayerNorm(L, eps=1e-6) for _ in range(M if M > 1 else 0))
        self.C = nn.ModuleList(nn.Linear(L, classes) for _ in range(M if M > 1 else 0))
        self.W_V_bag, self.W_O_bag, self.norm_bag = nn.Linear(L, L), nn.Linear(L, L), nn.LayerNorm(L, eps=1e-6)
        self.C_bag = nn.Linear(L, classes)

    def forward(self, X: Tensor, mask: Tensor, seed: Tensor | None = None) -> Outputs:
        """As `ACMIL.forward`; `attention` is the mean over heads, [B, M, N]."""
        H = self.reduce(X)
        d = H.shape[-1] // self.heads
        Q = torch.stack([W_Q(self.q[i]) for i, W_Q in enumerate(self.W_Q)]).unflatten(-1, (self.heads, d))  # [M, heads, d]
        K = torch.stack([W_K(H) for W_K in self.W_K], dim=1).unflatten(-1, (self.heads, d))  # [B, M, N, heads, d]
        S = torch.einsum("mhd,bmnhd->bmhn", Q, K) / math.sqrt(d)
        if seed is not None and self.K > 0 and self.p > 0:
            maps = S.flatten(1, 2)
            out = stochastic_top_k_mask(maps, mask, seed, self.K, self.p, share=self.share, bernoulli=self.bernoulli)
            S = S.masked_fill(out.unflatten(1, (self.M, self.heads)), -torch.inf)
        a = softmax_over_instances(S, mask[:, None, None])  # [B, M, heads, N]

        def embed(maps: Tensor, W_V: nn.Module, W_O: nn.Module, norm: nn.Module) -> Tensor:
            values = W_V(H).unflatten(-1, (self.heads, d))
            return norm(W_O(torch.einsum("bhn,bnhd->bhd", maps, values).flatten(1)))

        z = embed(a.mean(1), self.W_V_bag, self.W_O_bag, self.norm_bag)
        outputs = {"logits": self.C_bag(z), "attention": a.mean(2), "instances": H}
        if self.M > 1:
            branches = zip(self.C, self.W_V, self.W_O, self.norm, strict=True)
            outputs["branch_logits"] = torch.stack([C(embed(a[:, i], *rest)) for i, (C, *rest) in enumerate(branches)], dim=1)
        return outputs

    def loss(self, outputs: Outputs, Y: Tensor) -> Tensor:
        """L_b + L_p + L_d as in `ACMIL`: [B]."""
        L_b = nn.functional.cross_entropy(outputs["logits"], Y, reduction="none")
        if self.M == 1:
            return L_b
        each = outputs["branch_logits"].transpose(1, 2)
        L_p = nn.functional.cross_entropy(each, Y[:, None].expand(-1, self.M), reduction="none").mean(1)
        return L_b + L_p + self.diversity * diversity_loss(outputs["attention"])
