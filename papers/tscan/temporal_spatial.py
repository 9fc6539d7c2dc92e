"""The two branches of TSCAN (Nie et al., 2023, Section III; the official code where the text leaves room).

X [B, T, d] is cut into n segments X_0..X_{n-1} of T/n hours. The temporal branch takes hours as tokens of width d; the spatial
one takes variables as tokens of width T/n. In both, with PE the positional encoding and LN layer normalisation,

    z_0 = Enc(X_0):        x = X_0 + PE;  x = LN(x + MHA(x, x, x));  z_0 = LN'(x + FFN(x))
    z_j = Fuse_j(X_j, z_{j-1}):
                           u = X_j + PE;  q = LN1(u + MHA_self(u, u, u))
                           c = MHA_cross(q, K, V),  K = z_{j-1}
                           r = LN1'(q + c);  z_j = LN2(r + FFN(r))

The paper has V = MLP([q; K]); the code has V = z_{j-1}, causal masks (over variables too), and LN1' = LN1.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from common.errors import InputError
from papers.tscan.fusion import FUSIONS, Fusion
from papers.tscan.multi_head_attention import MultiHeadAttention, causal_mask, positional_encoding, received_attention

Branches = Literal["both", "temporal", "spatial"]
EPSILON = 1e-6


@dataclass(frozen=True)
class Variant:
    """What differs between the paper's text, the code, and the ablations.

    Attributes:
        value: V of the cross attention: "mlp" of q and K (paper) or "state", z_{j-1} (code).
        causal_hours: hours see no later ones.
        causal_variables: variables see none that are listed after them.
        shared_norm: one layer normalisation after both attentions of a Fuse block.
        hide_padding: no hour sees a padded one. The code's padding mask is always empty.
        segments: n.
        carry: False puts 0 in the place of z_{j-1}.
        branches: which.
        fusion: how the head joins both branches; a single branch has the mean over hours and a dense layer.
    """

    value: Literal["mlp", "state"]
    causal_hours: bool
    causal_variables: bool
    shared_norm: bool
    hide_padding: bool
    fusion: Fusion
    segments: int = 4
    carry: bool = True
    branches: Branches = "both"


PAPER = Variant(
    value="mlp", causal_hours=False, causal_variables=False, shared_norm=False, hide_padding=True, fusion="maximum"
)  # fmt: skip
CODE = Variant(
    value="state", causal_hours=True, causal_variables=True, shared_norm=True, hide_padding=False,
    fusion="concatenation_of_hours",
)  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """E, heads, width of the feed-forward layers, and the rate of dropout."""

    E: int = 512
    heads: int = 8
    feed_forward: int = 512
    dropout: float = 0.3


class ReceivedAttention(NamedTuple):
    """Mean attention that each token receives from the queries of its own segment, over heads and queries.

    Attributes:
        hours: [B, T]; sums to n. Empty [B, 0] without a temporal branch.
        variables: [B, n, d], one row a segment, each sums to 1. Empty [B, 0, 0] without a spatial branch.
    """

    hours: Tensor
    variables: Tensor


def feed_forward(width: int, inner: int) -> nn.Sequential:
    """FFN: Dense(inner, ReLU), Dense(w)."""
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))


class Encoder(nn.Module):
    """z_0 = Enc(X_0)."""

    def __init__(self, width: int, sizes: Sizes):
        super().__init__()
        self.attention = MultiHeadAttention(width, width, sizes.E, sizes.heads)
        self.FFN = feed_forward(width, sizes.feed_forward)
        self.LN1, self.LN2 = nn.LayerNorm(width, EPSILON), nn.LayerNorm(width, EPSILON)
        self.drop = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """x: X_0 + PE [B, tokens, w]; mask: see `MultiHeadAttention`. Returns z_0 and the weights."""
        a, weights = self.attention(x, x, x, mask)
        x = self.LN1(x + self.drop(a))
        return self.LN2(x + self.drop(self.FFN(x))), weights


class Fuse(nn.Module):
    """z_j = Fuse_j(X_j, z_{j-1})."""

    def __init__(self, width: int, sizes: Sizes, variant: Variant):
        super().__init__()
        self.MHA_self = MultiHeadAttention(width, width, sizes.E, sizes.heads)
        self.MHA_cross = MultiHeadAttention(width, width, sizes.E, sizes.heads)
        self.MLP = (
            nn.Sequential(nn.Linear(2 * width, sizes.feed_forward), nn.ReLU(), nn.Linear(sizes.feed_forward, width))
            if variant.value == "mlp"
            else None
        )
        self.FFN = feed_forward(width, sizes.feed_forward)
        self.LN1, self.LN2 = nn.LayerNorm(width, EPSILON), nn.LayerNorm(width, EPSILON)
        self.LN1_cross = None if variant.shared_norm else nn.LayerNorm(width, EPSILON)
        self.drop = nn.Dropout(sizes.dropout)

    def forward(self, u: Tensor, z: Tensor, self_mask: Tensor | None, cross_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """u: X_j + PE [B, tokens, w]; z: z_{j-1}, the same shape. Returns z_j and the weights of the self attention."""
        a, weights = self.MHA_self(u, u, u, self_mask)
        q = self.LN1(u + self.drop(a))
        V = z if self.MLP is None else self.MLP(torch.cat([q, z], dim=-1))
        c, _ = self.MHA_cross(q, z, V, cross_mask)
        r = (self.LN1 if self.LN1_cross is None else self.LN1_cross)(q + self.drop(c))
        return self.LN2(r + self.drop(self.FFN(r))), weights


class Branch(nn.Module):
    """z_{n-1} of one branch.

    Args:
        tokens: of a segment: T/n hours, or d variables.
        width: of a token.
        sizes: of the layers.
        variant: which.
        causal: tokens see no later ones.
    """

    PE: Tensor

    def __init__(self, tokens: int, width: int, sizes: Sizes, variant: Variant, *, causal: bool):
        super().__init__()
        self.encoder = Encoder(width, sizes)
        self.fuse = nn.ModuleList(Fuse(width, sizes, variant) for _ in range(variant.segments - 1))
        self.carry, self.causal = variant.carry, causal
        self.register_buffer("PE", positional_encoding(tokens, width), persistent=False)

    def forward(self, X: list[Tensor], padded: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Go through the segments.

        Args:
            X: n segments [B, tokens, w].
            padded: for each, bool [B, tokens], True where a token is padding that none shall see.

        Returns:
            z_{n-1} [B, tokens, w], and what each token of each segment receives, n times [B, tokens].
        """
        later = causal_mask(X[0].shape[-2], X[0].device) if self.causal else None

        def mask(j: int) -> Tensor | None:
            if padded is None:
                return later
            hidden = padded[j].unsqueeze(-2)
            return hidden if later is None else hidden | later

        z, weights = self.encoder(X[0] + self.PE, mask(0))
        received = [received_attention(weights)]
        for j, fuse in enumerate(self.fuse, start=1):
            z, weights = fuse(X[j] + self.PE, z if self.carry else torch.zeros_like(z), mask(j), mask(j - 1))
            received.append(received_attention(weights))
        return z, received


class TSCAN(nn.Module):
    """Both branches and the head.

    Args:
        hours: T.
        variables: d.
        outputs: logits.
        sizes: of the layers.
        variant: `PAPER`, `CODE`, or an ablation.

    Raises:
        InputError: n does not divide T.
    """

    def __init__(self, hours: int, variables: int, outputs: int, sizes: Sizes, variant: Variant):
        super().__init__()
        n = variant.segments
        if n < 1 or hours % n:
            raise InputError(f"segments is {n} and T is {hours} hours; segments must divide the hours.")
        self.n, self.hide_padding = n, variant.hide_padding
        self.temporal = self.spatial = None
        if variant.branches != "spatial":
            self.temporal = Branch(hours // n, variables, sizes, variant, causal=variant.causal_hours)
        if variant.branches != "temporal":
            self.spatial = Branch(variables, hours // n, sizes, variant, causal=variant.causal_variables)
        head = FUSIONS[variant.fusion if variant.branches == "both" else "single"]
        self.head = head(variables, outputs, sizes.dropout)

    def forward(self, X: Tensor, present: Tensor | None = None, *, attention: bool = False):
        """Predict.

        Args:
            X: [B, T, d].
            present: bool [B, T], False for padded hours; None: all are present.
            attention: also return what the tokens receive.

        Returns:
            Logits [B, outputs]; with `attention` also a `ReceivedAttention`.
        """
        segments = list(X.chunk(self.n, dim=1))
        padded = list((~present).chunk(self.n, dim=1)) if present is not None and self.hide_padding else None
        empty = X.new_zeros(X.shape[0], 0)
        z_t = z_s = None
        hours, variables = empty, empty[:, :, None]
        if self.temporal is not None:
            z_t, received = self.temporal(segments, padded)
            hours = torch.cat(received, dim=1)
        if self.spatial is not None:
            z_s, received = self.spatial([segment.transpose(1, 2) for segment in segments])
            z_s = z_s.transpose(1, 2)
            variables = torch.stack(received, dim=1)
        last = None if padded is None else ~padded[-1]
        logits = self.head([z for z in (z_t, z_s) if z is not None], last)
        return (logits, ReceivedAttention(hours, variables)) if attention else logits
