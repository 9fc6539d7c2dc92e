"""Queries and keys before rotary embedding, which the gate needs and transformers' attention interface does not hand over.

Turning them back with the model's rotary tables would give them up to rounding, and would not say which layer they belong to.
The outputs of a layer's `q_proj` and `k_proj` are exact and come with the layer, and they are views: nothing is copied.
"""

from types import TracebackType
from typing import Any

from torch import Tensor, nn

from common.errors import InputError
from common.sparse_attention.blocks import check_queries_and_keys


class BeforeRotary:
    """Keeps what `q_proj` and `k_proj` of the layer that runs gave. A context: the hooks go when it ends.

        with BeforeRotary(model) as before:
            ...  # inside an attention function: layer, q, k = before(query, key)

    Args:
        model: a decoder whose layers have `q_proj` and `k_proj` and rotate what these give (Llama, Qwen2, SmolLM2, ...).

    Raises:
        InputError: it has no such layers, or normalises queries and keys between projection and rotation (Qwen3, Gemma3).
    """

    def __init__(self, model: nn.Module):
        self._attentions: list[Any] = [module for module in model.modules() if hasattr(module, "q_proj")]
        if not self._attentions or not all(hasattr(module, "k_proj") for module in self._attentions):
            raise InputError(f"{type(model).__name__} has no layers with q_proj and k_proj; SeerAttention's gate reads these.")
        if any(hasattr(module, "q_norm") for module in self._attentions):
            raise InputError(f"{type(model).__name__} normalises queries and keys after q_proj and k_proj: not supported.")
        self._handles = []
        self._kept: dict[str, tuple[int, Tensor]] = {}

    @property
    def layers(self) -> int:
        """How many attention layers the model has."""
        return len(self._attentions)

    def __enter__(self) -> "BeforeRotary":
        for layer, attention in enumerate(self._attentions):
            for name in ("q_proj", "k_proj"):
                self._handles.append(getattr(attention, name).register_forward_hook(self._keep(name, layer)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._kept = [], {}

    def _keep(self, name: str, layer: int):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._kept[name] = (layer, output)

        return hook

    def __call__(self, q: Tensor, k: Tensor) -> tuple[int, Tensor, Tensor]:
        """The layer that runs, and its queries and keys before rotary embedding.

        Args:
            q: its queries after rotary embedding, [Bt, H, N, d].
            k: its keys after rotary embedding, [Bt, H_kv, N, d].

        Returns:
            layer, and tensors of the shapes of q and k.

        Raises:
            InputError: no layer of the model has run in this context, or q and k belong to another pass.
        """
        check_queries_and_keys(q, k)
        if len(self._kept) < 2:
            raise InputError("no queries and keys were kept; run the model inside `with BeforeRotary(model)`.")
        (layer, kept_q), (_, kept_k) = self._kept["q_proj"], self._kept["k_proj"]
        for name, kept, x in (("q", kept_q, q), ("k", kept_k, k)):
            if kept.numel() != x.numel() or kept.shape[:2] != (x.shape[0], x.shape[2]):
                raise InputError(
                    f"{name} has shape {tuple(x.shape)}, and layer {layer} projected {tuple(kept.shape)}: another pass, or a "
                    "cache with keys of earlier ones. SeerAttention prefills a whole prompt at once."
                )
        heads_first = [kept.unflatten(2, (x.shape[1], x.shape[3])).transpose(1, 2) for kept, x in ((kept_q, q), (kept_k, k))]
        return layer, heads_first[0], heads_first[1]
