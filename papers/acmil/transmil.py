"""TransMIL (Shao et al., 2021): two layers of Nyström self-attention with a convolutional position encoding between them.

Bags are padded here, and a network must not see that: every mean, softmax and convolution is over a bag's own tokens.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, pad

from papers.acmil.bag_model import BagModel, Outputs, Reduce

PINV_ITERATIONS = 6
VALUE_KERNEL = 33  # of the convolution of values beside the attention
POSITION_KERNELS = (7, 5, 3)


def iterative_pinv(A: Tensor) -> Tensor:
    """Moore-Penrose inverse of matrices [..., m, m] by six iterations (Nyströmformer, Xiong et al., 2021, eq. 11)."""
    scale = A.abs().sum(-2).amax(-1) * A.abs().sum(-1).amax(-1)
    Z = A.transpose(-1, -2) / scale[..., None, None]
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    for _ in range(PINV_ITERATIONS):
        AZ = A @ Z
        Z = 0.25 * Z @ (13 * eye - AZ @ (15 * eye - AZ @ (7 * eye - AZ)))
    return Z


def landmark_means(x: Tensor, mask: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Means of m consecutive groups of a bag's tokens, of sizes that differ by one at most.

    Args:
        x: [B, T, d].
        mask: bool [B, T], True where there is a token; tokens come first.
        m: groups; a bag of fewer tokens leaves some empty.

    Returns:
        [B, m, d], 0 for an empty group, and bool [B, m], whether it has tokens.
    """
    place = torch.arange(mask.shape[1], device=mask.device)
    group = (place * m).div(mask.sum(1, keepdim=True), rounding_mode="floor").clamp(max=m - 1)
    belongs = (group[..., None] == torch.arange(m, device=mask.device)).to(x.dtype) * mask[..., None]
    count = belongs.sum(1)
    return belongs.transpose(1, 2) @ x / count.clamp(min=1)[..., None], count > 0


class NystromAttention(nn.Module):
    """softmax(Q K~^T) pinv(softmax(Q~ K~^T)) softmax(Q~ K^T) V, with a convolution of V beside it.

    Args:
        L: size of tokens.
        heads: of L / heads dimensions.
        m: landmarks.
    """

    def __init__(self, L: int, heads: int, m: int):
        super().__init__()
        self.heads, self.m = heads, m
        self.QKV = nn.Linear(L, 3 * L, bias=False)
        self.out = nn.Linear(L, L)
        self.value_convolution = nn.Parameter(torch.empty(heads, 1, VALUE_KERNEL, 1))
        nn.init.kaiming_uniform_(self.value_convolution, a=math.sqrt(5))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, T, L] with mask [B, T] to tokens, and the attention of the first one, mean over heads: [B, T]."""
        B, T, L = x.shape
        d = L // self.heads

        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, d)).transpose(1, 2).reshape(B * self.heads, T, d)

        Q, K, V = (split(y) for y in self.QKV(x).chunk(3, dim=-1))
        Q = Q / math.sqrt(d)
        tokens = mask.repeat_interleave(self.heads, 0)
        Q_m, exists = landmark_means(Q, tokens, self.m)
        K_m, _ = landmark_means(K, tokens, self.m)
        first = torch.softmax((Q @ K_m.transpose(1, 2)).masked_fill(~exists[:, None], -torch.inf), dim=-1)
        middle = torch.softmax((Q_m @ K_m.transpose(1, 2)).masked_fill(~exists[:, None], -torch.inf), dim=-1)
        eye = torch.eye(self.m, dtype=x.dtype, device=x.device)
        middle = torch.where(exists[..., None], middle, eye)  # an empty landmark is a block of its own
        last = torch.softmax((Q_m @ K.transpose(1, 2)).masked_fill(~tokens[:, None], -torch.inf), dim=-1)
        weights = first @ iterative_pinv(middle)
        V = V.masked_fill(~tokens[..., None], 0)
        attended = weights @ (last @ V)
        values = V.unflatten(0, (B, self.heads)).permute(0, 1, 3, 2).reshape(B, self.heads * d, T)
        kernel = self.value_convolution[:, :, :, 0].repeat_interleave(d, 0)  # one for all dimensions of a head
        beside = conv1d(values, kernel, padding=VALUE_KERNEL // 2, groups=self.heads * d)
        joined = attended.unflatten(0, (B, self.heads)).transpose(1, 2).flatten(2) + beside.transpose(1, 2)
        of_first = (weights[:, :1] @ last)[:, 0].unflatten(0, (B, self.heads)).mean(1)
        return self.out(joined).masked_fill(~mask[..., None], 0), of_first


class PositionEncoding(nn.Module):
    """PPEG: depth-wise convolutions over the tokens of a bag laid out as a square, added to them."""

    def __init__(self, L: int):
        super().__init__()
        self.kernels = nn.ModuleList(nn.Conv2d(L, L, k, padding=k // 2, groups=L) for k in POSITION_KERNELS)

    def forward(self, x: Tensor, side: Tensor) -> Tensor:
        """Tokens x [B, T, L] without the class token; the first side² of a bag's are laid out, side [B, 1]."""
        B, T, L = x.shape
        most = math.isqrt(T - 1) + 1
        place = torch.arange(T, device=x.device)
        cell = place.div(side, rounding_mode="floor") * most + place % side  # [B, T]
        inside = place < side * side
        # Cells beyond the square go to one more place, which is cut off: a smaller square lies in zeros, as if it were padded.
        cell = torch.where(inside, cell, most * most)[..., None].expand(-1, -1, L)
        square = x.new_zeros(B, most * most + 1, L).scatter(1, cell, x)[:, :-1]
        square = square.transpose(1, 2).unflatten(2, (most, most))
        encoded = square + sum(
            conv2d(square, k.weight, k.bias, padding=k.padding, groups=L)  # pyright: ignore[reportArgumentType, reportCallIssue]
            for k in self.kernels
        )
        flat = pad(encoded.flatten(2).transpose(1, 2), (0, 0, 0, 1))
        return flat.gather(1, cell) * inside[..., None]


class TransMIL(BagModel):
    """Tokens h_n, as many of the first again as fill a square, and a class token; attention, PPEG, attention; the class token.

    Args:
        D_feat: features of an instance.
        L: size of h and of tokens.
        classes: C.
        heads: of both attentions.
        landmarks: of both attentions (L / 2 in the official code).
    """

    def __init__(self, D_feat: int, L: int, classes: int, *, heads: int = 8, landmarks: int | None = None):
        super().__init__()
        m = L // 2 if landmarks is None else landmarks
        self.reduce = Reduce(D_feat, L)
        self.class_token = nn.Parameter(torch.randn(L))
        self.norm_1, self.attention_1 = nn.LayerNorm(L), NystromAttention(L, heads, m)
        self.position = PositionEncoding(L)
        self.norm_2, self.attention_2 = nn.LayerNorm(L), NystromAttention(L, heads, m)
        self.norm = nn.LayerNorm(L)
        self.classifier = nn.Linear(L, classes)

    def forward(self, X: Tensor, mask: Tensor, seed: Tensor | None = None) -> Outputs:
        """`logits` [B, C]; `instances` h [B, N, L]. Nyström attention can be negative, so that there is no heat map."""
        del seed  # draws nothing
        H = self.reduce(X)
        B, N, L = H.shape
        n = mask.sum(1, keepdim=True)
        side = torch.ceil(torch.sqrt(n.double())).long()
        place = torch.arange((math.isqrt(N - 1) + 1) ** 2, device=X.device)
        again = torch.where(place < n, place, place - n).clamp(min=0, max=N - 1)
        tokens = H.gather(1, again[..., None].expand(-1, -1, L))
        inside = place < side * side
        x = torch.cat([self.class_token.expand(B, 1, L), tokens * inside[..., None]], dim=1)
        inside = torch.cat([torch.ones_like(inside[:, :1]), inside], dim=1)
        x = x + self.attention_1(self.norm_1(x), inside)[0]
        x = torch.cat([x[:, :1], self.position(x[:, 1:], side)], dim=1)
        x = x + self.attention_2(self.norm_2(x), inside)[0]
        return {"logits": self.classifier(self.norm(x[:, 0])), "instances": H}
