"""ABMIL (Ilse et al., 2018), the baseline of ACMIL (Section 3.1)."""

from torch import Tensor, nn

from papers.acmil.bag_model import BagModel, Outputs, Reduce, softmax_over_instances
from papers.acmil.gated_attention import GatedAttention


class ABMIL(BagModel):
    """a = softmax(s), z = Σ_n a_n h_n, logits = W_c z + b_c.

    Args:
        D_feat: features of an instance.
        L: size of h.
        D: hidden size of the attention.
        classes: C.
    """

    def __init__(self, D_feat: int, L: int, D: int, classes: int):
        super().__init__()
        self.reduce = Reduce(D_feat, L)
        self.attention = GatedAttention(L, D)
        self.classifier = nn.Linear(L, classes)

    def forward(self, X: Tensor, mask: Tensor, seed: Tensor | None = None) -> Outputs:
        """`logits` [B, C], `attention` [B, 1, N], `instances` h [B, N, L]."""
        del seed  # draws nothing
        H = self.reduce(X)
        a = softmax_over_instances(self.attention(H), mask[:, None])
        z = (a @ H)[:, 0]
        return {"logits": self.classifier(z), "attention": a, "instances": H}
