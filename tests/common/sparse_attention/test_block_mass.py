"""Exact block mass against loops in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.sparse_attention import block_attention_mass, block_attention_masses


def naive_mass(q, k, block_size, key_order=None):
    B, H, N, D = q.shape
    T = math.ceil(N / block_size)
    mass = torch.zeros(B, H, T, T, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            keys = k[b, h // (H // k.shape[1])].double()
            order = list(range(N)) if key_order is None else key_order[b, h // (H // key_order.shape[1])].tolist()
            for r in range(N):
                p = (keys[: r + 1] @ q[b, h, r].double() / math.sqrt(D)).softmax(0)
                rows = min(block_size, N - r // block_size * block_size)
                for place, position in enumerate(order):
                    if position <= r:
                        mass[b, h, r // block_size, place // block_size] += p[position] / rows
    return mass


def permutation(generator, B, H, N):
    return torch.rand(B, H, N, generator=generator).argsort(-1).int()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    N=st.integers(1, 37),
    heads=st.sampled_from([(1, 1), (2, 1), (4, 2)]),
    block_size=st.sampled_from([1, 4, 8]),
    chunk=st.sampled_from([None, 1, 3]),
    order_heads=st.sampled_from([None, "query", "key"]),
)
def test_equals_the_loops(seed, N, heads, block_size, chunk, order_heads):
    generator = torch.Generator().manual_seed(seed)
    H, Hk = heads
    q, k = 2 * torch.randn(1, H, N, 8, generator=generator), torch.randn(1, Hk, N, 8, generator=generator)
    order = None if order_heads is None else permutation(generator, 1, H if order_heads == "query" else Hk, N)
    row_chunk = None if chunk is None else chunk * block_size
    mass = block_attention_mass(q, k, block_size, key_order=order, row_chunk=row_chunk)
    torch.testing.assert_close(mass.double(), naive_mass(q, k, block_size, order), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mass.sum(-1), torch.ones_like(mass.sum(-1)))


def test_blocks_of_one_token_are_the_attention_matrix():
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 3, 20, 8, generator=generator) for _ in range(2))
    logits = (q @ k.mT / math.sqrt(8)).masked_fill(~torch.ones(20, 20).tril().bool(), -torch.inf)
    torch.testing.assert_close(block_attention_mass(q, k, 1), logits.softmax(-1))


def test_several_orders_at_once_equal_one_by_one():
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, 2, 50, 8, generator=generator) for _ in range(2))
    orders = {"natural": None, "shuffled": permutation(generator, 1, 2, 50)}
    together = block_attention_masses(q, k, 8, key_orders=orders)
    for name, order in orders.items():
        torch.testing.assert_close(together[name], block_attention_mass(q, k, 8, key_order=order))


def test_scale_replaces_the_default():
    generator = torch.Generator().manual_seed(2)
    q, k = (torch.randn(1, 1, 16, 4, generator=generator) for _ in range(2))
    torch.testing.assert_close(block_attention_mass(q, k, 4, scale=1.0), block_attention_mass(2 * q, k, 4))


@pytest.mark.gpu
def test_gpu_equals_cpu():
    generator = torch.Generator().manual_seed(3)
    q, k = torch.randn(1, 4, 1000, 64, generator=generator), torch.randn(1, 2, 1000, 64, generator=generator)
    order = permutation(generator, 1, 4, 1000)
    here = block_attention_mass(q, k, 128, key_order=order)
    there = block_attention_mass(q.cuda(), k.cuda(), 128, key_order=order.cuda())
    torch.testing.assert_close(there.cpu(), here, atol=1e-4, rtol=1e-3)


def bad_inputs():
    x = torch.ones(1, 2, 16, 8)
    nan = x.clone()
    nan[0, 0, 3, 0] = float("nan")
    yield "four dimensions", (x[0], x, 4), {}
    yield "head dim must be equal", (x, x[:, :, :8], 4), {}
    yield "must divide", (x, torch.ones(1, 3, 16, 8), 4), {}
    yield "floating-point", (x.int(), x.int(), 4), {}
    yield "must agree", (x, x.double(), 4), {}
    yield "no size may be zero", (x[:, :, :0], x[:, :, :0], 4), {}
    yield "block_size is 0", (x, x, 0), {}
    yield "row_chunk is 6", (x, x, 4), {"row_chunk": 6}
    yield "not a permutation", (x, x, 4), {"key_order": torch.zeros(1, 2, 16, dtype=torch.int32)}
    yield "key_order has shape", (x, x, 4), {"key_order": torch.zeros(1, 2, 15, dtype=torch.int32)}
    yield "NaN or infinity", (nan, x, 4), {}


@pytest.mark.parametrize(("message", "arguments", "keywords"), list(bad_inputs()))
def test_bad_input_is_named(message, arguments, keywords):
    with pytest.raises(InputError, match=message):
        block_attention_mass(*arguments, **keywords)
