"""The frozen model as teacher: one forward pass gives what the gates of all layers learn from."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from common.kernels.attention_block_max import attention_block_max
from papers.seer_attention.before_rotary import BeforeRotary
from papers.seer_attention.seer_attention import AttentionGate, Pooling, pool
from papers.seer_attention.selector import block_tables

NAME = "seer_attention_teacher"


class Lesson(NamedTuple):
    """What the gates learn from a batch, all L layers side by side: head l H + h is head h of layer l.

    Attributes:
        queries: pooling -> float32 [Bt, L H, T, d], before rotary embedding.
        keys: pooling -> float32 [Bt, L H_kv, T, d].
        block_maxima: of the attention map, float32 [Bt, L H, T, T].
        cos: rotary table of the blocks, float32 [T, d].
        sin: as cos.
    """

    queries: dict[Pooling, Tensor]
    keys: dict[Pooling, Tensor]
    block_maxima: Tensor
    cos: Tensor
    sin: Tensor

    def logits(self, gate: AttentionGate) -> Tensor:
        """Of a gate of all layers: [Bt, L H, T, T]."""
        pooled_q = torch.cat([self.queries[name] for name in gate.query_poolings], dim=-1)
        pooled_k = torch.cat([self.keys[name] for name in gate.key_poolings], dim=-1)
        return gate.logits(pooled_q, pooled_k, self.cos, self.sin)


class Teacher:
    """Attention function of transformers that gives the dense output and notes the ground truth; see `teaching`."""

    def __init__(self, model: PreTrainedModel, before_rotary: BeforeRotary, block_size: int):
        self.model, self.before_rotary, self.block_size = model, before_rotary, block_size
        self.tables = block_tables(model.base_model.rotary_emb)
        self._pooled: list[tuple[Tensor, Tensor]] = []
        self._maxima: list[Tensor] = []

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """Dense causal attention: query [Bt, H, N, d] to [Bt, N, H, d]."""
        maxima, output = attention_block_max(query, key, value, block_size=self.block_size, scale=kwargs.get("scaling"))
        _, q, k = self.before_rotary(query, key)
        poolings = get_args(Pooling)
        self._pooled.append((pool(q, self.block_size, poolings).float(), pool(k, self.block_size, poolings).float()))
        self._maxima.append(maxima)
        return output.transpose(1, 2).contiguous(), None

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Lesson:
        """Run the model on tokens, int64 [Bt, N]."""
        self._pooled, self._maxima = [], []
        self.model.base_model(tokens, use_cache=False)
        poolings = get_args(Pooling)
        queries, keys = (
            dict(zip(poolings, torch.cat(side, dim=1).chunk(len(poolings), dim=-1), strict=True))
            for side in zip(*self._pooled, strict=True)
        )
        cos, sin = self.tables(tokens.shape[1], self.block_size, tokens.device)
        lesson = Lesson(queries, keys, torch.cat(self._maxima, dim=1), cos, sin)
        self._pooled, self._maxima = [], []
        return lesson


@contextmanager
def teaching(model: PreTrainedModel, block_size: int) -> Iterator[Teacher]:
    """A `Teacher` of the model, whose attention is the model's usual one again afterwards.

    Args:
        model: with Llama's layers (`BeforeRotary`).
        block_size: B.

    Raises:
        InputError: the model has other layers.
    """
    before = model.config._attn_implementation or "eager"
    with BeforeRotary(model) as before_rotary:
        teacher = Teacher(model, before_rotary, block_size)
        AttentionInterface.register(NAME, teacher.attend)
        AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)  # plain causal attention over whole windows
        model.set_attn_implementation(NAME)
        try:
            yield teacher
        finally:
            model.set_attn_implementation(before)
