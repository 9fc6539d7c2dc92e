"""Perplexity: windows of a text, and the negative log-likelihood of each of their tokens."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from common.errors import InputError

# Models that change the logits after the last linear layer, by a setting of this name, are refused rather than scored wrongly.
_SETTINGS_AFTER_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def perplexity_windows(tokens: Tensor, window_length: int, start: int, windows: int) -> Tensor:
    """Cut adjacent windows out of a text: the perplexity is the exponential of their mean negative log-likelihood.

    Args:
        tokens: int64 [N], the whole text.
        window_length: tokens a window (L).
        start: where the first window begins.
        windows: their number (W).

    Returns:
        int64 [W, L]: tokens[start : start + W * L], one window a row.

    Raises:
        InputError: wrong shape or dtype, or the text is too short.
    """
    if tokens.dim() != 1 or tokens.dtype != torch.int64:
        raise InputError(f"tokens must be int64 [N]; got {tokens.dtype} {list(tokens.shape)}.")
    if window_length < 2 or windows < 1 or start < 0:
        raise InputError(
            f"window_length = {window_length}, windows = {windows}, start = {start}: they must be at least 2, 1 and 0."
        )
    end = start + windows * window_length
    if end > len(tokens):
        raise InputError(
            f"{windows} windows of {window_length} tokens from token {start} end at {end}, but the text has {len(tokens)}. "
            "Take fewer or shorter windows, or a longer text."
        )
    return tokens[start:end].view(windows, window_length)


@torch.inference_mode()
def negative_log_likelihoods(model: Any, tokens: Tensor, *, chunk: int = 1024) -> Tensor:
    """-log p(token | the tokens before it in its window), in nats.

    Windows run one by one, and the last linear layer runs on `chunk` positions at a time: all logits of a window never exist.

    Args:
        model: a causal language model of transformers.
        tokens: int64 [W, L], any device.
        chunk: positions whose logits exist at the same time.

    Returns:
        float32 [W, L - 1] on the CPU; column j belongs to token j + 1. Not finite where the model's output is not.

    Raises:
        InputError: wrong shape or dtype, a token outside the vocabulary, or a model that changes its logits after its head.
    """
    if tokens.dim() != 2 or tokens.dtype != torch.int64 or tokens.shape[1] < 2:
        raise InputError(f"tokens must be int64 [W, L] with L >= 2; got {tokens.dtype} {list(tokens.shape)}.")
    if chunk < 1:
        raise InputError(f"chunk = {chunk}: at least one position is needed.")
    vocabulary = model.get_input_embeddings().num_embeddings
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary:
        raise InputError(f"tokens must lie in 0 .. {vocabulary - 1}; found {int(tokens.min())} .. {int(tokens.max())}.")
    after_head = [name for name in _SETTINGS_AFTER_HEAD if getattr(model.config, name, None) is not None]
    if after_head:
        raise InputError(
            f"The model type {model.config.model_type!r} changes its logits after its head ({after_head[0]}): not supported."
        )
    head = model.get_output_embeddings()
    result = torch.empty(tokens.shape[0], tokens.shape[1] - 1, dtype=torch.float32)
    for row, window in enumerate(tokens.to(model.device)):
        hidden = model.base_model(window[None], use_cache=False).last_hidden_state[0, :-1]
        for first in range(0, len(hidden), chunk):
            logits = head(hidden[first : first + chunk]).float()
            targets = window[first + 1 : first + 1 + len(logits)]
            result[row, first : first + len(logits)] = cross_entropy(logits, targets, reduction="none").cpu()
    return result
