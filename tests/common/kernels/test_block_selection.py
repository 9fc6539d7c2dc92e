"""Means of blocks and their selection against loops in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.kernels.block_selection import block_means, select_top_p

IMPLEMENTATIONS = ["reference", "triton"]  # the kernel runs in Triton's interpreter where there is no GPU
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def naive_means(x, block, order, own_length):
    B, Hk, N, D = x.shape
    H = Hk if order is None else order.shape[1]
    means = torch.zeros(B, H, math.ceil(N / block), D, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            rows = x[b, h // (H // Hk)].double().cpu()
            rows = rows if order is None else rows[order[b, h].long().cpu()]
            for t, part in enumerate(rows.split(block)):
                means[b, h, t] = part.sum(0) / (len(part) if own_length else block)
    return means


def naive_selection(q_means, k_means, tau, segment_blocks, score_own, always):
    """Every row by a sorted loop; also the smallest distance of a partial sum from tau, where rounding may decide."""
    B, H, T, D = q_means.shape
    mask = torch.zeros(B, H, T, T, dtype=torch.bool)
    clearance = 1.0
    q_means, k_means = q_means.double().cpu(), k_means.double().cpu()
    for b in range(B):
        for h in range(H):
            keys = k_means[b, h // (H // k_means.shape[1])]
            for i in range(T):
                first_own = i // segment_blocks * segment_blocks
                end = min(first_own + segment_blocks, T)
                scored = range(end if score_own else first_own)
                shares = (keys[list(scored)] @ q_means[b, h, i] / math.sqrt(D)).softmax(0).tolist() if len(scored) else []
                total = 0.0
                for j in sorted(scored, key=lambda j, shares=shares: (-shares[j], j)):
                    mask[b, h, i, j] = True
                    total += shares[j]
                    clearance = min(clearance, abs(total - tau) if tau < 1 else 1.0)
                    if total >= tau and tau < 1:
                        break
                mask[b, h, i, first_own:end] = True
                if always is not None and int(always[b, h]) < end:
                    mask[b, h, i, int(always[b, h])] = True
    return mask, clearance


def tensors(B, H, Hk, T, D, seed, spread=2.0):
    g = torch.Generator().manual_seed(seed)
    q, k = (spread * torch.randn(B, heads, T, D, generator=g) for heads in (H, Hk))
    return q.to(DEVICE), k.to(DEVICE), torch.randint(T, (B, H), generator=g, dtype=torch.int32).to(DEVICE)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("N", "block", "D"), [(1, 16, 8), (64, 16, 64), (100, 16, 24), (130, 128, 64), (50, 24, 64)])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("own_length", [False, True])
def test_block_means(N, block, D, ordered, own_length, implementation):
    g = torch.Generator().manual_seed(N)
    x = torch.randn(2, 2, N, D, generator=g).to(DEVICE)
    order = torch.rand(2, 4, N, generator=g).argsort(-1).int().to(DEVICE) if ordered else None
    means = block_means(x, block, order=order, own_length=own_length, implementation=implementation)
    assert means.dtype == torch.float32
    torch.testing.assert_close(means.cpu().double(), naive_means(x, block, order, own_length), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_block_means_of_a_transposed_half_tensor(implementation):
    x = torch.randn(1, 70, 3, 16, generator=torch.Generator().manual_seed(0)).half().to(DEVICE).transpose(1, 2)
    torch.testing.assert_close(
        block_means(x, 32, implementation=implementation).cpu().double(), naive_means(x, 32, None, False), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=15, deadline=None)
@given(
    T=st.integers(1, 20),
    heads=st.sampled_from([(1, 1), (4, 2)]),
    tau=st.sampled_from([0.05, 0.5, 0.9, 0.99, 1.0]),
    segment_blocks=st.sampled_from([1, 2, 3]),
    score_own=st.booleans(),
    with_always=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_selection_equals_the_loops(implementation, T, heads, tau, segment_blocks, score_own, with_always, seed):
    H, Hk = heads
    q, k, always = tensors(2, H, Hk, T, 16, seed)
    always = always if with_always else None
    expected, clearance = naive_selection(q, k, tau, segment_blocks, score_own, always)
    if clearance < 1e-5:
        return  # rounding may decide either way
    lists = select_top_p(
        q, k, tau=tau, segment_blocks=segment_blocks, score_own=score_own, always=always, implementation=implementation
    )
    lists.check_contents(T, segment_blocks)
    assert torch.equal(lists.to_mask(T).cpu(), expected)
    unused = torch.arange(T, device=DEVICE) >= lists.counts[..., None]
    assert not lists.indices[unused].any()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_ties_go_to_the_lower_column(implementation):
    q = torch.zeros(1, 1, 9, 16, device=DEVICE)  # every score is equal
    mask = select_top_p(q, q, tau=0.45, implementation=implementation).to_mask(9)
    for i in range(9):
        kept = math.ceil(0.45 * i - 1e-6)
        assert mask[0, 0, i].tolist() == [j < kept or j == i for j in range(9)]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_nan_keeps_its_row_and_no_other(implementation):
    q, k, _ = tensors(1, 1, 1, 6, 16, 0)
    clean = select_top_p(q, k, tau=0.5, implementation=implementation).to_mask(6)
    q[0, 0, 3, 0] = float("nan")
    mask = select_top_p(q, k, tau=0.5, implementation=implementation).to_mask(6)
    assert mask[0, 0, 3].tolist() == [True] * 4 + [False] * 2
    rows = torch.tensor([0, 1, 2, 4, 5], device=DEVICE)
    assert torch.equal(mask[:, :, rows], clean[:, :, rows])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_one_dominant_block_suffices(implementation):
    q, k, _ = tensors(1, 1, 1, 12, 16, 0)
    q[...], k[...] = 1.0, 0.0
    k[0, 0, 4] = 50.0
    mask = select_top_p(q, k, tau=0.999, implementation=implementation).to_mask(12)
    assert mask[0, 0, 11].nonzero().flatten().tolist() == [4, 11]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q: select_top_p(q.half(), q, tau=0.9), "q_means has dtype torch.float16"),
        (lambda q: select_top_p(q, q[:, :, :3], tau=0.9), "must agree but for the heads"),
        (lambda q: select_top_p(q, q[:, :3], tau=0.9), "must divide"),
        (lambda q: select_top_p(q, q, tau=0.0), "tau is 0.0"),
        (lambda q: select_top_p(q, q, tau=0.9, segment_blocks=0), "segment_blocks is 0"),
        (lambda q: select_top_p(q, q, tau=0.9, always=torch.zeros(1, 4, device=DEVICE)), "always has dtype"),
        (lambda q: block_means(q, 0), "block_size is 0"),
        (lambda q: block_means(q[0], 16), "x has shape"),
        (lambda q: block_means(q, 16, order=torch.zeros(1, 4, 6, device=DEVICE)), "order has dtype torch.float32"),
        (lambda q: block_means(q, 16, order=torch.zeros(1, 6, 6, dtype=torch.int32, device=DEVICE)), "must divide"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.ones(1, 4, 6, 16, device=DEVICE))


@pytest.mark.gpu
@pytest.mark.parametrize("T", [1024, 1000, 2048])
def test_selection_at_full_size_on_gpu(T):
    """Rows as long as those of 128K and 256K tokens: the kernel and the reference differ only where rounding decides.

    That is one block more or less at the end of a prefix, or one in place of another of nearly the same score.
    """
    q, k, always = tensors(1, 8, 2, T, 128, T, spread=1.0)
    lists = select_top_p(q, k, tau=0.9, segment_blocks=2, always=always)
    lists.check_contents(T, 2)
    ours = lists.to_mask(T)
    expected = select_top_p(q, k, tau=0.9, segment_blocks=2, always=always, implementation="reference").to_mask(T)
    differing = (ours != expected).sum(-1)
    assert int(differing.max()) <= 2
    assert float((differing > 0).double().mean()) < 0.01
    again = select_top_p(q, k, tau=0.9, segment_blocks=2, always=always)
    assert torch.equal(again.indices, lists.indices)
