"""The Sentence Attention Block (Khoshsirat and Kambhamettu, ICCV 2023; equations after the authors' code).

    u  = ReLU(LayerNorm(W_1 t + b_1))              t in R^E, u in R^4E: an expansion, where SE has a bottleneck
    a  = softmax(W_2 u + b_2)                      a in R^C: over channels, where SE has a sigmoid
    f' = a f                                       each channel of the map times its share

The gate is computed from the sentence alone; the map is not pooled. This file can be lifted out of the suite and used as it is.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import InputError

EXPANSION = 4
"""Hidden width over E."""


class SentenceGate(nn.Module):
    """a = activation(W_2 ReLU(LayerNorm(W_1 t))).

    Args:
        E: length of the sentence's vector.
        C: channels.
        hidden: width of u; None is 4E, the paper's.
        layer_norm: False leaves LayerNorm out (ablation).
        activation: "softmax" over channels (the paper) or "sigmoid" (as SE has it; ablation).
        gain: "none" (the paper), or "C": the gate times C, so that its mean is 1 (ablation).

    Raises:
        InputError: gain "C" with a sigmoid, whose mean is not 1/C.
    """

    def __init__(
        self,
        E: int,
        C: int,
        *,
        hidden: int | None = None,
        layer_norm: bool = True,
        activation: Literal["softmax", "sigmoid"] = "softmax",
        gain: Literal["none", "C"] = "none",
    ):
        super().__init__()
        if gain == "C" and activation != "softmax":
            raise InputError(f"gain = 'C' with activation = {activation!r}: it undoes the 1/C of a softmax; use gain = 'none'.")
        width = EXPANSION * E if hidden is None else hidden
        self.expand = nn.Linear(E, width)
        self.norm = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.select = nn.Linear(width, C)
        self.activation, self.scale = activation, C if gain == "C" else 1

    def forward(self, t: Tensor) -> Tensor:
        """Sentences [B, E] to gates float32 [B, C]; in float32, since a softmax over many channels underflows in halves."""
        with torch.autocast(t.device.type, enabled=False):
            u = torch.relu(self.norm(self.expand(t.float())))
            s = self.select(u)
            return s.sigmoid() if self.activation == "sigmoid" else self.scale * s.softmax(-1)


class SentenceAttentionBlock(nn.Module):
    """f' = a f, with a from `SentenceGate`, which has the arguments.

    Args:
        E: length of the sentence's vector.
        C: channels of the map.
        **options: of `SentenceGate`.
    """

    def __init__(self, E: int, C: int, **options):
        super().__init__()
        self.gate = SentenceGate(E, C, **options)

    def forward(self, f: Tensor, t: Tensor) -> Tensor:
        """Maps [B, C, h, w] and sentences [B, E] to gated maps [B, C, h, w] in the maps' dtype."""
        return f * self.gate(t)[:, :, None, None].to(f.dtype)
