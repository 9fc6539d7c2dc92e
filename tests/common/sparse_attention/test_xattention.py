"""XAttention against loops in float64, and against the exact block mass."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import common.sparse_attention.xattention as module
from common.errors import InputError
from common.sparse_attention import Dense, XAttention, block_attention_mass, structured_inputs
from common.sparse_attention.xattention import antidiagonal_scores, forced_and_shortest_prefix


def inputs(N, seed=0, dtype=torch.float64, device="cpu"):
    q, k, _ = structured_inputs(
        N, heads=4, key_heads=2, head_dim=32, topic_chunk=32, locality_period=128, heavy_hitter_period=8, seed=seed
    )
    return q.to(device, dtype), k.to(device, dtype)


def naive_scores(q, k, B, S):
    """Shares of the blocks, antidiagonal by antidiagonal."""
    _, H, N, D = q.shape
    group = H // k.shape[1]
    T, tiles = math.ceil(N / B), math.ceil(N / S)
    scores = torch.zeros(H, T, T, dtype=torch.float64)
    for h in range(H):
        for m in range(tiles):
            means = []
            for n in range(m + 1):
                pairs = [(m * S + S - 1 - s, n * S + s) for s in range(S)]
                products = [float(q[0, h, r].double() @ k[0, h // group, c].double()) for r, c in pairs if max(r, c) < N]
                means.append(sum(products) / math.sqrt(D) / S)
            for n, weight in enumerate(torch.tensor(means, dtype=torch.float64).softmax(0).tolist()):
                scores[h, m * S // B, n * S // B] += weight
    return scores / scores.sum(-1, keepdim=True)


def naive_row(shares, i, tau):
    """Selected blocks of query block i from its shares, a list."""
    kept = {0, i}
    total = sum(shares[j] for j in kept)
    for j in sorted(set(range(i + 1)) - kept, key=lambda j: (-shares[j], j)):
        if total >= tau:
            break
        kept.add(j)
        total += shares[j]
    return kept


@pytest.mark.parametrize(("N", "B", "S"), [(1, 8, 4), (32, 16, 8), (45, 16, 8), (61, 12, 3), (100, 16, 16), (33, 6, 2)])
@pytest.mark.parametrize("tau", [0.3, 0.9])
def test_selection_equals_the_loop(N, B, S, tau):
    q, k = inputs(N)
    scores = naive_scores(q, k, B, S)
    assert_close(antidiagonal_scores(q, k, B, S)[0], scores)
    selection = XAttention(B, S, tau).select(q, k)
    expected = torch.zeros_like(selection.mask)
    for h, i in ((h, i) for h in range(4) for i in range(scores.shape[-1])):
        expected[0, h, i, list(naive_row(scores[h, i].tolist(), i, tau))] = True
    assert torch.equal(selection.mask, expected)
    assert (selection.block_size, selection.segment_size, selection.key_order) == (B, B, None)


@pytest.mark.parametrize("N", [5, 64, 90])
def test_stride_one_is_the_exact_block_mass(N):
    q, k = inputs(N, dtype=torch.float32)
    assert_close(antidiagonal_scores(q, k, 16, 1), block_attention_mass(q, k, 16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_scores_of_other_dtypes_are_float32(dtype):
    q, k = inputs(70, dtype=dtype)
    scores = antidiagonal_scores(q, k, 16, 4)
    assert scores.dtype == torch.float32
    assert_close(scores, antidiagonal_scores(q.double(), k.double(), 16, 4).float(), atol=1e-5, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_scores_on_a_gpu_equal_those_on_the_cpu(dtype):
    q, k = inputs(1000, dtype=dtype)
    expected = antidiagonal_scores(q, k, 128, 8)
    assert_close(antidiagonal_scores(q.cuda(), k.cuda(), 128, 8).cpu(), expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("blocks", [1, 2, 100])
def test_scores_do_not_depend_on_the_blocks_at_a_time(blocks, monkeypatch):
    q, k = inputs(75)
    whole = antidiagonal_scores(q, k, 16, 4)
    monkeypatch.setattr(module, "CHUNK_BYTES", blocks * 8 * 4 * 4 * 20)
    assert_close(antidiagonal_scores(q, k, 16, 4), whole)


def test_antidiagonals_meet_columns_and_odd_diagonals_and_miss_even_ones():
    # One dimension for every position: the query at position r looks for key r - offset and for key 21.
    k = torch.eye(128)
    odd, even = (
        antidiagonal_scores((900 * k.roll(-offset, 1) + 900 * k[21])[None, None], k[None, None], 16, 4)[0, 0]
        for offset in (49, 48)
    )
    for i in (6, 7):
        # Three tiles are met in each row of tiles: key 21's, in block 1, and those 12 and 13 before, in blocks i - 3 and i - 4.
        assert_close(odd[i, [1, i - 3, i - 4]], torch.tensor([4, 7, 1]) / 12)
        assert_close(even[i, 1], torch.tensor(1.0))


@st.composite
def rows(draw):
    weights = draw(st.lists(st.integers(0, 5), min_size=1, max_size=12))
    total = sum(weights)
    return [w / total if total else 0.0 for w in weights]


@settings(max_examples=150, deadline=None)
@given(rows(), st.sampled_from([0.05, 0.137, 0.333, 0.512, 0.777, 0.903, 0.989]))
def test_forced_entries_are_counted_first(shares, tau):
    i = len(shares) - 1
    forced = torch.zeros(i + 1, dtype=torch.bool)
    forced[[0, i]] = True
    kept = forced_and_shortest_prefix(torch.tensor(shares).double(), tau, forced, torch.ones_like(forced))
    assert set(kept.nonzero().flatten().tolist()) == naive_row(shares, i, tau - 1e-6)


def test_hand_worked_example():
    shares = torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1])
    forced = torch.tensor([True, False, False, False, True])
    everything = torch.ones(5, dtype=torch.bool)

    def kept(tau):
        return forced_and_shortest_prefix(shares, tau, forced, everything).int().tolist()

    assert kept(0.2) == [1, 0, 0, 0, 1]
    assert kept(0.3) == [1, 0, 1, 0, 1]
    assert kept(0.6) == [1, 0, 1, 0, 1]
    assert kept(0.7) == [1, 1, 1, 0, 1]  # tie: lower column first
    assert kept(1.0) == [1, 1, 1, 1, 1]


def test_nan_keeps_its_row_and_no_other():
    shares = torch.tensor([[float("nan")] * 3, [0.5, 0.1, 0.4]])
    forced = torch.tensor([True, False, False])
    kept = forced_and_shortest_prefix(shares, 0.5, forced, torch.ones(3, dtype=torch.bool))
    assert kept.tolist() == [[True] * 3, [True, False, False]]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 150), st.floats(0.01, 1), st.floats(0.01, 1), st.sampled_from([1, 2, 4, 8]))
def test_a_larger_tau_only_adds_blocks(N, one, other, stride):
    q, k = inputs(N, dtype=torch.float32)
    less, more = (XAttention(8, stride, tau).select(q, k).mask for tau in sorted((one, other)))
    assert (less <= more).all()


@pytest.mark.parametrize("tau", [1e-6, 0.5, 1.0])
@pytest.mark.parametrize("N", [1, 16, 100])
def test_is_causal_and_reads_the_first_column_and_the_diagonal(N, tau):
    selection = XAttention(16, 8, tau).select(*inputs(N))
    selection.check_contents()
    assert selection.mask[..., 0].all()
    assert selection.mask.diagonal(dim1=2, dim2=3).all()


def test_tau_one_is_dense_and_a_tiny_tau_reads_the_forced_blocks_alone():
    q, k = inputs(100)
    assert torch.equal(XAttention(16, 8, 1.0).select(q, k).mask, Dense(16).select(q, k).mask)
    forced = torch.eye(7, dtype=torch.bool)
    forced[:, 0] = True
    assert torch.equal(XAttention(16, 8, 1e-9).select(q, k).mask, forced.expand(1, 4, 7, 7))


def test_query_heads_read_the_key_head_of_their_group():
    q, k = inputs(150)
    expected = XAttention(16, 4).select(q, k.repeat_interleave(2, 1))
    assert torch.equal(XAttention(16, 4).select(q, k).mask, expected.mask)


def test_sequences_of_a_batch_are_apart():
    (q, k), (q2, k2) = inputs(90, 0), inputs(90, 1)
    both = XAttention(16, 4).select(torch.cat([q, q2]), torch.cat([k, k2])).mask
    assert torch.equal(both[1:], XAttention(16, 4).select(q2, k2).mask)


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("block_size is 0; it must be a positive integer", lambda: XAttention(0)),
        ("stride is 0; it must be a positive integer", lambda: XAttention(stride=0)),
        ("stride 12 does not divide block_size 128; choose a divisor", lambda: XAttention(stride=12)),
        ("tau is 0; it must be above 0 and at most 1", lambda: XAttention(tau=0)),
        ("tau is 1.5", lambda: XAttention(tau=1.5)),
        ("four dimensions", lambda: XAttention().select(torch.ones(2, 3), torch.ones(2, 3))),
        ("divide", lambda: XAttention().select(torch.ones(1, 3, 4, 8), torch.ones(1, 2, 4, 8))),
    ],
)
def test_bad_input_is_named(message, make):
    with pytest.raises(InputError, match=message):
        make()
