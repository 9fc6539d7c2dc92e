"""What selectors are compared on: a pretrained model and its texts."""

from functools import lru_cache

import torch
from torch import Tensor

from common.configuration import Parameters
from common.data.texts import load_text
from common.errors import InputError
from common.language_models import LanguageModel, load_language_model, perplexity_windows


class SubjectSettings(Parameters):
    """Parameters of every experiment on a pretrained model.

    Attributes:
        model: `smollm2-135m-instruct`, a folder or a hub id.
        dtype: of weights and activations.
        rope_theta: rotary base for lengths beyond `trained_length`; the model's own base is kept up to there.
        trained_length: tokens of context the model was trained with.
    """

    model: str
    dtype: str
    rope_theta: float
    trained_length: int


@lru_cache(maxsize=1)
def _load(model: str, dtype: torch.dtype, device: str, rope_theta: float | None) -> LanguageModel:
    return load_language_model(model, dtype=dtype, device=device, rope_theta=rope_theta)


def load_subject(settings: SubjectSettings, length: int, device: str) -> LanguageModel:
    """The model for contexts of `length` tokens; cells that need the same one share it."""
    rope_theta = settings.rope_theta if length > settings.trained_length else None
    return _load(settings.model, getattr(torch, settings.dtype), device, rope_theta)


@lru_cache(maxsize=8)
def _tokens(model: str, text: str, tokenizer) -> Tensor:
    content = load_text(text, unwrap=text.startswith("long-texts")).text
    return torch.tensor(tokenizer(content, add_special_tokens=False, verbose=False)["input_ids"])


def token_windows(subject: LanguageModel, text: str, length: int, windows: int) -> Tensor:
    """Windows spread evenly over a text: int64 [windows, length].

    Raises:
        InputError: the text has fewer tokens than that.
    """
    tokens = _tokens(subject.name, text, subject.tokenizer)
    spare = len(tokens) - windows * length
    if spare < 0:
        raise InputError(f"{text} has {len(tokens)} tokens; {windows} windows of {length} do not fit. Take fewer or shorter.")
    starts = [number * (length + spare // windows) for number in range(windows)]
    return torch.cat([perplexity_windows(tokens, length, start, 1) for start in starts])
