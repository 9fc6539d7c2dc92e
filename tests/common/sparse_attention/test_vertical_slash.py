"""Vertical-slash against loops in float64, on random, structured and hand-made attention."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import common.sparse_attention.vertical_slash as module
from common.errors import InputError
from common.sparse_attention import Dense, VerticalSlash, structured_inputs
from common.sparse_attention.vertical_slash import (
    diagonal_sums,
    largest,
    sums_by_block,
    vertical_slash_mask,
    vertical_slash_scores,
)


def inputs(N, seed=0, dtype=torch.float64):
    q, k, _ = structured_inputs(
        N, heads=4, key_heads=2, head_dim=32, topic_chunk=32, locality_period=128, heavy_hitter_period=8, seed=seed
    )
    return q.to(dtype), k.to(dtype)


def naive_scores(q, k, last):
    """Sums of softmax(Q_last K^T / sqrt(D)) over columns and over diagonals, entry by entry."""
    _, H, N, D = q.shape
    group = H // k.shape[1]
    vertical, slash = torch.zeros(2, H, N, dtype=torch.float64).unbind(0)
    for h in range(H):
        for r in range(max(0, N - last), N):
            logits = [float(q[0, h, r].double() @ k[0, h // group, c].double()) / math.sqrt(D) for c in range(r + 1)]
            for c, weight in enumerate(torch.tensor(logits, dtype=torch.float64).softmax(0).tolist()):
                vertical[h, c] += weight
                slash[h, r - c] += weight
    return vertical, slash


def ranked(scores, count):
    return sorted(range(len(scores)), key=lambda n: (-scores[n], n))[:count]


def naive_mask(q, k, B, n_v, n_s, last, unit):
    H, N = q.shape[1:3]
    T = math.ceil(N / B)
    mask = torch.zeros(1, H, T, T, dtype=torch.bool)
    for h, (vertical, slash) in enumerate(zip(*naive_scores(q, k, last), strict=True)):
        vertical = [math.inf if c < 30 else float(vertical[c]) for c in range(N)]
        slash = [math.inf if o < 100 else float(slash[o]) for o in range(N)]
        if unit == "blocks":
            columns, offsets = (
                ranked([sum(scores[j * B : (j + 1) * B]) for j in range(T)], math.ceil(size / B))
                for scores, size in ((vertical, n_v), (slash, n_s))
            )
            read = {(i, j) for i in range(T) for j in range(i + 1) if j in columns or i - j in offsets}
        else:
            columns, offsets = ranked(vertical, n_v), ranked(slash, n_s)
            read = {(i, c // B) for c in columns for i in range(c // B, T)}
            read |= {(r // B, (r - o) // B) for o in offsets for r in range(o, T * B)}
        for i, j in read:
            mask[0, h, i, j] = True
    return mask


@pytest.mark.parametrize(("N", "last"), [(1, 64), (7, 3), (40, 64), (61, 5)])
def test_scores_equal_the_loop(N, last):
    q, k = inputs(N)
    for scores, expected in zip(vertical_slash_scores(q, k, last), naive_scores(q, k, last), strict=True):
        assert_close(scores[0], expected)
        assert_close(scores.sum(-1), torch.full((1, 4), float(min(last, N)), dtype=torch.float64))


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_scores_do_not_depend_on_the_rows_at_a_time(rows, monkeypatch):
    q, k = inputs(50)
    whole = vertical_slash_scores(q, k, 20)
    monkeypatch.setattr(module, "CHUNK_BYTES", rows * 8 * 4 * 50)
    for chunked, scores in zip(vertical_slash_scores(q, k, 20), whole, strict=True):
        assert_close(chunked, scores)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_scores_of_other_dtypes_are_float32(dtype):
    q, k = inputs(70, dtype=dtype)
    for scores, expected in zip(vertical_slash_scores(q, k, 16), naive_scores(q, k, 16), strict=True):
        assert scores.dtype == torch.float32
        assert_close(scores[0], expected.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_scores_on_a_gpu_equal_those_on_the_cpu(dtype):
    q, k = inputs(1000, dtype=dtype)
    for scores, expected in zip(vertical_slash_scores(q.cuda(), k.cuda(), 64), vertical_slash_scores(q, k, 64), strict=True):
        assert_close(scores.cpu(), expected, atol=1e-5, rtol=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 1000))
def test_diagonal_sums_equal_the_diagonals(rows, more, seed):
    N = rows + more
    attention = torch.rand(2, rows, N, generator=torch.Generator().manual_seed(seed)).tril(N - rows)
    expected = torch.stack([attention.diagonal(more - o, 1, 2).sum(-1) for o in range(N)], dim=-1)
    assert_close(diagonal_sums(attention), expected)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(0, 14))
def test_largest_equals_sorting_and_takes_the_lower_of_equals(scores, count):
    expected = ranked(scores, count)
    assert largest(torch.tensor(scores).float(), count).nonzero().flatten().tolist() == sorted(expected)


def test_largest_takes_a_count_for_every_row():
    scores = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
    assert largest(scores, torch.tensor([[1], [2]])).tolist() == [[False, True, False], [False, True, True]]


def test_sums_by_block_of_a_short_last_block():
    assert sums_by_block(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), 2).tolist() == [3, 7, 5]


def test_mask_of_one_column_and_one_offset():
    columns, offsets = torch.tensor([False, True, False, False]), torch.tensor([False, False, True, False])
    assert vertical_slash_mask(columns, offsets).int().tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("unit", ["tokens", "blocks"])
@pytest.mark.parametrize(("N", "B", "n_v", "n_s"), [(16, 16, 30, 50), (101, 16, 40, 60), (256, 32, 30, 110), (203, 7, 31, 50)])
def test_selection_equals_the_loop(N, B, n_v, n_s, unit):
    q, k = inputs(N)
    selection = VerticalSlash(B, n_v, n_s, 24, unit).select(q, k)
    assert torch.equal(selection.mask, naive_mask(q, k, B, n_v, n_s, 24, unit))
    assert (selection.block_size, selection.segment_size, selection.key_order) == (B, B, None)


@pytest.mark.parametrize("unit", ["tokens", "blocks"])
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 200), st.integers(0, 60), st.integers(0, 60), st.integers(0, 80), st.integers(0, 80))
def test_a_larger_budget_only_adds_blocks(unit, N, columns, more_columns, offsets, more_offsets):
    q, k = inputs(N, dtype=torch.float32)
    n_v, n_s = 30 + columns, 50 + offsets
    mask = VerticalSlash(8, n_v, n_s, 16, unit).select(q, k).mask
    assert (mask <= VerticalSlash(8, n_v + more_columns, n_s, 16, unit).select(q, k).mask).all()
    assert (mask <= VerticalSlash(8, n_v, n_s + more_offsets, 16, unit).select(q, k).mask).all()


@pytest.mark.parametrize("unit", ["tokens", "blocks"])
@pytest.mark.parametrize("N", [1, 29, 200])
def test_is_causal_and_reads_the_first_column_and_the_diagonal(N, unit):
    selection = VerticalSlash(8, 30, 50, unit=unit).select(*inputs(N))
    selection.check_contents()
    assert selection.mask[..., 0].all()
    assert selection.mask.diagonal(dim1=2, dim2=3).all()


@pytest.mark.parametrize("unit", ["tokens", "blocks"])
def test_as_many_columns_or_offsets_as_tokens_is_dense(unit):
    q, k = inputs(200)
    dense = Dense(8).select(q, k).mask
    assert torch.equal(VerticalSlash(8, 200, 50, unit=unit).select(q, k).mask, dense)
    assert torch.equal(VerticalSlash(8, 30, 200, unit=unit).select(q, k).mask, dense)
    assert not torch.equal(VerticalSlash(8, 30, 50, unit=unit).select(q, k).mask, dense)


def test_finds_a_column_and_a_diagonal():
    # One dimension for every position: the query at position r looks for key r - 160 and for key 77.
    N = 400
    k = torch.eye(N)
    q = 200 * k.roll(-160, 1) + 200 * k[77]
    q, k = q[None, None], k[None, None]
    vertical, slash = vertical_slash_scores(q, k, 64)
    assert int(slash.argmax()) == 160
    assert int(vertical.argmax()) == 77
    mask = VerticalSlash(16, 31, 101).select(q, k).mask[0, 0]  # one column and one offset more than are forced
    row, column = torch.arange(25)[:, None], torch.arange(25)
    # Forced: tokens 0 to 29, offsets 0 to 99. Found: 77 = 4 * 16 + 13 and 160 = 10 * 16.
    expected = (column < 2) | (column == 4) | (row - column <= 7) | (row - column == 10)
    assert torch.equal(mask, expected & (column <= row))


def test_query_heads_read_the_key_head_of_their_group():
    q, k = inputs(150)
    expected = VerticalSlash(8, 30, 50).select(q, k.repeat_interleave(2, 1))
    assert torch.equal(VerticalSlash(8, 30, 50).select(q, k).mask, expected.mask)


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("block_size is 0; it must be a positive integer", lambda: VerticalSlash(0)),
        ("vertical_size is 29; it must be at least 30", lambda: VerticalSlash(vertical_size=29)),
        ("slash_size is 49; it must be at least 50", lambda: VerticalSlash(slash_size=49)),
        ("slash_size is 60.5; it must be a positive integer", lambda: VerticalSlash(slash_size=60.5)),  # pyright: ignore[reportArgumentType]
        ("last_queries is 0; it must be a positive integer", lambda: VerticalSlash(last_queries=0)),
        ("unit is 'rows'; choose 'tokens' or 'blocks'", lambda: VerticalSlash(unit="rows")),  # pyright: ignore[reportArgumentType]
        ("four dimensions", lambda: VerticalSlash().select(torch.ones(2, 3), torch.ones(2, 3))),
        ("divide", lambda: VerticalSlash().select(torch.ones(1, 3, 4, 8), torch.ones(1, 2, 4, 8))),
        ("floating-point", lambda: VerticalSlash().select(torch.ones(1, 2, 4, 8).int(), torch.ones(1, 2, 4, 8))),
    ],
)
def test_bad_input_is_named(message, make):
    with pytest.raises(InputError, match=message):
        make()
