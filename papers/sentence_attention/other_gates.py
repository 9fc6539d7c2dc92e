"""What stands in the place of Sentence Attention Blocks for comparison: no text, other gates, other fusion.

A gate takes all maps f_0..f_4 and the text, and returns maps of the same shapes. Gates without text are timm's layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.layers.eca import EcaModule
from timm.layers.global_context import GlobalContext
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn

from common.errors import InputError
from papers.sentence_attention.sentence_attention import EXPANSION, SentenceAttentionBlock


@dataclass(frozen=True)
class Text:
    """Sentences, one a map.

    Attributes:
        vectors: float [B, E], of length 1.
        tokens: float [B, L, E], the encoder's last states; None where no gate reads them.
        present: bool [B, L], where there is a token.
    """

    vectors: Tensor
    tokens: Tensor | None = None
    present: Tensor | None = None


class Untouched(nn.Module):
    """No gate: the maps as they are."""

    def forward(self, maps: Sequence[Tensor], text: Text) -> list[Tensor]:
        """See the file."""
        return list(maps)


class ImageGates(nn.Module):
    """One of timm's layers on every map; the text is not read.

    Args:
        layers: one a map.
    """

    def __init__(self, layers: Sequence[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, maps: Sequence[Tensor], text: Text) -> list[Tensor]:
        """See the file."""
        return [layer(f) for layer, f in zip(self.layers, maps, strict=True)]


class SentenceGates(nn.Module):
    """A Sentence Attention Block on every map, or on the last alone.

    Args:
        blocks: of the last maps, as many as are gated.
    """

    def __init__(self, blocks: Sequence[SentenceAttentionBlock]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, maps: Sequence[Tensor], text: Text) -> list[Tensor]:
        """See the file."""
        free = len(maps) - len(self.blocks)
        return [*maps[:free], *(block(f, text.vectors) for block, f in zip(self.blocks, maps[free:], strict=True))]


class EmbeddingAttention(nn.Module):
    """The follow-up's block: the gate also reads the image, here the mean of the last map, with the paper's hidden width 4E.

    Args:
        E: length of the sentence's vector.
        channels: of the maps.
    """

    def __init__(self, E: int, channels: Sequence[int]):
        super().__init__()
        self.blocks = nn.ModuleList(SentenceAttentionBlock(E + channels[-1], C, hidden=EXPANSION * E) for C in channels)

    def forward(self, maps: Sequence[Tensor], text: Text) -> list[Tensor]:
        """See the file."""
        joint = torch.cat([maps[-1].float().mean((2, 3)), text.vectors.float()], dim=1)
        return [block(f, joint) for block, f in zip(self.blocks, maps, strict=True)]


class FeatureWise(nn.Module):
    """FiLM: f' = (1 + γ(t)) f + β(t), with linear γ and β that start at 0.

    Args:
        E: length of the sentence's vector.
        channels: of the maps.
    """

    def __init__(self, E: int, channels: Sequence[int]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(E, 2 * C) for C in channels)
        for layer in self.layers:
            nn.init.zeros_(layer.weight)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, maps: Sequence[Tensor], text: Text) -> list[Tensor]:
        """See the file."""
        gated = []
        for layer, f in zip(self.layers, maps, strict=True):
            γ, β = layer(text.vectors).to(f.dtype)[:, :, None, None].chunk(2, dim=1)
            gated.append((1 + γ) * f + β)
        return gated


class Tiled(nn.Module):
    """Concatenation: the sentence beside every place of a map, then a 1x1 convolution; written as the sum that this is.

    Args:
        E: length of the sentence's vector.
        channels: of the maps.
    """

    def __init__(self, E: int, channels: Sequence[int]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(C + E, C, 1) for C in channels)

    def forward(self, maps: Sequence[Tensor], text: Text) -> list[Tensor]:
        """See the file."""
        gated = []
        for layer, f in zip(self.layers, maps, strict=True):
            assert isinstance(layer, nn.Conv2d)
            of_map, of_text = layer.weight.split([f.shape[1], text.vectors.shape[1]], dim=1)
            of_text = nn.functional.linear(text.vectors, of_text[:, :, 0, 0], layer.bias)
            gated.append(nn.functional.conv2d(f, of_map) + of_text[:, :, None, None].to(f.dtype))
        return gated


class CrossAttention(nn.Module):
    """Places of the map of stride 16 attend to the tokens of the sentence; the other maps stay as they are.

    Args:
        E: length of a token's state.
        channels: of the maps.
        heads: of the attention; they divide the channels.
    """

    MAP = 3

    def __init__(self, E: int, channels: Sequence[int], heads: int = 4):
        super().__init__()
        C = channels[self.MAP]
        if C % heads:
            raise InputError(f"{heads} heads do not divide the {C} channels of the map of stride 16; choose another number.")
        self.heads = heads
        self.norm = nn.LayerNorm(C)
        self.query, self.key, self.value, self.out = nn.Linear(C, C), nn.Linear(E, C), nn.Linear(E, C), nn.Linear(C, C)

    def forward(self, maps: Sequence[Tensor], text: Text) -> list[Tensor]:
        """See the file. Raises InputError where the text has no tokens."""
        if text.tokens is None or text.present is None:
            raise InputError("Cross attention reads tokens, and the text has vectors alone: encode it with tokens.")
        f = maps[self.MAP]
        _, C, h, w = f.shape
        places = f.flatten(2).transpose(1, 2)
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (self.query(self.norm(places)), self.key(text.tokens), self.value(text.tokens))
        )
        scores = (q @ k.transpose(-1, -2)).float() / (C // self.heads) ** 0.5
        weights = scores.masked_fill(~text.present[:, None, None, :], -torch.inf).softmax(-1).to(v.dtype)
        attended = self.out((weights @ v).transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, (h, w))
        return [*maps[: self.MAP], f + attended.to(f.dtype), *maps[self.MAP + 1 :]]


def squeeze_excite(channels: Sequence[int]) -> ImageGates:
    """Timm's Squeeze-and-Excitation on every map, with its default reduction."""
    return ImageGates([SEModule(C) for C in channels])


def efficient_channel_attention(channels: Sequence[int]) -> ImageGates:
    """Timm's ECA on every map."""
    return ImageGates([EcaModule(C) for C in channels])


def global_context(channels: Sequence[int]) -> ImageGates:
    """Timm's global context block on every map."""
    return ImageGates([GlobalContext(C) for C in channels])


def reduced_width(C: int) -> int:
    """Width of the bottleneck of timm's Squeeze-and-Excitation on C channels."""
    return SEModule(C).fc1.out_channels
