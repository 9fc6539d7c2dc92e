"""Recall and attention mass of lists against loops over one head, and the lists that the search is compared with."""

import math

import pytest
import torch

from common.kernels.block_sparse_attention import BlockLists
from papers.hip_attention.found_keys import LastQueries, equal_budget
from papers.hip_attention.hip_attention import HierarchicalPruning

N, T = 20, 150
HIP = HierarchicalPruning(block_q=8, block_k=2, top_k=16, window=10, sink=4, stride_q=1)


@pytest.fixture
def inputs():
    g = torch.Generator().manual_seed(0)
    return torch.randn(1, 4, N, 16, generator=g), torch.randn(1, 2, T, 16, generator=g)


@pytest.fixture
def last(inputs):
    q, k = inputs
    return LastQueries(q, k, HIP)


def searched_keys(row):
    """The keys between sink and window of a query block."""
    M = max(0, T - N + row * 8 - 10 - 4) // 2
    return range(4, 4 + 2 * M)


def logits_of(inputs, head):
    q, k = inputs
    return (q[0, head].double() @ k[0, head // 2].double().T) / 4


def listed_keys(lists, head, row):
    blocks = lists.indices[0, head, row, : int(lists.counts[0, head, row])].tolist()
    assert len(set(blocks)) == len(blocks)
    return {4 + 2 * block + offset for block in blocks for offset in (0, 1)}


def test_recall_counts_the_top_keys_of_each_block(inputs, last):
    lists = HIP.search(*inputs)
    recall = last.recall(lists)
    for head in range(4):
        shares = []
        for row in range(3):
            best = logits_of(inputs, head)[row * 8 : row * 8 + 8].amax(0)
            top = sorted(searched_keys(row), key=lambda key: -float(best[key]))[:16]
            shares.append(len(set(top) & listed_keys(lists, head, row)) / 16)
        assert float(recall[head]) == pytest.approx(sum(shares) / 3)


def test_mass_is_the_attention_to_lists_sink_and_window(inputs, last):
    lists = HIP.search(*inputs)
    among = torch.zeros(T, dtype=torch.bool)
    among[30:60] = True
    masses, parts, windows = last.mass(lists), last.mass(lists, among=among), last.window_mass(16)
    for head in range(4):
        kept, kept_part, part, in_window = 0.0, 0.0, 0.0, 0.0
        for r in range(N):
            t = T - N + r
            p = logits_of(inputs, head)[r, : t + 1].softmax(0)
            row = r // 8
            own = set(range(4)) | set(range(searched_keys(row).stop, t + 1))
            read = own | listed_keys(lists, head, row)
            kept += sum(float(p[key]) for key in read if key <= t)
            kept_part += sum(float(p[key]) for key in read if 30 <= key < 60)
            part += float(p[30:60].sum())
            in_window += sum(float(p[key]) for key in range(t + 1) if key < 4 or t - key < 26)
        assert float(masses[head]) == pytest.approx(kept / N, rel=1e-5)
        assert float(parts[head]) == pytest.approx(kept_part / part, rel=1e-5)
        assert float(windows[head]) == pytest.approx(in_window / N, rel=1e-5)


def test_exact_lists_hold_the_best_blocks_and_no_search_holds_more_of_them(inputs, last):
    exact = last.exact()
    for head in range(4):
        for row in range(3):
            best = logits_of(inputs, head)[row * 8 : row * 8 + 8].amax(0)
            blocks = range(len(searched_keys(row)) // 2)
            top = sorted(blocks, key=lambda block: -float(best[4 + 2 * block : 6 + 2 * block].max()))[:8]
            assert listed_keys(exact, head, row) == {4 + 2 * block + offset for block in top for offset in (0, 1)}
    assert (last.recall(exact) >= last.recall(HIP.search(*inputs))).all()


def test_random_and_strided_lists_lie_in_the_search(last):
    for lists in (last.random(3), last.strided()):
        assert lists.counts.tolist() == [[[8, 8, 8]] * 4]
        for head in range(4):
            for row in range(3):
                keys = listed_keys(lists, head, row)
                assert keys <= set(searched_keys(row))
                assert len(keys) == 16
    assert torch.equal(last.random(3).indices, last.random(3).indices)
    assert not torch.equal(last.random(3).indices, last.random(4).indices)
    steps = last.strided().indices[0, 0, 0].diff()
    assert int(steps.max()) - int(steps.min()) <= 1


def test_a_short_search_lists_everything(inputs):
    wide = HierarchicalPruning(block_q=8, block_k=2, top_k=512, window=10, sink=4)
    q, k = inputs
    last = LastQueries(q, k, wide)
    for lists in (last.exact(), last.random(0), last.strided(), wide.search(*inputs)):
        assert last.recall(lists).tolist() == [1.0] * 4
        torch.testing.assert_close(last.mass(lists), torch.ones(4, dtype=torch.float64))


def test_a_window_of_equal_budget_reads_as_many_keys(last):
    lists = BlockLists(torch.full((1, 4, 3), 8, dtype=torch.int32), torch.arange(8).int().expand(1, 4, 3, 8).contiguous())
    read = 16 + sum(T - N + r + 1 - searched_keys(r // 8).stop for r in range(16)) / 16  # of whole query blocks, without sink
    assert HIP.window + equal_budget(lists, HIP) == pytest.approx(read, abs=2)
    assert math.isclose(float(last.window_mass(T).mean()), 1.0, rel_tol=1e-6)
