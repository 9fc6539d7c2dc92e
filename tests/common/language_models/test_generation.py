"""Greedy generation against the argmax of full forward passes."""

import pytest
import torch

from common.errors import InputError
from common.language_models import greedy_continuation, random_llama
from common.sparse_attention import Dense
from common.sparse_attention.transformers_attention import register


@pytest.fixture
def model():
    model = random_llama("tiny", seed=1, dtype=torch.float32, device="cpu")
    model.generation_config.eos_token_id = None
    return model


def reference(model, tokens: torch.Tensor, new_tokens: int) -> list[int]:
    """Without a cache."""
    with torch.no_grad():
        for _ in range(new_tokens):
            tokens = torch.cat([tokens, model(tokens[None], use_cache=False).logits[0, -1:].argmax(-1)])
    return tokens.tolist()[-new_tokens:]


@pytest.mark.parametrize("length", [1, 30])
def test_equals_full_forward_passes(model, length):
    tokens = torch.randint(0, 512, (length,), generator=torch.Generator().manual_seed(length))
    continuation = greedy_continuation(model, tokens, 9)
    assert continuation.dtype == torch.int64
    assert continuation.tolist() == reference(model, tokens, 9)


def test_settings_of_the_model_change_nothing(model):
    expected = reference(model, torch.arange(20), 12)
    assert len(set(expected)) < 12  # a penalty on repeats would change it
    model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=9.0, num_beams=3)
    assert greedy_continuation(model, torch.arange(20), 12).tolist() == expected


def test_block_sparse_attention_runs_once_over_the_prompt(model):
    """With all blocks selected, it continues as dense attention does."""
    tokens = torch.randint(0, 512, (150,), generator=torch.Generator().manual_seed(0))
    expected = greedy_continuation(model, tokens, 4)
    layers = []
    register("all_blocks_of_generation", Dense(64), on_selection=lambda layer, _selection: layers.append(layer))
    model.set_attn_implementation("all_blocks_of_generation")
    assert torch.equal(greedy_continuation(model, tokens, 4), expected)
    assert layers == [0, 1]


@pytest.mark.parametrize("several", [False, True])
def test_stops_before_the_end_token(model, several):
    expected = reference(model, torch.arange(20), 12)
    stop = expected[5]
    model.generation_config.eos_token_id = [511, stop] if several else stop
    assert greedy_continuation(model, torch.arange(20), 12).tolist() == expected[: expected.index(stop)]


@pytest.mark.parametrize(
    ("tokens", "new_tokens", "word"),
    [
        (torch.zeros(0, dtype=torch.int64), 1, "N >= 1"),
        (torch.zeros(1, 5, dtype=torch.int64), 1, r"\[1, 5\]"),
        (torch.zeros(5), 1, "float32"),
        (torch.zeros(5, dtype=torch.int64), 0, "new_tokens = 0"),
    ],
)
def test_bad_input(model, tokens, new_tokens, word):
    with pytest.raises(InputError, match=word):
        greedy_continuation(model, tokens, new_tokens)
