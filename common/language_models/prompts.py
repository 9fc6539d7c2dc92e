"""What the retrieval tasks share: sentence ends, first tokens, and prompts as long as a limit allows."""

import re
from collections.abc import Callable

import numpy as np
from transformers import PreTrainedTokenizerBase

_SENTENCE_END = re.compile(r"[.!?]['\")\]]*(?=\s)")


def sentence_ends(text: str) -> np.ndarray:
    """int64 [E]: the characters at which a sentence has ended, that is, the white space after it; not the end of the text."""
    return np.array([match.end() for match in _SENTENCE_END.finditer(text)], dtype=np.int64)


def first_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The beginning-of-text token where the tokenizer puts one by default, else nothing."""
    return [token for token in tokenizer("")["input_ids"] if token == tokenizer.bos_token_id]


def largest_fitting(tokens: Callable[[int], int], available: int, length: int) -> int:
    """The number of pieces that makes a prompt as long as possible, found with few calls of `tokens`.

    Args:
        tokens: the length of the prompt with 1 to `available` pieces; it grows with them, about evenly.
        available: how many pieces there are, at least 1.
        length: the limit, in tokens.

    Returns:
        Pieces whose prompt fits while one piece more would not, or `available` where that fits; 0 where one piece does not.
    """
    first = tokens(1)
    if first > length:
        return 0
    fits, too_many = 1, available + 1
    guess, calls = min(available, 64), 0
    while too_many - fits > 1:
        guess = min(max(guess, fits + 1), too_many - 1)
        found = tokens(guess)
        if found <= length:
            fits = guess
        else:
            too_many = guess
        calls += 1
        per_piece = max((found - first) / (guess - 1), 1e-3)
        # The bisection takes over where the growth is too uneven for the steps of the estimate.
        guess = (fits + too_many) // 2 if calls > 8 else guess + round((length - found) / per_piece)
    return fits
