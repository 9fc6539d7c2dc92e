"""Greedy generation."""

from typing import Any

import torch
from torch import Tensor

from common.errors import InputError


@torch.inference_mode()
def greedy_continuation(model: Any, tokens: Tensor, new_tokens: int) -> Tensor:
    """The most probable next token, again and again, whatever sampling or penalties the model's own settings ask for.

    The prompt runs at once and fills the cache; then each token runs alone. With block-sparse attention, prefill is sparse and
    decoding dense.

    Args:
        model: a causal language model of transformers.
        tokens: int64 [N], the prompt, any device.
        new_tokens: at most so many.

    Returns:
        int64 [M] on the CPU, M <= new_tokens; it stops before the model's end-of-text token.

    Raises:
        InputError: an empty prompt, a wrong dtype, or `new_tokens` below 1.
    """
    if tokens.dim() != 1 or tokens.dtype != torch.int64 or len(tokens) == 0:
        raise InputError(f"tokens must be int64 [N] with N >= 1; got {tokens.dtype} {list(tokens.shape)}.")
    if new_tokens < 1:
        raise InputError(f"new_tokens = {new_tokens}: at least one is needed.")
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    following: list[int] = []
    step, cache = tokens[None].to(model.device), None
    while True:
        output = model(step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        step, cache = output.logits[:, -1].argmax(-1, keepdim=True), output.past_key_values
        token = int(step)
        if token in ends:
            break
        following.append(token)
        if len(following) == new_tokens:
            break
    return torch.tensor(following, dtype=torch.int64)
