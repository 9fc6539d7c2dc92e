"""SeerAttention as a selector: the blocks that the layer's gate scores best, for transformers' attention interface."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.errors import InputError
from common.sparse_attention import Selection
from papers.seer_attention.seer_attention import DENSE_ROWS, AttentionGate, best_blocks, block_positions, blocks_above

Tables = Callable[[int, int, torch.device], tuple[Tensor, Tensor]]
"""Rotary tables of the blocks from (length, block size, device): cos and sin, float32 [T, h]."""

Source = Callable[[Tensor, Tensor], tuple[int, Tensor, Tensor]]
"""From queries and keys after rotary embedding to the layer, and queries and keys before: a `BeforeRotary`, or `as_given`."""


def as_given(q: Tensor, k: Tensor) -> tuple[int, Tensor, Tensor]:
    """For queries and keys of one layer that were never rotated: layer 0, q, k."""
    return 0, q, k


def block_tables(rotary: Any) -> Tables:
    """The model's own rotary tables at the first position of every block.

    Args:
        rotary: module of transformers, for example `model.base_model.rotary_emb`.
    """

    def tables(length: int, block_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        positions = block_positions(length, block_size, device)[None]
        cos, sin = rotary(torch.empty(0, device=device), positions)
        return cos[0], sin[0]

    return tables


@dataclass(frozen=True)
class SeerAttention:
    """Blocks by the gate's score: above a threshold, or the best of every row up to a density.

    Attributes:
        gates: one a layer.
        tables: rotary tables of the blocks.
        source: where queries and keys before rotary embedding come from.
        density: share of the causal blocks to read (`best_blocks`), or None.
        threshold: of the score (`blocks_above`), or None.
        dense_rows: last block rows, the question's, that are read whole.

    Raises:
        InputError: not exactly one of density and threshold is given.
    """

    gates: Sequence[AttentionGate]
    tables: Tables
    source: Source
    density: float | None = None
    threshold: float | None = None
    dense_rows: int = DENSE_ROWS

    def __post_init__(self):
        if (self.density is None) == (self.threshold is None):
            raise InputError(f"density is {self.density} and threshold {self.threshold}; give exactly one of them.")

    @property
    def name(self) -> str:
        """Short name, used in tables."""
        return "seer_attention"

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        """Of the layer's gate: [1, H, T, T], -inf above the diagonal. Arguments as in `select`."""
        layer, q, k = self.source(q, k)
        gate = self.gates[layer]
        return gate(q, k, *self.tables(q.shape[2], gate.block_size, q.device))

    def select(self, q: Tensor, k: Tensor) -> Selection:
        """Select blocks for q [1, H, N, D] and k [1, Hkv, N, D] after rotary embedding."""
        logits = self.logits(q, k)
        if self.density is not None:
            mask = best_blocks(logits, self.density, dense_rows=self.dense_rows)
        else:
            assert self.threshold is not None
            mask = blocks_above(logits, self.threshold, dense_rows=self.dense_rows)
        block_size = self.gates[0].block_size
        return Selection(mask, block_size=block_size, segment_size=block_size)
