"""Perplexity windows and chunked negative log-likelihoods."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from common.language_models import negative_log_likelihoods, perplexity_windows, random_llama


@pytest.fixture(scope="module")
def model():
    return random_llama("tiny", seed=0, dtype=torch.float32, device="cpu")


def reference(model, tokens: torch.Tensor) -> np.ndarray:
    """Naive float64 log-softmax of all logits at once."""
    with torch.no_grad():
        logits = model(tokens).logits.numpy().astype(np.float64)
    normaliser = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    rows, columns = np.indices((tokens.shape[0], tokens.shape[1] - 1))
    return normaliser[:, :-1] - logits[rows, columns, tokens.numpy()[:, 1:]]


@pytest.mark.parametrize("chunk", [1, 7, 36, 1024])
def test_chunks_equal_full_logits(model, chunk):
    tokens = torch.randint(0, 512, (3, 37), generator=torch.Generator().manual_seed(1))
    nll = negative_log_likelihoods(model, tokens, chunk=chunk)
    assert nll.shape == (3, 36)
    assert nll.dtype == torch.float32
    np.testing.assert_allclose(nll.numpy(), reference(model, tokens), atol=2e-5, rtol=0)


def test_no_more_logits_than_a_chunk(model):
    sizes = []
    handle = model.get_output_embeddings().register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape[0]))
    negative_log_likelihoods(model, torch.zeros(1, 100, dtype=torch.int64), chunk=16)
    handle.remove()
    assert max(sizes) == 16
    assert sum(sizes) == 99


def test_windows_do_not_see_each_other(model):
    tokens = torch.randint(0, 512, (2, 20), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        negative_log_likelihoods(model, tokens)[1], negative_log_likelihoods(model, tokens[1:])[0], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("tokens", "field"),
    [
        (torch.zeros(5, dtype=torch.int64), "W, L"),
        (torch.zeros(1, 5), "int64"),
        (torch.zeros(1, 1, dtype=torch.int64), "L >= 2"),
        (torch.full((1, 5), 512), "0 .. 511"),
        (torch.full((1, 5), -1), "-1"),
    ],
)
def test_bad_tokens(model, tokens, field):
    with pytest.raises(InputError, match=field):
        negative_log_likelihoods(model, tokens)


def test_models_that_change_their_logits_are_refused():
    model = random_llama("tiny", seed=0, dtype=torch.float32, device="cpu", layers=1)
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(InputError, match="final_logit_softcapping"):
        negative_log_likelihoods(model, torch.zeros(1, 5, dtype=torch.int64))


def test_chunk_must_be_positive(model):
    with pytest.raises(InputError, match="chunk = 0"):
        negative_log_likelihoods(model, torch.zeros(1, 5, dtype=torch.int64), chunk=0)


@given(st.integers(2, 9), st.integers(0, 20), st.integers(1, 9))
def test_windows_are_adjacent(window_length, start, windows):
    tokens = torch.arange(200)
    cut = perplexity_windows(tokens, window_length, start, windows)
    assert cut.shape == (windows, window_length)
    assert cut.flatten().tolist() == list(range(start, start + windows * window_length))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((10, 95, 1), "100"),
        ((50, 0, 3), "150"),
        ((1, 0, 1), "window_length = 1"),
        ((5, -1, 1), "start = -1"),
        ((5, 0, 0), "windows = 0"),
    ],
)
def test_windows_outside_the_text(arguments, word):
    with pytest.raises(InputError, match=word):
        perplexity_windows(torch.arange(100), *arguments)


def test_windows_need_whole_numbers():
    with pytest.raises(InputError, match="int64"):
        perplexity_windows(torch.zeros(100), 10, 0, 1)
