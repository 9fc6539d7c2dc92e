"""FlexPrefill against loops in float64, its distance against SciPy, its patterns on hand-made attention."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from torch.testing import assert_close

import common.sparse_attention.flexprefill as module
from common.errors import InputError
from common.kernels.block_selection import block_means
from common.sparse_attention import Dense, FlexPrefill, structured_inputs
from common.sparse_attention.flexprefill import (
    blocks_to_reach,
    estimated_last_attention,
    jensen_shannon_distance,
    largest_within,
)

EVERY_HEAD = 1.0  # a tau above the largest distance, sqrt(ln 2): every head is query-aware


def inputs(N, seed=0, dtype=torch.float64):
    q, k, _ = structured_inputs(
        N, heads=4, key_heads=2, head_dim=32, topic_chunk=32, locality_period=128, heavy_hitter_period=8, seed=seed
    )
    return q.to(dtype), k.to(dtype)


def softmax(logits):
    return torch.tensor(logits, dtype=torch.float64).softmax(0).tolist()


def ranked(scores):
    return sorted(range(len(scores)), key=lambda n: (-scores[n], n))


def naive_budget(scores, gamma, B):
    total, within = 0.0, 0
    for score in sorted(scores, reverse=True):
        total += score
        within += total <= gamma
    return math.floor((within + 1) / B) + 1


def naive_head(q, k, B, gamma, tau, fewest, most):
    """Selected blocks of one head, a set of (i, j), and its distance D; q and k [N, d]."""
    N, d = q.shape
    T = math.ceil(N / B)
    causal = {(i, j) for i in range(T) for j in range(i + 1)}
    if max(2, fewest) * B >= N:
        return causal, math.nan

    vertical, slash = [0.0] * N, [0.0] * N
    for r in range(N - B, N):
        for c, weight in enumerate(softmax([float(q[r] @ k[c]) / math.sqrt(d) for c in range(r + 1)])):
            vertical[c] += weight / B
            slash[r - c] += weight / B
    by_column, by_offset = ([sum(scores[j * B : (j + 1) * B]) for j in range(T)] for scores in (vertical, slash))

    q_means, k_means = ([x[j * B : (j + 1) * B].mean(0) for j in range(T)] for x in (q, k))
    estimate = softmax([float(q[N - B :].mean(0) @ mean) / math.sqrt(d) for mean in k_means])
    distance = float(jensenshannon(estimate, by_column))
    n_v, n_s = (min(max(naive_budget(scores, gamma, B), fewest), most) for scores in (vertical, slash))
    if distance < tau:
        n_v = n_s = fewest
    columns, offsets = ([0, *[n for n in ranked(scores) if n][: n - 1]] for scores, n in ((by_column, n_v), (by_offset, n_s)))
    kept = {(i, j) for i, j in causal if j in columns or i - j in offsets}
    if distance < tau:
        entries = {}
        for i in range(T):
            row = softmax([float(q_means[i] @ k_means[j]) / math.sqrt(d) for j in range(i + 1)])
            entries |= {(i, j): share for j, share in enumerate(row)}
        total = 0.0
        for entry in sorted(entries, key=lambda entry: (-entries[entry], entry)):
            total += entries[entry]
            if total > gamma * T:
                break
            kept.add(entry)
    return kept, distance


@pytest.mark.parametrize("tau", [0.0, 0.3, EVERY_HEAD])
@pytest.mark.parametrize(
    ("N", "B", "gamma", "min_budget", "max_budget"),
    [
        (32, 16, 0.9, 0, None),
        (33, 16, 0.5, 0, None),
        (150, 16, 0.9, 0, None),
        (150, 16, 0.6, 40, None),
        (160, 10, 0.95, 0, 55),
        (61, 7, 0.8, 20, 20),
    ],
)
def test_selection_equals_the_loop(N, B, gamma, min_budget, max_budget, tau):
    q, k = inputs(N)
    selection = FlexPrefill(B, gamma, tau, min_budget, max_budget).select(q, k)
    T = math.ceil(N / B)
    expected = torch.zeros(1, 4, T, T, dtype=torch.bool)
    fewest, most = max(1, math.ceil(min_budget / B)), T if max_budget is None else math.ceil(max_budget / B)
    for h in range(4):
        for i, j in naive_head(q[0, h], k[0, h // 2], B, gamma, tau, fewest, most)[0]:
            expected[0, h, i, j] = True
    assert torch.equal(selection.mask, expected)
    assert (selection.block_size, selection.segment_size, selection.key_order) == (B, B, None)


def test_heads_differ_in_pattern_at_the_tau_between_their_distances():
    q, k = inputs(150)
    distances = [naive_head(q[0, h], k[0, h // 2], 16, 0.9, 0, 1, 10)[1] for h in range(4)]
    low, high = sorted(range(4), key=lambda h: distances[h])[1:3]
    tau = (distances[low] + distances[high]) / 2
    masks = {t: FlexPrefill(16, 0.9, t).select(q, k).mask[0] for t in (0.0, tau, EVERY_HEAD)}
    for h in range(4):
        assert torch.equal(masks[tau][h], masks[EVERY_HEAD if distances[h] < tau else 0.0][h])
    assert not torch.equal(masks[0.0], masks[EVERY_HEAD])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=10))
def test_distance_equals_scipy(weights):
    p, q = (torch.tensor([pair[n] for pair in weights]).double() for n in range(2))
    p, q = (x / x.sum() if x.any() else torch.full_like(x, 1 / len(x)) for x in (p, q))
    assert_close(float(jensen_shannon_distance(p, q)), float(jensenshannon(p, q)), atol=1e-7, rtol=1e-7)


def test_distance_of_disjoint_distributions_is_the_largest():
    p, q = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]), torch.tensor([[0.0, 0.0, 1.0], [0.2, 0.3, 0.5]])
    assert_close(jensen_shannon_distance(p, q), torch.tensor([math.sqrt(math.log(2)), 0.0]).double())


def test_estimate_is_exact_where_queries_are_equal_and_blocks_hold_equal_keys():
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(1, 2, 6, 8, generator=generator).double()
    q = torch.randn(1, 4, 1, 8, generator=generator).double().expand(1, 4, 16, 8)
    estimate = estimated_last_attention(q, block_means(keys.repeat_interleave(16, 2), 16))
    expected = (q[:, :, :1] @ keys.repeat_interleave(2, 1).mT / math.sqrt(8)).softmax(-1)[:, :, 0]
    assert_close(estimate, expected.float())


def test_hand_worked_budgets():
    scores = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.125, 0.125, 0.25, 0.5]]).double()
    # 0.5 + 0.25 stays within 0.8: 2 lines; floor((2 + 1) / 2) + 1 = 2 blocks of 2, floor((2 + 1) / 4) + 1 = 1 of 4.
    assert blocks_to_reach(scores, 0.8, 2).tolist() == [2, 2]
    assert blocks_to_reach(scores, 0.8, 4).tolist() == [1, 1]
    assert blocks_to_reach(scores, 0.4, 1).tolist() == [2, 2]
    assert blocks_to_reach(scores, 0.74, 1).tolist() == [3, 3]
    assert blocks_to_reach(scores, 0.75, 1).tolist() == [4, 4]  # a sum equal to gamma is within it
    assert blocks_to_reach(scores, 1.0, 1).tolist() == [6, 6]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=20),
    st.sampled_from([0.05, 0.137, 0.333, 0.512, 0.777, 0.903, 0.989]),
    st.integers(1, 5),
)
def test_budgets_equal_the_loop(weights, gamma, block):
    scores = [weight / sum(weights) for weight in weights]
    assert int(blocks_to_reach(torch.tensor(scores).double(), gamma, block)) == naive_budget(scores, gamma, block)


def test_hand_worked_entries_of_the_whole_matrix():
    attention = torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.6, 0.0], [0.5, 0.2, 0.3]])[None]
    # In order: 1, 0.6, 0.5, 0.4, 0.3, 0.2; cumulated 1, 1.6, 2.1, 2.5, 2.8, 3.
    assert largest_within(attention, 0.75).int().tolist() == [[[1, 0, 0], [0, 1, 0], [1, 0, 0]]]  # 2.25: 2.5 would cross
    assert largest_within(attention, 0.9).int().tolist() == [[[1, 0, 0], [1, 1, 0], [1, 0, 0]]]  # 2.7
    assert largest_within(attention, 1.0).int().tolist() == [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]


def test_entries_do_not_depend_on_the_heads_at_a_time(monkeypatch):
    attention = torch.rand(5, 6, 6, generator=torch.Generator().manual_seed(0)).tril()
    attention = attention / attention.sum(-1, keepdim=True)
    whole = largest_within(attention, 0.7)
    monkeypatch.setattr(module, "CHUNK_ENTRIES", 2 * 36)
    assert torch.equal(largest_within(attention, 0.7), whole)


def test_finds_a_band_of_offsets():
    # One dimension for every position: the query at position r looks for key r - 48 alone.
    k = torch.eye(160)
    q = 400 * k.roll(-48, 1)
    row, column = torch.arange(10)[:, None], torch.arange(10)
    # The last 16 queries read the 16 keys of block 6 at one offset: n_v = floor(16 / 16) + 1 = 2, n_s = floor(1 / 16) + 1 = 1,
    # of which column 0 and offset 0 are the first. A smallest budget of two blocks adds the band.
    lines = (column == 0) | (column == 6) | (row == column)
    for min_budget, expected in ((0, lines), (32, lines | (row - column == 3))):
        mask = FlexPrefill(16, 0.95, 0, min_budget).select(q[None, None], k[None, None]).mask[0, 0]
        assert torch.equal(mask, expected & (column <= row))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 150),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.integers(0, 60),
    st.integers(0, 60),
    st.sampled_from([0, 0.25, 1]),
)
def test_a_larger_gamma_or_smallest_budget_only_adds_blocks(N, one, other, budget, more, tau):
    q, k = inputs(N, dtype=torch.float32)
    less, greater = sorted((one, other))
    mask = FlexPrefill(8, less, tau, budget).select(q, k).mask
    assert (mask <= FlexPrefill(8, greater, tau, budget).select(q, k).mask).all()
    assert (mask <= FlexPrefill(8, less, tau, budget + more).select(q, k).mask).all()


@pytest.mark.parametrize("tau", [0.0, EVERY_HEAD])
@pytest.mark.parametrize("N", [1, 16, 200])
@pytest.mark.parametrize("gamma", [0.01, 0.9])
def test_is_causal_and_reads_the_first_column_and_the_diagonal(N, gamma, tau):
    selection = FlexPrefill(8, gamma, tau).select(*inputs(N))
    selection.check_contents()
    assert selection.mask[..., 0].all()
    assert selection.mask.diagonal(dim1=2, dim2=3).all()


@pytest.mark.parametrize("tau", [0.0, EVERY_HEAD])
def test_gamma_one_is_dense(tau):
    q, k = inputs(200)
    assert torch.equal(FlexPrefill(16, 1.0, tau).select(q, k).mask, Dense(16).select(q, k).mask)


@pytest.mark.parametrize(("N", "min_budget", "dense"), [(32, 0, True), (33, 0, False), (64, 50, True), (65, 50, False)])
def test_short_sequences_are_dense(N, min_budget, dense):
    q, k = inputs(N)
    mask = FlexPrefill(16, 0.01, 0, min_budget).select(q, k).mask
    assert torch.equal(mask, Dense(16).select(q, k).mask) == dense


def test_the_largest_budget_limits_columns_and_offsets():
    q, k = inputs(200)
    mask = FlexPrefill(8, 1.0, 0, max_budget=16).select(q, k).mask
    # Two columns and two offsets, of which the last row reads no more than four blocks.
    assert (mask[:, :, -1].sum(-1) <= 4).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_dtypes_select_as_float64_does(dtype):
    q, k = inputs(150, dtype=dtype)
    for tau in (0.0, EVERY_HEAD):
        expected = FlexPrefill(16, 0.8, tau).select(q.double(), k.double()).mask
        assert torch.equal(FlexPrefill(16, 0.8, tau).select(q, k).mask, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("tau", [0.0, EVERY_HEAD])
def test_selection_on_a_gpu_equals_that_on_the_cpu(tau):
    q, k = inputs(2000, dtype=torch.float32)
    expected = FlexPrefill(64, 0.8, tau).select(q, k).mask
    assert torch.equal(FlexPrefill(64, 0.8, tau).select(q.cuda(), k.cuda()).mask.cpu(), expected)


@pytest.mark.parametrize("tau", [0.0, EVERY_HEAD])
def test_query_heads_read_the_key_head_of_their_group(tau):
    q, k = inputs(150)
    expected = FlexPrefill(8, 0.7, tau).select(q, k.repeat_interleave(2, 1))
    assert torch.equal(FlexPrefill(8, 0.7, tau).select(q, k).mask, expected.mask)


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("block_size is 0; it must be a positive integer", lambda: FlexPrefill(0)),
        ("gamma is 0; it must be above 0 and at most 1", lambda: FlexPrefill(gamma=0)),
        ("tau is -0.1; it must be a finite number, at least 0", lambda: FlexPrefill(tau=-0.1)),
        ("tau is nan", lambda: FlexPrefill(tau=math.nan)),
        ("min_budget is -1; it must be 0 or a positive integer", lambda: FlexPrefill(min_budget=-1)),
        ("max_budget is 1.5; it must be", lambda: FlexPrefill(max_budget=1.5)),  # pyright: ignore[reportArgumentType]
        ("max_budget is 10 and min_budget 20; max_budget must be", lambda: FlexPrefill(min_budget=20, max_budget=10)),
        ("max_budget is 0 and min_budget 0", lambda: FlexPrefill(max_budget=0)),
        ("four dimensions", lambda: FlexPrefill().select(torch.ones(2, 3), torch.ones(2, 3))),
        ("divide", lambda: FlexPrefill().select(torch.ones(1, 3, 4, 8), torch.ones(1, 2, 4, 8))),
    ],
)
def test_bad_input_is_named(message, make):
    with pytest.raises(InputError, match=message):
        make()
