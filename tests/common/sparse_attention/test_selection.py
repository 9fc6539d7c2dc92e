"""Attention over a selection against loops in float64, and what a selection refuses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.sparse_attention import Selection, causal_selection, sparse_attention

BLOCK, SEGMENT, D = 16, 32, 64


def naive_attention(q, k, v, selection):
    """Every query over the visible keys of its selected blocks, one by one."""
    B, H, N, _ = q.shape
    out = torch.zeros(B, H, N, v.shape[-1], dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            kv_head = h // (H // k.shape[1])
            order = list(range(N))
            if selection.key_order is not None:
                order = selection.key_order[b, h // (H // selection.key_order.shape[1])].tolist()
            for r in range(N):
                row = selection.mask[b, h, r // selection.block_size]
                seen = [p for place, p in enumerate(order) if row[place // selection.block_size] and p <= r]
                if seen:
                    weights = (k[b, kv_head, seen].double() @ q[b, h, r].double() / math.sqrt(q.shape[-1])).softmax(0)
                    out[b, h, r] = weights @ v[b, kv_head, seen].double()
    return out


def inputs(seed, N, H, Hk):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, heads, N, D, generator=generator) for heads in (H, Hk, Hk)]


def shuffled(generator, heads, N):
    """Shuffle inside whole segments; the tail stays."""
    order = torch.arange(N).expand(1, heads, N).clone()
    for start in range(0, N - SEGMENT + 1, SEGMENT):
        order[..., start : start + SEGMENT] = start + torch.rand(1, heads, SEGMENT, generator=generator).argsort(-1)
    return order.int()


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    N=st.integers(1, 90),
    heads=st.sampled_from([(1, 1), (4, 2)]),
    order_heads=st.sampled_from([None, "query", "key"]),
)
def test_equals_the_loops(seed, N, heads, order_heads):
    H, Hk = heads
    q, k, v = inputs(seed, N, H, Hk)
    generator = torch.Generator().manual_seed(seed)
    T = math.ceil(N / BLOCK)
    mask = torch.rand(1, H, T, T, generator=generator) < 0.6
    if order_heads is None:
        selection = Selection(mask.tril(), BLOCK, BLOCK)
    else:
        segments = torch.arange(T) // 2
        order = shuffled(generator, H if order_heads == "query" else Hk, N)
        selection = Selection(mask & (segments[None, :] <= segments[:, None]), BLOCK, SEGMENT, order)
    out = sparse_attention(q, k, v, selection)
    torch.testing.assert_close(out.double(), naive_attention(q, k, v, selection), atol=1e-5, rtol=1e-4)


def test_scale_replaces_the_default():
    q, k, v = inputs(0, 40, 2, 2)
    selection = causal_selection(q, BLOCK)
    torch.testing.assert_close(sparse_attention(q, k, v, selection, scale=0.25), sparse_attention(2 * q, k, v, selection))


def test_selection_refuses_misfits():
    mask = torch.ones(1, 2, 3, 3).bool().tril()
    order = torch.arange(48).expand(1, 2, 48).int()
    with pytest.raises(InputError, match="not a multiple"):
        Selection(mask, 16, 24)
    with pytest.raises(InputError, match=r"mask is torch\.float32"):
        Selection(mask.float(), 16, 16)
    with pytest.raises(InputError, match=r"mask is torch\.bool"):
        Selection(mask[:, :, :2], 16, 16)
    with pytest.raises(InputError, match=r"key_order is torch\.int64"):
        Selection(mask, 16, 16, order.long())
    with pytest.raises(InputError, match="heads"):
        Selection(mask, 16, 16, order[:, :1].expand(1, 3, 48))
    with pytest.raises(InputError, match="covers 32 keys"):
        Selection(mask, 16, 16, order[..., :32])


def test_contents_that_would_look_ahead_are_refused():
    q, k, v = inputs(0, 64, 1, 1)
    mask = torch.ones(1, 1, 4, 4).bool().tril()
    order = torch.arange(64).view(1, 1, 64).int()
    ahead = mask.clone()
    ahead[0, 0, 1, 2] = True
    with pytest.raises(InputError, match="key block 2 for query block 1"):
        sparse_attention(q, k, v, Selection(ahead, BLOCK, SEGMENT, order))
    with pytest.raises(InputError, match="not a permutation inside every segment"):
        sparse_attention(q, k, v, Selection(mask, BLOCK, SEGMENT, order.flip(-1)))
    twice = order.clone()
    twice[..., 3] = 4
    with pytest.raises(InputError, match="not a permutation inside every segment"):
        sparse_attention(q, k, v, Selection(mask, BLOCK, SEGMENT, twice))


def test_attention_refuses_misfits():
    q, k, v = inputs(0, 64, 2, 2)
    selection = causal_selection(q, BLOCK)
    with pytest.raises(InputError, match="v is"):
        sparse_attention(q, k, v[:, :, :8], selection)
    with pytest.raises(InputError, match="selection has batch, heads and blocks"):
        sparse_attention(q[:, :1], k[:, :1], v[:, :1], selection)
    short = Selection(selection.mask, BLOCK, SEGMENT, torch.arange(63).expand(1, 2, 63).int())
    with pytest.raises(InputError, match=r"selection\.key_order has shape"):
        sparse_attention(q, k, v, short)
