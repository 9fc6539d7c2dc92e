"""Passkey retrieval: a number is hidden in a long text, and the model is asked for it at the end.

Task: Mohtashami and Jaggi, "Landmark Attention", 2023 (arXiv 2305.16300); here in real text instead of repeated sentences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from common.errors import InputError
from common.language_models.prompts import first_tokens, sentence_ends

NEEDLE = " The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "\n\nWhat is the pass key? The pass key is"
ANSWER = " {key}"


@dataclass(frozen=True)
class PasskeyPrompt:
    """A passkey prompt.

    Attributes:
        tokens: int64 [N], filler, needle, filler and question.
        answer: int64 [A], the tokens that should follow. N + A is the context length.
        key: the number, as text.
        depth: the depth asked for, 0 (start) to 1 (end).
        needle_start: the token of `tokens` at which the needle begins.
    """

    tokens: Tensor
    answer: Tensor
    key: str
    depth: float
    needle_start: int


@dataclass(frozen=True)
class PasskeyScores:
    """Teacher-forced scores of P answers of A tokens each.

    Attributes:
        correct: bool [P, A], whether the token has the highest probability given the prompt and the right answer so far.
        nll: float32 [P, A], its negative log-likelihood in nats.
    """

    correct: Tensor
    nll: Tensor


def passkey_prompts(
    tokenizer: PreTrainedTokenizerBase, filler: str, *, context_length: int, depths: Sequence[float], seed: int, digits: int = 5
) -> list[PasskeyPrompt]:
    """One prompt for each depth, all of the same length; the key and the place in the filler where the text begins are random.

    Args:
        tokenizer: a fast tokenizer; a beginning-of-text token is put first where it does so by default.
        filler: a long text.
        context_length: tokens of prompt and answer together.
        depths: where the needle goes, 0 to 1: at the sentence end nearest to this part of the filler.
        seed: the same seed gives the same prompts.
        digits: of the key.

    Raises:
        InputError: a depth outside 0 to 1, no digits, or a filler too short (or a context too short for a sentence of it).
    """
    if digits < 1:
        raise InputError(f"digits = {digits}: the key needs at least one.")
    outside = [depth for depth in depths if not 0 <= depth <= 1]
    if outside:
        raise InputError(f"depths = {outside}: each must lie between 0 and 1.")
    if not tokenizer.is_fast:
        raise InputError("tokenizer: a fast one is needed, which knows the characters of each token.")

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    encoded = tokenizer(filler, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    filler_tokens = encoded["input_ids"]
    boundaries = _sentence_boundaries(filler, np.array(encoded["offset_mapping"]).reshape(-1, 2))

    begin = first_tokens(tokenizer)
    question = encode(QUESTION)
    generator = np.random.default_rng(seed)
    prompts = []
    for depth in depths:
        key = str(generator.integers(1, 10)) + "".join(map(str, generator.integers(0, 10, digits - 1)))
        needle, answer = encode(NEEDLE.format(key=key)), encode(ANSWER.format(key=key))
        length = context_length - len(begin) - len(needle) - len(question) - len(answer)
        starts = boundaries[boundaries <= len(filler_tokens) - length]
        if length < 1 or len(starts) == 0:
            raise InputError(
                f"context_length = {context_length}: {length} tokens of filler are needed, but the filler has "
                f"{len(filler_tokens)} with {len(boundaries)} sentence ends. Change the length or bring more filler."
            )
        start = int(generator.choice(starts))
        ends = boundaries[(boundaries >= start) & (boundaries <= start + length)]
        place = int(ends[np.abs(ends - (start + depth * length)).argmin()])
        before, after = filler_tokens[start:place], filler_tokens[place : start + length]
        tokens = torch.tensor(begin + before + needle + after + question)
        prompts.append(PasskeyPrompt(tokens, torch.tensor(answer), key, float(depth), len(begin) + len(before)))
    return prompts


def _sentence_boundaries(text: str, offsets: np.ndarray) -> np.ndarray:
    """The tokens that begin a sentence, from the characters [start, end) of each; none where a token spans the boundary."""
    ends = sentence_ends(text)
    following = np.searchsorted(offsets[:, 0], ends)
    ends, following = ends[following < len(offsets)], following[following < len(offsets)]
    return following[offsets[following - 1, 1] <= ends]


@torch.inference_mode()
def passkey_scores(model: Any, prompts: Sequence[PasskeyPrompt]) -> PasskeyScores:
    """Score the answers under a causal language model of transformers, one prompt at a time, on the model's device.

    Raises:
        InputError: no prompts, or answers of different lengths.
    """
    if len({len(prompt.answer) for prompt in prompts}) != 1:
        raise InputError("prompts: at least one is needed, and all answers must have the same number of tokens.")
    correct, nll = [], []
    for prompt in prompts:
        tokens = torch.cat([prompt.tokens, prompt.answer[:-1]]).to(model.device)
        logits = model(tokens[None], use_cache=False, logits_to_keep=len(prompt.answer)).logits[0].float().cpu()
        correct.append(logits.argmax(-1) == prompt.answer)
        nll.append(cross_entropy(logits, prompt.answer, reduction="none"))
    return PasskeyScores(torch.stack(correct), torch.stack(nll))
