"""Where passkeys are hidden, and how answers are scored."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from common.errors import InputError
from common.language_models import PasskeyPrompt, passkey_prompts, passkey_scores, random_llama
from common.language_models.passkey import QUESTION

FILLER = " ".join(f"This is sentence number {number}, and it is true." for number in range(400))
SENTENCE = 50  # characters, a little more than any sentence has


@settings(max_examples=30, deadline=None)
@given(
    st.integers(400, 3000),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.integers(0, 2**32),
    st.integers(1, 8),
)
def test_prompts(tokenizer, context_length, depths, seed, digits):
    prompts = passkey_prompts(tokenizer, FILLER, context_length=context_length, depths=depths, seed=seed, digits=digits)
    assert [prompt.depth for prompt in prompts] == depths
    for prompt in prompts:
        text = tokenizer.decode(prompt.tokens)
        assert len(prompt.tokens) + len(prompt.answer) == context_length
        assert re.fullmatch(rf"[1-9][0-9]{{{digits - 1}}}", prompt.key)
        needle = f" The pass key is {prompt.key}. Remember it. {prompt.key} is the pass key."
        assert text.count(needle) == 1
        assert text.endswith(QUESTION)
        assert tokenizer.decode(prompt.answer) == f" {prompt.key}"
        assert tokenizer.decode(prompt.tokens[prompt.needle_start :]).startswith(needle)
        # What is left is one passage of the filler, and the needle is at an end of a sentence of it.
        before, after = text.removesuffix(QUESTION).split(needle)
        assert before + after in FILLER
        assert before == "" or before.endswith(".")
        assert after == "" or " This is".startswith(after[:8])
        # No other end of a sentence is nearer to the depth.
        assert abs(len(before) - prompt.depth * len(before + after)) <= SENTENCE


def test_same_seed_same_prompts(tokenizer):
    def make(seed):
        return [p.tokens.tolist() for p in passkey_prompts(tokenizer, FILLER, context_length=600, depths=[0.5] * 3, seed=seed)]

    assert make(3) == make(3)
    assert make(3) != make(4)
    assert len(set(map(tuple, make(3)))) == 3


def test_tokenizer_that_puts_a_first_token(tokenizer):
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    try:
        (prompt,) = passkey_prompts(tokenizer, FILLER, context_length=600, depths=[0.5], seed=0)
    finally:
        backend.post_processor = processors.Sequence([])
    assert prompt.tokens[0] == tokenizer.bos_token_id
    assert (prompt.tokens == tokenizer.bos_token_id).sum() == 1
    assert len(prompt.tokens) + len(prompt.answer) == 600


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"depths": [0.5, 1.5]}, r"\[1.5\]"),
        ({"digits": 0}, "digits = 0"),
        ({"context_length": 100}, "context_length = 100"),
        ({"context_length": 10**6}, "more filler"),
        ({"filler": ""}, "more filler"),
        ({"filler": "no sentence ends here " * 100}, "0 sentence ends"),
    ],
)
def test_bad_input(tokenizer, change, word):
    arguments = {"filler": FILLER, "context_length": 600, "depths": [0.5], "seed": 0} | change
    with pytest.raises(InputError, match=word):
        passkey_prompts(tokenizer, arguments.pop("filler"), **arguments)


def test_scores_equal_full_logits(tokenizer):
    model = random_llama("tiny", seed=0, dtype=torch.float32, device="cpu")
    prompts = passkey_prompts(tokenizer, FILLER, context_length=400, depths=[0.2, 0.8], seed=0)
    scores = passkey_scores(model, prompts)
    assert scores.correct.shape == scores.nll.shape == (2, 6)
    for row, prompt in enumerate(prompts):
        with torch.no_grad():
            logits = model(torch.cat([prompt.tokens, prompt.answer])[None]).logits[0].numpy().astype(np.float64)
        for place, token in enumerate(prompt.answer.tolist()):
            at = logits[len(prompt.tokens) - 1 + place]
            assert scores.nll[row, place].item() == pytest.approx(np.log(np.exp(at).sum()) - at[token], abs=1e-4)
            assert scores.correct[row, place].item() == (at.argmax() == token)


def test_right_answers_count_as_correct():
    """The answer that the model itself would give, found greedily, is correct in every token."""
    model = random_llama("tiny", seed=1, dtype=torch.float32, device="cpu")
    tokens = torch.arange(50)
    answer: list[int] = []
    with torch.no_grad():
        for _ in range(4):
            answer.append(int(model(torch.cat([tokens, torch.tensor(answer, dtype=torch.int64)])[None]).logits[0, -1].argmax()))
    wrong = [(token + 1) % 512 for token in answer]
    scores = passkey_scores(model, [PasskeyPrompt(tokens, torch.tensor(x), "", 0.0, 0) for x in (answer, wrong)])
    assert scores.correct[0].all()
    assert not scores.correct[1, 0]
    assert (scores.nll[0, 0] < scores.nll[1, 0]).item()


def test_no_prompts():
    with pytest.raises(InputError, match="at least one"):
        passkey_scores(None, [])
