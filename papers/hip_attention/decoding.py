"""Decoding with HiP: the lists of a step are kept for the next ones (Section 1.4 of the paper's method: refresh interval r_m).

    decoding = HierarchicalDecoding(settings, refresh_interval=8)
    with decoding.of(model):
        ...                       # prefill is dense; every later step, one query, reads the sink, its lists and the window

A step that searches looks at all keys before its window. The steps after it read the same lists, and their window begins where
that step's began: it grows until the next search, so that no key is lost in between.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from common.errors import InputError
from common.kernels.block_sparse_attention import BlockLists
from common.kernels.checks import check_positive_int
from common.kernels.key_list_attention import key_list_attention
from papers.hip_attention.hip_attention import HierarchicalPruning

NAME = "hip_decoding"


@dataclass(frozen=True)
class _Found:
    """What a layer's last search found, and at which length of the cache."""

    lists: BlockLists
    window_starts: Tensor
    keys: int


class HierarchicalDecoding:
    """Attention of decoding steps: one query against the cache.

    Args:
        settings: of the search; its block_q and stride_q do not matter, since a step has one query.
        refresh_interval: r_m, steps from one search to the next; 1 searches at every step.
        dense_layers: l_d, first layers that attend to all keys.

    Raises:
        InputError: a number is out of range.
    """

    def __init__(self, settings: HierarchicalPruning, refresh_interval: int = 8, dense_layers: int = 0):
        check_positive_int("refresh_interval", refresh_interval)
        if not isinstance(dense_layers, int) or isinstance(dense_layers, bool) or dense_layers < 0:
            raise InputError(f"dense_layers is {dense_layers!r}; it must be 0 or a positive integer.")
        self.settings = replace(settings, block_q=1, stride_q=1)
        self.refresh_interval = refresh_interval
        self.dense_layers = dense_layers
        self.searches = 0
        self._found: dict[int, _Found] = {}

    def reset(self) -> None:
        """Forget the lists: another text begins."""
        self._found.clear()
        self.searches = 0

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
        """One step of one layer.

        Args:
            layer: its number, by which lists are kept.
            q: the query [B, H, 1, d].
            k: the cache's keys with the query's own [B, H_kv, T, d].
            v: values [B, H_kv, T, d].
            scale: factor of the logits, 1 / sqrt(d) by default.

        Returns:
            [B, H, 1, d].

        Raises:
            InputError: shapes, dtypes or devices do not fit, or there is more than one query.
        """
        if q.shape[2] != 1:
            raise InputError(f"q has {q.shape[2]} queries; a decoding step has one.")
        s, keys = self.settings, k.shape[2]
        found = self._found.get(layer)
        if found is None or not 0 < keys - found.keys < self.refresh_interval:
            starts = s.sink + s.searched(1, keys, q.device) * s.block_k
            found = self._found[layer] = _Found(s.search(q, k), starts, keys)
            self.searches += 1
        return key_list_attention(
            q, k, v, found.lists, found.window_starts, block_q=1, block_k=s.block_k, sink=s.sink, scale=scale
        )

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        **kwargs,
    ) -> tuple[Tensor, None]:
        """Attention function of transformers: dense for prefill and the first layers; returns [B, N, H, d] and no weights."""
        layer = module.layer_idx
        assert isinstance(layer, int)
        if query.shape[2] > 1 or layer < self.dense_layers:
            return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
        if attention_mask is not None and not bool(attention_mask.all()):
            raise InputError("attention_mask hides tokens (padding); decode sequences without padding.")
        return self.attend(layer, query, key, value, scaling).transpose(1, 2).contiguous(), None

    @contextmanager
    def of(self, model: PreTrainedModel) -> Iterator[None]:
        """Let a model decode this way. Not for use in several threads at once."""
        # transformers keeps every registered name for good, so all decodings share one.
        AttentionInterface.register(NAME, self)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        before = model.config._attn_implementation or "sdpa"
        self.reset()
        model.set_attn_implementation(NAME)
        try:
            yield
        finally:
            model.set_attn_implementation(before)
            self.reset()


@torch.inference_mode()
def decoding_losses(model: PreTrainedModel, tokens: Tensor, steps: int) -> Tensor:
    """-log p of the last tokens of a text, predicted one by one with a cache as in generation.

    Args:
        model: a causal language model of transformers.
        tokens: int64 [N].
        steps: how many of the last tokens are predicted, each in a step of one query; fewer than N - 1.

    Returns:
        float32 [steps] on the CPU, in nats.

    Raises:
        InputError: the text is too short.
    """
    if not 1 <= steps < len(tokens) - 1:
        raise InputError(f"steps = {steps}: at least 1, and with {len(tokens)} tokens at most {len(tokens) - 2}.")
    tokens = tokens.to(model.device)
    first = len(tokens) - steps - 1
    cache = model.base_model(tokens[None, :first], use_cache=True).past_key_values
    losses = []
    for place in range(first, len(tokens) - 1):
        logits = model(tokens[None, place : place + 1], past_key_values=cache, use_cache=True).logits[0, -1]
        losses.append(torch.nn.functional.cross_entropy(logits.float(), tokens[place + 1]))
    return torch.stack(losses).cpu()
