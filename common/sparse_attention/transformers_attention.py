"""Selectors as attention implementations of transformers, and a recorder of queries, keys and values.

    register("pbs_attn", PBSAttention())
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="pbs_attn")

Prefill (as many queries as keys) goes through the selector; decoding (one query) is the model's usual attention with its cache,
dense. Works with every decoder that looks its attention up in transformers' `AttentionInterface` (Llama, Qwen2, Qwen3 and most
others). No class is patched. What the block-sparse kernel cannot do is an InputError, never a silent change to dense attention.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function, sdpa_mask

from common.errors import InputError
from common.sparse_attention.coverage import selection_density
from common.sparse_attention.selection import KeySelection, Selection, Selector, sparse_attention

HEAD_DIMS = (64, 128)
RECORDING = "recording"

OnSelection = Callable[[int, Selection | KeySelection], None]
OnAttention = Callable[[int, Tensor, Tensor, Tensor], None]


def register(name: str, selector: Selector, on_selection: OnSelection | None = None, *, check: bool = True) -> None:
    """Make `attn_implementation=name` run prefill attention over the selector's blocks.

    A second call with the same name replaces the first.

    Args:
        name: any name that transformers does not use itself.
        selector: sees q [1, H, N, D] and k [1, Hkv, N, D] after rotary embedding.
        on_selection: called with (layer, selection) after every selection, for example a `SelectionStatistics`.
        check: check every selection (its `check_contents`), which waits for the device; turn it off only to time.

    Raises:
        InputError: the name is taken by transformers. At run time the attention function raises it for a batch larger than 1,
            padding or any other mask than the causal one, chunked prefill or a preallocated (static) cache, head dim other than
            64 and 128, a scale other than 1 / sqrt(D), sliding windows, soft caps, learned sinks, position biases, dropout and
            output_attentions.
    """
    registry = AttentionInterface()
    if name in ("eager", RECORDING) or (name in registry and not isinstance(registry[name], _SparsePrefill)):
        raise InputError(f"the attention implementation {name!r} exists already; choose another name.")
    _register(name, _SparsePrefill(selector, on_selection, check))


def _register(name: str, attention: Callable) -> None:
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, _mask)


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable = causal_mask_function,
    attention_mask: Tensor | None = None,
    **kwargs,
) -> Tensor | None:
    """Mask of one forward pass: none for a plain causal prefill, for decoding whatever SDPA needs."""
    if batch_size != 1:
        raise InputError(f"the batch holds {batch_size} sequences; block-sparse prefill takes one at a time.")
    if attention_mask is not None and not bool(attention_mask[:, : int(q_offset) + q_length].all()):
        raise InputError("attention_mask hides tokens (padding); pass one sequence without padding.")
    if q_length == 1:
        return sdpa_mask(
            batch_size=batch_size,
            q_length=q_length,
            kv_length=kv_length,
            q_offset=q_offset,  # pyright: ignore[reportArgumentType] - a tensor for static caches
            kv_offset=kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
            **kwargs,
        )
    if mask_function is not causal_mask_function:
        raise InputError(
            "the model asks for a mask other than the causal one (sliding window, packed sequences or a custom mask)."
        )
    _check_lengths(q_length, kv_length)
    return None


def _check_lengths(queries: int, keys: int) -> None:
    if queries != keys:
        raise InputError(
            f"{queries} queries meet {keys} keys: neither prefill (equal) nor decoding (one query). Chunked prefill, prefill "
            "on a filled cache and static caches are not supported; prefill the whole prompt at once with a dynamic cache."
        )


def _check_prefill(
    module: nn.Module, query: Tensor, key: Tensor, attention_mask: Tensor | None, dropout: float, kwargs: dict
) -> None:
    """Check that plain causal attention over one whole sequence is asked for."""
    if query.shape[0] != 1:
        raise InputError(f"the batch holds {query.shape[0]} sequences; block-sparse prefill takes one at a time.")
    _check_lengths(query.shape[2], key.shape[2])
    if attention_mask is not None:
        raise InputError("a mask other than the causal one was given; pass one sequence without padding or a custom mask.")
    if dropout:
        raise InputError(f"attention dropout is {dropout}; call model.eval() or set config.attention_dropout to 0.")
    if kwargs.get("output_attentions"):
        raise InputError(
            "output_attentions is on, but the attention matrix is never built; use attn_implementation='eager' for it."
        )
    causal = kwargs.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        raise InputError("the layer's attention is not causal; block-sparse prefill is for causal decoders.")
    for argument in ("sliding_window", "softcap", "s_aux", "position_bias"):
        if kwargs.get(argument) is not None:
            raise InputError(
                f"the model uses {argument} in layer {_layer(module)}, which block-sparse attention does not support."
            )


def _layer(module: nn.Module) -> int:
    layer = getattr(module, "layer_idx", None)
    if not isinstance(layer, int):
        raise InputError(f"{type(module).__name__} has no layer_idx; only decoders that number their layers are supported.")
    return layer


class _SparsePrefill:
    """Attention function of transformers: prefill over selected blocks, decoding dense."""

    def __init__(self, selector: Selector, on_selection: OnSelection | None, check: bool):
        self.selector = selector
        self.on_selection = on_selection
        self.check = check

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
        """Attend with query [1, H, N, D], key and value [1, Hkv, N, D]; returns [1, N, H, D] and no weights."""
        if query.shape[2] == 1:
            return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
        _check_prefill(module, query, key, attention_mask, dropout, kwargs)
        D = query.shape[-1]
        if D not in HEAD_DIMS:
            raise InputError(f"head dim is {D}; the block-sparse kernel supports {HEAD_DIMS}.")
        if scaling is not None and abs(scaling - D**-0.5) > 1e-6:
            raise InputError(f"the model scales its logits by {scaling}; selectors assume 1 / sqrt(head dim) = {D**-0.5:.6f}.")
        selection = self.selector.select(query, key)
        if self.on_selection is not None:
            self.on_selection(_layer(module), selection)
        output = sparse_attention(query, key, value, selection, scale=scaling, check=self.check)
        return output.transpose(1, 2).contiguous(), None


class SelectionStatistics:
    """Density of the selections of every layer, gathered over forward passes. Pass it to `register` as on_selection."""

    def __init__(self):
        self._densities: dict[int, list[Tensor]] = {}

    def __call__(self, layer: int, selection: Selection | KeySelection) -> None:
        """Add one selection of a layer."""
        self._densities.setdefault(layer, []).append(selection_density(selection))

    def density_per_head(self) -> dict[int, Tensor]:
        """Mean executed density (`selection_density`) of every layer's heads over the prefills so far: layer -> float64 [H]."""
        return {layer: torch.cat(seen).mean(0).cpu() for layer, seen in sorted(self._densities.items())}

    def density_per_layer(self) -> dict[int, float]:
        """Mean executed density of every layer over heads and prefills so far."""
        return {layer: float(heads.mean()) for layer, heads in self.density_per_head().items()}

    def reset(self) -> None:
        """Forget everything."""
        self._densities.clear()


@contextmanager
def recording(model: PreTrainedModel, on_attention: OnAttention) -> Iterator[None]:
    """Hand the queries, keys and values of every layer to a callback while the model runs dense SDPA.

    Only prefills are handed over (more than one query, as many as keys); decoding steps run unrecorded. Nothing is kept or
    copied: a callback that stores a tensor beyond its call should clone it. Not for use in several threads at once.

    Args:
        model: any model that looks its attention up in transformers' `AttentionInterface`.
        on_attention: called with (layer, q [1, H, N, D], k [1, Hkv, N, D], v [1, Hkv, N, D]) after rotary embedding.

    Raises:
        InputError: recordings are nested, or the model cannot change its attention; at run time, as `register` but for head dim
            and scale.
    """
    # transformers keeps every registered name for good, so all recordings share one.
    if getattr(AttentionInterface._global_mapping.get(RECORDING), "active", False):
        raise InputError("a recording is already running; recordings cannot be nested.")
    recorder = _Recorder(on_attention)
    _register(RECORDING, recorder)
    before = model.config._attn_implementation or "eager"
    model.set_attn_implementation(RECORDING)
    if model.config._attn_implementation != RECORDING:
        recorder.active = False
        raise InputError(f"{type(model).__name__} does not use transformers' AttentionInterface; it cannot be recorded.")
    try:
        yield
    finally:
        recorder.active = False
        model.set_attn_implementation(before)


class _Recorder:
    """Attention function of transformers: dense SDPA that shows prefills to a callback."""

    def __init__(self, on_attention: OnAttention):
        self.on_attention = on_attention
        self.active = True

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
        """Attend as SDPA does, after showing (layer, query, key, value) of a prefill."""
        if query.shape[2] > 1:
            _check_prefill(module, query, key, attention_mask, dropout, kwargs)
            self.on_attention(_layer(module), query, key, value)
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
