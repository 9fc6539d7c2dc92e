"""ProxyAttn against a naive version of its equations, in float64 and loops."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.sparse_attention import coverage, structured_inputs
from common.sparse_attention.block_mass import block_attention_mass
from papers.proxy_attn.proxy_attn import ProxyAttention, head_budgets, proxy_heads, proxy_scores, shared_mass

SMALL: dict[str, Any] = {"block_size": 16, "stride": 4, "minimum_budget": 0}


def inputs(N=150, H=4, Hk=2, d=64, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(1, h, N, d, generator=g).to(dtype) * 1.5 for h in (H, Hk))


def naive_map(q, k):
    """Causal softmax attention of one head: float64 [N, N]."""
    N, d = q.shape
    logits = q.double() @ k.double().mT / math.sqrt(d)
    return logits.masked_fill(torch.ones(N, N, dtype=torch.bool).triu(1), float("-inf")).softmax(-1)


def naive_scores(q, k, block, groups, stride, pool):
    H, Hk, N = q.shape[1], k.shape[1], q.shape[2]
    T = math.ceil(N / block)
    scores = torch.zeros(groups, T, T, dtype=torch.float64)
    for g in range(groups):
        Q = sum(q[0, i].double() for i in range(g * H // groups, (g + 1) * H // groups)) / (H // groups)
        K = sum(k[0, i].double() for i in range(g * Hk // groups, (g + 1) * Hk // groups)) / (Hk // groups)
        A = naive_map(Q[::stride], K[::stride])
        for m in range(T):
            for n in range(m + 1):
                rows = slice(m * block // stride, (m + 1) * block // stride)
                columns = slice(n * block // stride, (n + 1) * block // stride)
                part = A[rows, columns]
                scores[g, m, n] = part.max() if pool == "max" else part.sum() / len(part)
    return scores


def naive_budget(q, k, block, gamma):
    """Smallest number of blocks that hold gamma of the last block's attention."""
    N = q.shape[0]
    T = math.ceil(N / block)
    A = naive_map(q, k)[(T - 1) * block :].mean(0)
    mass = sorted((A[n * block : (n + 1) * block].sum().item() for n in range(T)), reverse=True)
    held = 0.0
    for number, part in enumerate(mass, start=1):
        held += part
        if held >= gamma - 1e-9:
            return number
    return T


@pytest.mark.parametrize("N", [16, 33, 150])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_scores(N, groups, pooling):
    q, k = inputs(N)
    scores = proxy_scores(q, k, block_size=16, groups=groups, stride=4, pooling=pooling)
    expected = naive_scores(q, k, 16, groups, 4, pooling)
    torch.testing.assert_close(scores[0].double(), expected, atol=1e-5, rtol=1e-4)


def test_averaged_key_heads_are_averaged_repeated_heads():
    q, k = inputs(20, H=8, Hk=4)
    repeated = k.repeat_interleave(2, dim=1)
    for groups in (1, 2, 4):
        _, K_g = proxy_heads(q, k, groups)
        _, other = proxy_heads(q, repeated, groups)
        torch.testing.assert_close(K_g, other)


@pytest.mark.parametrize("N", [16, 40, 150])
@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
def test_budgets(N, gamma):
    q, k = inputs(N)
    T = math.ceil(N / 16)
    reached = head_budgets(q, k, block_size=16, gamma=gamma, count="reached") * T
    literal = head_budgets(q, k, block_size=16, gamma=gamma, count="literal") * T
    expected = [naive_budget(q[0, i], k[0, i // 2], 16, gamma) for i in range(4)]
    if gamma < 1:
        assert reached[0].round().tolist() == expected
    else:
        assert reached[0].round().tolist() == [T] * 4
    torch.testing.assert_close(reached - literal, torch.ones_like(reached))


@pytest.mark.parametrize("budget", ["all_blocks", "row_share"])
def test_every_row_reads_the_best_blocks_of_its_budget(budget):
    q, k = inputs(150)
    method = ProxyAttention(**SMALL, gamma=0.6, groups=2, budget=budget, forced=False)
    mask = method.select(q, k).mask[0]
    scores = proxy_scores(q, k, block_size=16, groups=2, stride=4)[0]
    T = 10
    for head in range(4):
        blocks = naive_budget(q[0, head], k[0, head // 2], 16, 0.6)
        for row in range(T):
            wanted = blocks if budget == "all_blocks" else math.ceil(blocks / T * (row + 1) - 1e-9)
            best = sorted(range(row + 1), key=lambda n: (-scores[head // 2, row, n].item(), n))[:wanted]
            assert mask[head, row].nonzero()[:, 0].tolist() == sorted(best)


def test_a_fixed_budget_is_the_same_for_all_heads():
    q, k = inputs(160)
    mask = ProxyAttention(**SMALL, fixed_budget=0.3, forced=False).select(q, k).mask
    assert mask.sum(3).tolist() == [[[min(row + 1, 3) for row in range(10)]] * 4]


def test_forced_blocks_and_the_minimum_budget():
    q, k = inputs(160)
    forced = ProxyAttention(**SMALL, fixed_budget=0.1).select(q, k).mask
    assert forced[..., 0].all()
    assert forced.diagonal(dim1=2, dim2=3).all()
    minimum = ProxyAttention(block_size=16, minimum_budget=50, fixed_budget=0.1, forced=False).select(q, k).mask
    assert minimum.sum(3).tolist() == [[[min(row + 1, 4) for row in range(10)]] * 4]  # 50 tokens are 4 blocks


@settings(max_examples=20, deadline=None)
@given(N=st.integers(1, 90), gamma=st.floats(0.05, 1.0), groups=st.sampled_from([1, 2]), seed=st.integers(0, 5))
def test_causal_and_monotone_in_gamma(N, gamma, groups, seed):
    q, k = inputs(N, seed=seed, d=16)
    less, more = (
        ProxyAttention(**SMALL, gamma=value, groups=groups).select(q, k).mask for value in (gamma / 2, gamma)
    )  # fmt: skip
    assert not less.triu(1).any()
    assert not more.triu(1).any()
    assert (less <= more).all()


def test_covers_more_than_the_budget_of_the_natural_order():
    q, k, _ = structured_inputs(1024, heads=4, key_heads=2, head_dim=64)
    mask = ProxyAttention(block_size=64, minimum_budget=0, gamma=0.8).select(q, k).mask
    newest = torch.zeros_like(mask)
    for head in range(4):
        for row in range(16):
            newest[0, head, row, row + 1 - int(mask[0, head, row].sum()) : row + 1] = True
    mass = block_attention_mass(q, k, 64)
    assert coverage(mask, mass).mean() > coverage(newest, mass).mean()


def test_shared_mass_by_hand():
    d = 16
    q = torch.zeros(1, 2, 4, d)
    k = torch.zeros(1, 2, 4, d)
    q[0, :, -1, 0] = 4.0
    k[0, 0, :, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    k[0, 1, :, 0] = torch.tensor([3.0, 0.0, 0.0, 2.0])
    A = torch.stack([torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([3.0, 0.0, 0.0, 2.0])]).double().softmax(-1)
    score = shared_mass(q, k, 2)
    assert score[0, 0] == pytest.approx((A[0, 2] + A[0, 3]).item())
    assert score[0, 1] == pytest.approx((A[1, 2] + A[1, 3]).item())  # head 1's mass in head 0's tokens 2 and 3
    assert score[1, 0] == pytest.approx((A[0, 0] + A[0, 3]).item())
    without_first = shared_mass(q, k, 1, skip=1)
    assert without_first[1, 0] == pytest.approx((A[0, 3] / A[0, 1:].sum()).item())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": 0.0}, "gamma"),
        ({"gamma": 1.5}, "gamma"),
        ({"groups": 0}, "groups is 0"),
        ({"stride": 5}, "multiple"),
        ({"minimum_budget": -1}, "minimum_budget is -1"),
        ({"pooling": "median"}, "pooling is 'median'; choose 'max' or 'mean'"),
        ({"count": "none"}, "count is 'none'"),
        ({"budget": "half"}, "budget is 'half'"),
        ({"fixed_budget": 2.0}, "fixed_budget"),
    ],
)
def test_wrong_settings(change, message):
    with pytest.raises(InputError, match=message):
        ProxyAttention(**{**SMALL, **change})


def test_wrong_inputs():
    q, k = inputs(20, H=6, Hk=3)
    with pytest.raises(InputError, match="groups is 2, and k has 3 heads"):
        ProxyAttention(**SMALL, groups=2).select(q, k)
    with pytest.raises(InputError, match="tokens is 21 for 20 keys"):
        shared_mass(q, k, 21)


@pytest.mark.gpu
@pytest.mark.parametrize("N", [1024, 1100])
def test_a_gpu_selects_as_the_cpu_does(N):
    q, k, _ = structured_inputs(N, heads=4, key_heads=2, head_dim=128, dtype=torch.bfloat16)
    budgets = [
        head_budgets(x, y, block_size=128, gamma=0.9, count="reached").cpu() for x, y in ((q, k), (q.cuda(), k.cuda()))
    ]  # fmt: skip
    torch.testing.assert_close(*budgets)
    method = ProxyAttention(fixed_budget=0.5, minimum_budget=0)
    on_cpu, on_gpu = (method.select(x, y).mask.cpu() for x, y in ((q, k), (q.cuda(), k.cuda())))
    assert (on_cpu != on_gpu).double().mean() < 0.02  # averaged heads are rounded to bfloat16: near ties may change places
