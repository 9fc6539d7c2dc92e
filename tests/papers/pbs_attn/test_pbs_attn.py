"""PBS-Attn against loops in float64, and the properties the paper rests on."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention

from common.errors import InputError
from common.sparse_attention import (
    block_attention_masses,
    coverage,
    density,
    density_at_coverage,
    sparse_attention,
    structured_inputs,
)
from papers.pbs_attn.pbs_attn import KEY_ORDERS, PBSAttention

BLOCK, SEGMENT, D = 16, 32, 64


def method(**keywords):
    return PBSAttention(block_size=BLOCK, segment_size=SEGMENT, **keywords)


def inputs(N, H=4, Hk=2, seed=0):
    return structured_inputs(
        N, heads=H, key_heads=Hk, head_dim=D, topic_chunk=32, locality_period=128, heavy_hitter_period=8, seed=seed
    )


def naive_importance(q, k, queries, keys, causal):
    """Mean attention of some query positions to each of the first `keys` keys. One head: q, k [N, D]."""
    total = torch.zeros(len(k), dtype=torch.float64)
    for r in queries:
        seen = min(keys, r + 1) if causal else keys
        total[:seen] += (k[:seen].double() @ q[r].double() / math.sqrt(q.shape[1])).softmax(0)
    return total / len(queries)


def naive_sort(importance, N):
    order = list(range(N))
    for start in range(0, N // SEGMENT * SEGMENT, SEGMENT):
        order[start : start + SEGMENT] = sorted(range(start, start + SEGMENT), key=lambda p: (-float(importance[p]), p))
    return order


def naive_selection(q, k, order, tau, own_length=False):
    """Algorithm 2 for one head: q, k [N, D], order a list."""
    N = len(q)
    T, ratio = math.ceil(N / BLOCK), SEGMENT // BLOCK
    shuffled = k[order]

    def mean(x, i):
        rows = x[i * BLOCK : (i + 1) * BLOCK].double()
        return rows.sum(0) / (len(rows) if own_length else BLOCK)

    mask = torch.zeros(T, T, dtype=torch.bool)
    for i in range(T):
        earlier = [j for j in range(T) if j // ratio < i // ratio]
        if earlier:
            logits = torch.stack([mean(q, i) @ mean(shuffled, j) / math.sqrt(D) for j in earlier])
            shares = logits.softmax(0).tolist()
            total = 0.0
            for j in sorted(earlier, key=lambda j: (-shares[j], j)):
                mask[i, j] = True
                total += shares[j]
                if total >= tau:
                    break
        for j in range(T):
            if j // ratio == i // ratio:
                mask[i, j] = True
        mask[i, order.index(0) // BLOCK] = True
    return mask


@pytest.mark.parametrize("N", [64, 100, 200])
@pytest.mark.parametrize("gqa", ["replicated", "shared"])
@pytest.mark.parametrize("tau", [0.5, 0.9])
def test_method_equals_the_loops(N, gqa, tau):
    q, k, _ = inputs(N)
    selection = method(gqa=gqa, tau=tau).select(q, k)
    assert selection.key_order is not None
    assert selection.key_order.shape == (1, 4 if gqa == "replicated" else 2, N)
    for h in range(4):
        keys = k[0, h // 2]
        proxy = q[0, h] if gqa == "replicated" else q[0, h // 2 * 2 : h // 2 * 2 + 2].mean(0)
        importance = naive_importance(proxy, keys, range(N - BLOCK, N), N // SEGMENT * SEGMENT, causal=False)
        order = naive_sort(importance, N)
        assert selection.key_order[0, h if gqa == "replicated" else h // 2].tolist() == order
        assert torch.equal(selection.mask[0, h], naive_selection(q[0, h], keys, order, tau))


@pytest.mark.parametrize(
    ("order", "keys", "causal"),
    [("last_block_all_keys", 100, False), ("last_block_causal", 100, True), ("last_block", 96, False)],
)
def test_support_of_the_importance_softmax(order, keys, causal):
    q, k, _ = inputs(100)
    found = method(order=order).key_order(q, k)
    for h in range(4):
        importance = naive_importance(q[0, h], k[0, h // 2], range(84, 100), keys, causal)
        assert found[0, h].tolist() == naive_sort(importance, 100)


def test_average_query():
    q, k, _ = inputs(100)
    found = method(order="average_query").key_order(q, k)
    for h in range(4):
        logits = k[0, h // 2].double() @ q[0, h].double().mean(0)
        assert found[0, h].tolist() == naive_sort(logits, 100)  # the softmax keeps the order


def test_random_query_uses_as_many_queries_as_a_block_has_and_follows_the_seed():
    q, k, _ = inputs(100)
    found = method(order="random_query", seed=5).key_order(q, k)
    drawn = torch.randperm(100, generator=torch.Generator().manual_seed(5))[:BLOCK].tolist()
    for h in range(4):
        assert found[0, h].tolist() == naive_sort(naive_importance(q[0, h], k[0, h // 2], drawn, 96, False), 100)
    assert not torch.equal(found, method(order="random_query", seed=6).key_order(q, k))


def test_greedy_equals_the_loops():
    q, k, _ = inputs(100)
    found = method(order="greedy").key_order(q, k)
    for h in range(2):
        order = list(range(100))
        for start in range(0, 96, SEGMENT):
            left, placed = list(range(start, start + SEGMENT)), []
            while left:
                first = left[0]
                by_similarity = sorted(
                    left[1:], key=lambda p: -float(cosine_similarity(k[0, h, p].double(), k[0, h, first].double(), dim=0))
                )
                block = [first, *by_similarity[: BLOCK - 1]]
                placed += block
                left = [p for p in left if p not in block]
            order[start : start + SEGMENT] = placed
        assert found[0, h].tolist() == order


def test_random_follows_the_seed_and_none_is_natural():
    q, k, _ = inputs(100)
    first = method(order="random").key_order(q, k)
    assert torch.equal(first, method(order="random").key_order(q, k))
    assert not torch.equal(first, method(order="random", seed=1).key_order(q, k))
    assert not torch.equal(first[:, 0], first[:, 1])
    assert torch.equal(method(order="none").key_order(q, k), torch.arange(100).int().expand(1, 2, 100))


@settings(max_examples=40, deadline=None)
@given(
    N=st.integers(SEGMENT + 1, 150),
    order=st.sampled_from(sorted(KEY_ORDERS)),
    gqa=st.sampled_from(["replicated", "shared"]),
    seed=st.integers(0, 100),
)
def test_every_order_stays_inside_segments_and_leaves_the_tail(N, order, gqa, seed):
    q, k, _ = inputs(N, seed=seed)
    found = method(order=order, gqa=gqa, seed=seed).key_order(q, k)
    assert found.dtype == torch.int32
    G = N // SEGMENT
    sorted_part = found[..., : G * SEGMENT].unflatten(-1, (G, SEGMENT)).sort(-1).values
    assert torch.equal(sorted_part, torch.arange(G * SEGMENT).int().view(G, SEGMENT).expand_as(sorted_part))
    tail = found[..., G * SEGMENT :]
    assert torch.equal(tail, torch.arange(G * SEGMENT, N).int().expand_as(tail))


@settings(max_examples=25, deadline=None)
@given(
    N=st.integers(1, 150),
    order=st.sampled_from(sorted(KEY_ORDERS)),
    gqa=st.sampled_from(["replicated", "shared"]),
    heads=st.sampled_from([(1, 1), (2, 2), (4, 2), (3, 1)]),
    seed=st.integers(0, 100),
)
def test_all_blocks_selected_equals_dense_attention(N, order, gqa, heads, seed):
    q, k, v = inputs(N, *heads, seed=seed)
    selection = method(order=order, gqa=gqa, tau=1.0, seed=seed).select(q, k)
    out = sparse_attention(q, k, v, selection)
    expected = scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True, enable_gqa=True)
    assert float((out - expected).norm() / expected.norm()) <= 1e-5


@settings(max_examples=25, deadline=None)
@given(
    N=st.integers(SEGMENT + 1, 150), at=st.integers(0, 149), order=st.sampled_from(sorted(KEY_ORDERS)), seed=st.integers(0, 100)
)
def test_a_later_value_never_changes_an_output(N, at, order, seed):
    at = min(at, N - 1)
    q, k, v = inputs(N, seed=seed)
    selection = method(order=order, tau=0.5, seed=seed).select(q, k)
    changed_k, changed_v = k.clone(), v.clone()
    changed_k[:, :, at] += 10
    changed_v[:, :, at] -= 10
    # The selection is held fixed: by design it looks at all keys (the last queries order them), attention itself must not.
    before, after = sparse_attention(q, k, v, selection), sparse_attention(q, changed_k, changed_v, selection)
    torch.testing.assert_close(after[:, :, :at], before[:, :, :at], rtol=0, atol=0)
    assert not torch.equal(after[:, :, at], before[:, :, at])  # a query always sees its own key: own segments are kept


@settings(max_examples=25, deadline=None)
@given(
    N=st.integers(SEGMENT + 1, 200),
    tau=st.floats(0.05, 1.0),
    order=st.sampled_from(sorted(KEY_ORDERS)),
    seed=st.integers(0, 100),
)
def test_own_segment_and_sink_are_always_read_and_later_segments_never(N, tau, order, seed):
    q, k, _ = inputs(N, seed=seed)
    selection = method(order=order, tau=tau, seed=seed).select(q, k)
    selection.check_contents()
    segments = torch.arange(selection.mask.shape[2]) * BLOCK // SEGMENT
    assert selection.mask[..., segments[None, :] == segments[:, None]].all()
    assert selection.key_order is not None
    sink_block = (selection.key_order == 0).int().argmax(-1) // BLOCK
    for h in range(4):
        assert selection.mask[0, h, :, sink_block[0, h // (4 // selection.key_order.shape[1])]].all()


@settings(max_examples=25, deadline=None)
@given(N=st.integers(SEGMENT + 1, 200), taus=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)), seed=st.integers(0, 100))
def test_more_tau_means_more_blocks_density_and_coverage(N, taus, seed):
    q, k, _ = inputs(N, seed=seed)
    less, more = (method(tau=tau).select(q, k) for tau in sorted(taus))
    assert (less.mask <= more.mask).all()
    mass = block_attention_masses(q, k, BLOCK, key_orders={"pbs": less.key_order})["pbs"]
    kept = [coverage(selection.mask, mass) for selection in (less, more)]
    assert (kept[0] <= kept[1]).all()
    assert (kept[0] >= 0).all()
    assert (kept[1] <= 1 + 1e-6).all()
    assert (density(less.mask, SEGMENT, BLOCK) <= density(more.mask, SEGMENT, BLOCK)).all()


def test_tau_one_reads_all_and_a_float_below_one_never_selects_nothing():
    q, k, _ = inputs(200)
    segments = torch.arange(13) // 2
    for tau in (1, 1.0):
        assert torch.equal(method(tau=tau).select(q, k).mask[0, 0], segments[None, :] <= segments[:, None])
    almost = method(tau=1 - 1e-7).select(q, k).mask
    earlier = segments[None, :] < segments[:, None]
    assert (almost & earlier).sum(-1)[..., SEGMENT // BLOCK :].ge(1).all()


def test_partial_last_block_by_its_own_length():
    q, k, _ = inputs(200)
    order = method(order="none").key_order(q, k)
    for rule, own_length in (("zero_padded", False), ("own_length", True)):
        mask = method(order="none", partial_block=rule, tau=0.6).select(q, k).mask
        for h in range(4):
            assert torch.equal(mask[0, h], naive_selection(q[0, h], k[0, h // 2], order[0, h // 2].tolist(), 0.6, own_length))


@pytest.mark.parametrize("N", [1, BLOCK, SEGMENT - 1, SEGMENT])
def test_up_to_one_segment_it_is_plain_causal_attention(N):
    q, k, v = inputs(N)
    selection = method().select(q, k)
    assert selection.key_order is None
    assert selection.segment_size == BLOCK
    expected = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(sparse_attention(q, k, v, selection), expected, atol=1e-5, rtol=1e-4)


def test_sorting_helps_on_structured_inputs_and_shuffling_does_not():
    q, k, _ = structured_inputs(2048, heads=4, key_heads=4, head_dim=D, topic_chunk=128, locality_period=1024)
    orders = {name: method(order=name).key_order(q, k) for name in ("none", "last_block", "random")}
    masses = block_attention_masses(q, k, BLOCK, key_orders=orders)
    needed = {name: float(density_at_coverage(mass, 0.9).mean()) for name, mass in masses.items()}
    assert needed["last_block"] < needed["none"] < needed["random"] + 0.01


@pytest.mark.gpu
@pytest.mark.parametrize("order", sorted(KEY_ORDERS))
def test_gpu_all_blocks_selected_equals_dense_attention(order):
    q, k, v = structured_inputs(1000, heads=8, key_heads=2, device="cuda", dtype=torch.bfloat16)
    selection = PBSAttention(order=order, tau=1.0).select(q, k)
    out = sparse_attention(q, k, v, selection).float()
    expected = scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True, enable_gqa=True)
    assert float((out - expected).norm() / expected.norm()) <= 1e-2


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("tau is 0", lambda: PBSAttention(tau=0)),
        ("not a multiple", lambda: PBSAttention(segment_size=200)),
        ("order is 'best'", lambda: PBSAttention(order="best")),
        ("gqa is 'split'", lambda: PBSAttention(gqa="split")),  # pyright: ignore[reportArgumentType]
        ("partial_block is 'mean'", lambda: PBSAttention(partial_block="mean")),  # pyright: ignore[reportArgumentType]
        ("must divide", lambda: PBSAttention().select(torch.ones(1, 3, 300, 64), torch.ones(1, 2, 300, 64))),
        (
            "length and head dim must be equal",
            lambda: PBSAttention().select(torch.ones(1, 2, 1, 64), torch.ones(1, 2, 300, 64)),
        ),
    ],
)
def test_bad_input_is_named(message, make):
    with pytest.raises(InputError, match=message):
        make()
