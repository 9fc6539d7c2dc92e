"""The search of HiP against loops over one query block, and against the exact top keys where these are known."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.kernels.block_sparse_attention import BlockLists
from common.sparse_attention import sparse_attention
from papers.hip_attention import hip_attention
from papers.hip_attention.hip_attention import HierarchicalPruning, search

SMALL: dict[str, Any] = {"block_q": 8, "block_k": 2, "top_k": 8, "window": 6, "sink": 4}


def inputs(N=150, H=4, Hk=2, d=16, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(1, h, N, d, generator=g).to(dtype) for h in (H, Hk))


def naive_list(q, k, s, row):
    """The search for one head [N, d] and one query block, branch by branch."""
    N = len(q)
    first = row * s.block_q
    M = max(0, first - s.window - s.sink) // s.block_k
    n = s.top_k // s.block_k
    if n >= M:
        return list(range(M))
    queries = [min(first + offset, N - 1) for offset in range(s.stride_q - 1, s.block_q, s.stride_q)]

    def score(f, e):
        if e <= f:
            return -math.inf
        block = {"first": f, "last": e - 1, "center": (f + e - 1) // 2}[s.representative]
        keys = [s.sink + block * s.block_k + offset for offset in range(0, s.block_k, s.stride_k)]
        return max(float(q[a] @ k[b]) for a in queries for b in keys)

    branches = [(i * M // n, (i + 1) * M // n) for i in range(n)]
    while any(e - f > 1 for f, e in branches):
        halves = []
        for f, e in branches:
            m = (f + e + 1) // 2
            halves += [(f, m), (m, e)]
        branches = sorted(halves, key=lambda half: -score(*half))[:n]
    return sorted(f for f, _ in branches)


def listed(lists, head, row):
    """The blocks of one query block."""
    return lists.indices[0, head, row, : int(lists.counts[0, head, row])].tolist()


@pytest.mark.parametrize("representative", ["first", "center", "last"])
@pytest.mark.parametrize(("stride_q", "stride_k"), [(1, 1), (2, 2)])
def test_the_search_is_that_of_the_definition(representative, stride_q, stride_k):
    q, k = inputs(149)
    s = HierarchicalPruning(**SMALL, representative=representative, stride_q=stride_q, stride_k=stride_k)
    lists = search(q, k, s).lists
    assert lists.indices.shape == (1, 4, 19, 4)
    for head in range(4):
        for row in range(19):
            expected = naive_list(q[0, head], k[0, head // 2], s, row)
            assert listed(lists, head, row) == expected


def test_a_wide_beam_reads_everything():
    q, k = inputs(100)
    mask = search(q, k, HierarchicalPruning(**{**SMALL, "top_k": 128})).mask()
    assert torch.equal(mask, torch.ones(100, 100, dtype=torch.bool).tril().expand_as(mask))


def test_the_tree_finds_the_top_keys_of_smooth_scores():
    """A score with one broad hill: every half that holds the top has the better centre."""
    N, d = 512, 4
    k = torch.zeros(1, 1, N, d, dtype=torch.float64)
    k[0, 0, :, 0] = torch.exp(-(((torch.arange(N) - 200) / 40.0) ** 2))
    q = torch.ones(1, 1, N, d, dtype=torch.float64)
    s = HierarchicalPruning(block_q=32, block_k=1, top_k=32, window=0, sink=0, stride_q=1)
    found = search(q, k, s).lists.indices[0, 0, -1]
    exact = k[0, 0, :480, 0].topk(32).indices.sort().values
    assert len(set(found.tolist()) & set(exact.tolist())) >= 30


@pytest.mark.parametrize(("width", "recall"), [(1, 0.5), (8, 0.9), (32, 0.95)])
def test_recall_grows_with_the_locality_of_the_scores(width, recall):
    """White noise smoothed by a Gaussian: what the method assumes, in three degrees. A random choice has 0.06."""
    N, top = 1024, 64
    g = torch.Generator().manual_seed(0)
    places = torch.arange(-4 * width, 4 * width + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (places / width) ** 2)
    noise = torch.randn(N + len(places) - 1, dtype=torch.float64, generator=g)
    score = torch.nn.functional.conv1d(noise[None, None], kernel[None, None])[0, 0]
    q, k = torch.ones(1, 1, N + 1, 1, dtype=torch.float64), torch.zeros(1, 1, N + 1, 1, dtype=torch.float64)
    k[0, 0, :N, 0] = score
    s = HierarchicalPruning(block_q=1, block_k=1, top_k=top, window=0, sink=0, stride_q=1)
    found = search(q, k, s).lists.indices[0, 0, N].tolist()
    assert len(set(found) & set(score.topk(top).indices.tolist())) / top >= recall


@settings(max_examples=25, deadline=None)
@given(
    N=st.integers(1, 120),
    block_q=st.sampled_from([1, 8, 32]),
    block_k=st.sampled_from([1, 2, 4]),
    lists=st.integers(1, 8),
    window=st.integers(0, 20),
    sink=st.integers(0, 9),
    seed=st.integers(0, 3),
)
def test_lists_are_causal_unique_and_beside_sink_and_window(N, block_q, block_k, lists, window, sink, seed):
    q, k = inputs(N, H=2, Hk=1, d=4, seed=seed)
    s = HierarchicalPruning(
        block_q=block_q, block_k=block_k, top_k=lists * block_k, window=window, sink=sink, stride_q=1, stride_k=1
    )
    result = search(q, k, s)
    mask = result.mask()
    assert not mask.triu(1).any()
    keys = torch.arange(N)
    own = (keys <= keys[:, None]) & ((keys[:, None] - keys <= window) | (keys < sink))
    assert (mask >= own).all()  # sink, window and the query's own key
    result.check_contents()
    for row, M in enumerate(s.searched(N, N).tolist()):
        numbers = listed(result.lists, 0, row)
        assert numbers == sorted(set(numbers))
        assert len(numbers) == min(M, lists)
        assert all(0 <= number < M for number in numbers)


@settings(max_examples=25, deadline=None)
@given(
    N=st.integers(1, 150), block_q=st.sampled_from([1, 8, 32]), block_k=st.sampled_from([1, 2, 4]), lists=st.integers(1, 8),
    window=st.integers(0, 20), sink=st.integers(0, 40), seed=st.integers(0, 3),
)  # fmt: skip
def test_density_coverage_and_attention_are_those_of_the_mask(N, block_q, block_k, lists, window, sink, seed):
    q, k = inputs(N, seed=seed)
    v = torch.randn(k.shape, dtype=k.dtype, generator=torch.Generator().manual_seed(seed))
    s = HierarchicalPruning(block_q=block_q, block_k=block_k, top_k=lists * block_k, window=window, sink=sink, stride_q=1)
    selection = s.select(q, k)
    mask = selection.mask()
    torch.testing.assert_close(selection.density(), mask.double().sum((2, 3)) / (N * (N + 1) / 2))
    logits = (q @ k.repeat_interleave(2, dim=1).mT) / math.sqrt(16)
    causal = torch.ones(N, N, dtype=torch.bool).tril()
    p = logits.masked_fill(~causal, -math.inf).softmax(-1)
    torch.testing.assert_close(selection.coverage(q, k), (p * mask).sum((2, 3)) / N, rtol=1e-5, atol=1e-6)
    expected = logits.masked_fill(~mask, -math.inf).softmax(-1) @ v.repeat_interleave(2, dim=1)
    torch.testing.assert_close(selection.attend(q, k, v), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sparse_attention(q, k, v, selection), expected, rtol=1e-9, atol=1e-9)


def test_coverage_does_not_depend_on_its_chunks(monkeypatch):
    q, k = inputs(150)
    selection = search(q, k, HierarchicalPruning(**SMALL))
    whole = selection.coverage(q, k)
    monkeypatch.setattr(hip_attention, "COVERAGE_BYTES", 1)
    torch.testing.assert_close(selection.coverage(q, k), whole)


@pytest.mark.parametrize(
    ("place", "number", "message"),
    [
        ((0, 0, 18, 1), 0, "must ascend, each once"),
        ((0, 1, 18, 3), 70, "must lie before the window; batch 0, head 1, query block 18"),
        ((0, 1, 0), 9, "counts must lie between 0 and 4"),
    ],
)
def test_wrong_lists_are_found(place, number, message):
    q, k = inputs()
    selection = search(q, k, HierarchicalPruning(**SMALL))
    selection.check_contents()
    counts, indices = selection.lists.counts.clone(), selection.lists.indices.clone()
    (indices if len(place) == 4 else counts)[place] = number
    with pytest.raises(InputError, match=message):
        replace(selection, lists=BlockLists(counts, indices)).check_contents()


def test_half_precision_and_grouped_heads():
    q, k = inputs(120, H=6, Hk=2, dtype=torch.bfloat16)
    s = HierarchicalPruning(**SMALL)
    exact = search(q.double(), k.double(), s).lists.indices
    assert (search(q, k, s).lists.indices == exact).double().mean() > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_q": 0}, "block_q is 0"),
        ({"top_k": 7}, "top_k is 7 and block_k 2"),
        ({"window": -1}, "window is -1"),
        ({"stride_k": 3}, "stride_k 3 must not exceed"),
        ({"representative": "middle"}, "representative is 'middle'; choose 'first', 'center' or 'last'"),
        ({"sink": 1.5}, "sink is 1.5"),
    ],
)
def test_wrong_settings(change, message):
    with pytest.raises(InputError, match=message):
        HierarchicalPruning(**{**SMALL, **change})


def test_wrong_inputs():
    q, k = inputs(20)
    with pytest.raises(InputError, match="length and head dim must be equal"):
        search(q, k[:, :, :-1], HierarchicalPruning(**SMALL))
