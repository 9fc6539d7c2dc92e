"""Sinks and window against a loop over blocks and against the token mask."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.sparse_attention import Dense, StreamingLLM, sparse_attention, structured_inputs


def inputs(N, heads=4, key_heads=2, D=8):
    generator = torch.Generator().manual_seed(N)
    return (torch.randn(2, H, N, D, generator=generator) for H in (heads, key_heads))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 20), st.integers(0, 50), st.integers(1, 100))
def test_equals_the_loop(N, block, sinks, window):
    selection = StreamingLLM(block, sinks, window).select(*inputs(N))
    T = math.ceil(N / block)
    expected = [
        [j <= i and (j < math.ceil(sinks / block) or j > i - math.ceil(window / block)) for j in range(T)] for i in range(T)
    ]
    assert torch.equal(selection.mask, torch.tensor(expected).expand(2, 4, T, T))
    assert (selection.block_size, selection.segment_size, selection.key_order) == (block, block, None)
    selection.check_contents()
    assert selection.mask.diagonal(dim1=2, dim2=3).all()


def test_blocks_of_one_token_are_the_token_mask():
    row, column = torch.arange(40)[:, None], torch.arange(40)
    tokens = ((column < 4) | (row - column < 7)) & (column <= row)
    assert torch.equal(StreamingLLM(1, 4, 7).select(*inputs(40)).mask[1, 3], tokens)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(0, 50), st.integers(0, 50), st.integers(1, 50), st.integers(0, 50))
def test_more_sinks_or_a_longer_window_only_add_blocks(N, sinks, more_sinks, window, longer):
    q, k = inputs(N)
    mask = StreamingLLM(8, sinks, window).select(q, k).mask
    assert (mask <= StreamingLLM(8, sinks + more_sinks, window).select(q, k).mask).all()
    assert (mask <= StreamingLLM(8, sinks, window + longer).select(q, k).mask).all()


def test_first_column_is_read_if_and_only_if_there_are_sinks():
    q, k = inputs(100)
    assert StreamingLLM(8, 1, 8).select(q, k).mask[..., 0].all()
    assert not StreamingLLM(8, 0, 8).select(q, k).mask[:, :, 1:, 0].any()


def test_a_window_of_the_whole_sequence_is_dense():
    q, k = inputs(100)
    assert torch.equal(StreamingLLM(8, 0, 100).select(q, k).mask, Dense(8).select(q, k).mask)
    assert torch.equal(StreamingLLM().select(q, k).mask, Dense().select(q, k).mask)


def test_attention_over_it_equals_attention_under_its_token_mask():
    q, k, v = structured_inputs(100, heads=4, key_heads=2, head_dim=64, seed=3)
    block = torch.arange(100) // 16
    row, column = block[:, None], block
    tokens = ((column < 1) | (row - column < 2)) & (torch.arange(100) <= torch.arange(100)[:, None])
    logits = q.double() @ k.double().repeat_interleave(2, 1).mT / 8
    expected = logits.masked_fill(~tokens, -math.inf).softmax(-1) @ v.double().repeat_interleave(2, 1)
    output = sparse_attention(q, k, v, StreamingLLM(16, 4, 32).select(q, k))
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("block_size is 0; it must be a positive integer", lambda: StreamingLLM(0)),
        ("sink_tokens is -1; it must be 0 or a positive", lambda: StreamingLLM(sink_tokens=-1)),
        ("sink_tokens is 1.5", lambda: StreamingLLM(sink_tokens=1.5)),  # pyright: ignore[reportArgumentType]
        ("window_tokens is 0; it must be a positive integer", lambda: StreamingLLM(window_tokens=0)),
        ("four dimensions", lambda: StreamingLLM().select(torch.ones(2, 3), torch.ones(2, 3))),
        ("divide", lambda: StreamingLLM().select(torch.ones(1, 3, 4, 8), torch.ones(1, 2, 4, 8))),
    ],
)
def test_bad_input_is_named(message, make):
    with pytest.raises(InputError, match=message):
        make()
