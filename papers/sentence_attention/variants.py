"""The gates by name: the paper's block, its ablations and ladder, and what it is compared with."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from common.errors import ConfigError
from papers.sentence_attention.other_gates import (
    CrossAttention,
    EmbeddingAttention,
    FeatureWise,
    SentenceGates,
    Tiled,
    Untouched,
    efficient_channel_attention,
    global_context,
    reduced_width,
    squeeze_excite,
)
from papers.sentence_attention.sentence_attention import SentenceAttentionBlock

Gates = Callable[[int, Sequence[int]], nn.Module]
"""E and the channels of the maps -> a gate of `other_gates`."""


def _blocks(*, reduced: bool = False, last: int | None = None, **options: Any) -> Gates:
    """Sentence Attention Blocks with options, on the `last` maps; all without."""

    def make(E: int, channels: Sequence[int]) -> SentenceGates:
        gated = channels if last is None else channels[-last:]
        return SentenceGates(
            [SentenceAttentionBlock(E, C, hidden=reduced_width(C) if reduced else None, **options) for C in gated]
        )

    return make


VARIANTS: dict[str, Gates] = {
    "none": lambda E, channels: Untouched(),
    "se": lambda E, channels: squeeze_excite(channels),
    "eca": lambda E, channels: efficient_channel_attention(channels),
    "global_context": lambda E, channels: global_context(channels),
    "film": FeatureWise,
    "concatenation": Tiled,
    "cross_attention": CrossAttention,
    "sab": _blocks(),
    "sab_gain_c": _blocks(gain="C"),
    "sab_no_norm": _blocks(layer_norm=False),
    "sab_reduced": _blocks(reduced=True),
    "sab_last": _blocks(last=1),
    "sab_sigmoid": _blocks(activation="sigmoid"),
    "sab_sigmoid_no_norm": _blocks(activation="sigmoid", layer_norm=False),
    "sentence_se": _blocks(activation="sigmoid", layer_norm=False, reduced=True),
    "eab": EmbeddingAttention,
}

WITHOUT_TEXT = ("none", "se", "eca", "global_context")
WITH_TOKENS = ("cross_attention",)


def make_gates(variant: str, E: int, channels: Sequence[int]) -> nn.Module:
    """The gates of a variant. Raises ConfigError for an unknown one."""
    if variant not in VARIANTS:
        raise ConfigError(f"variant = {variant!r}: there is no such one; known are {', '.join(VARIANTS)}.")
    return VARIANTS[variant](E, channels)
