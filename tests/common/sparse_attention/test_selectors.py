"""Dense, mean pooling and oracle selectors against loops in float64."""

import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from common.errors import InputError
from common.kernels.block_selection import block_means, pooled_attention
from common.sparse_attention import (
    Dense,
    MeanPooling,
    Oracle,
    block_attention_mass,
    coverage,
    sparse_attention,
    structured_inputs,
)

BLOCK = 16


def inputs(N, seed=0):
    return structured_inputs(
        N, heads=4, key_heads=2, head_dim=64, topic_chunk=32, locality_period=128, heavy_hitter_period=8, seed=seed
    )


def naive_mean_pooling(q, k, tau, own_length):
    _, H, N, D = q.shape
    T = math.ceil(N / BLOCK)
    mask = torch.zeros(1, H, T, T, dtype=torch.bool)

    def mean(x, i):
        rows = x[i * BLOCK : (i + 1) * BLOCK].double()
        return rows.sum(0) / (len(rows) if own_length else BLOCK)

    for h in range(H):
        for i in range(T):
            logits = [float(mean(q[0, h], i) @ mean(k[0, h // 2], j)) / math.sqrt(D) for j in range(i + 1)]
            shares = torch.tensor(logits, dtype=torch.float64).softmax(0).tolist()
            total = 0.0
            for j in sorted(range(i + 1), key=lambda j: (-shares[j], j)):
                mask[0, h, i, j] = True
                total += shares[j]
                if total >= tau:
                    break
            mask[0, h, i, 0] = mask[0, h, i, i] = True
    return mask


@pytest.mark.parametrize("N", [16, 100, 256])
@pytest.mark.parametrize("tau", [0.3, 0.9])
@pytest.mark.parametrize("partial_block", ["zero_padded", "own_length"])
def test_mean_pooling_equals_the_loops(N, tau, partial_block):
    q, k, _ = inputs(N)
    selection = MeanPooling(BLOCK, tau, partial_block).select(q, k)
    assert torch.equal(selection.mask, naive_mean_pooling(q, k, tau, partial_block == "own_length"))
    assert (selection.block_size, selection.segment_size, selection.key_order) == (BLOCK, BLOCK, None)


def test_mean_pooling_with_tau_one_is_dense():
    q, k, _ = inputs(100)
    assert torch.equal(MeanPooling(BLOCK, 1.0).select(q, k).mask, Dense(BLOCK).select(q, k).mask)


def test_mean_pooling_with_blocks_of_one_is_the_attention_matrix():
    q, k, _ = inputs(24)
    pooled = pooled_attention(block_means(q, 1), block_means(k, 1), torch.ones(24, 24).tril().bool())
    torch.testing.assert_close(pooled, block_attention_mass(q, k, 1))


def test_pooled_attention_is_zero_where_nothing_is_allowed():
    q, k, _ = inputs(64)
    allowed = torch.zeros(4, 4, dtype=torch.bool)
    allowed[2, 1] = True
    pooled = pooled_attention(block_means(q, 16), block_means(k, 16), allowed)
    assert torch.equal(pooled, allowed.float().expand(1, 4, 4, 4))


@pytest.mark.parametrize("N", [5, 16, 100])
def test_dense_equals_sdpa(N):
    q, k, v = inputs(N)
    expected = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(sparse_attention(q, k, v, Dense(BLOCK).select(q, k)), expected, atol=1e-5, rtol=1e-4)


def test_oracle_covers_more_than_mean_pooling_at_its_density():
    q, k, _ = inputs(256)
    mass = block_attention_mass(q, k, BLOCK)
    pooled = MeanPooling(BLOCK, 0.7).select(q, k).mask
    for h in range(4):
        share = float(pooled[0, h].sum()) / 136
        best = Oracle(BLOCK, coverage=None, density=share, scope="matrix").select(q, k).mask
        assert best[0, h].sum() == pooled[0, h].sum()
        assert coverage(best, mass)[0, h] >= coverage(pooled, mass)[0, h]


def test_oracle_reaches_its_coverage_in_every_row():
    q, k, _ = inputs(200)
    mass = block_attention_mass(q, k, BLOCK)
    mask = Oracle(BLOCK, coverage=0.8).select(q, k).mask
    assert ((mass * mask).sum(-1) >= 0.8 - 1e-5).all()


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("block_size is 0", lambda: Dense(0)),
        ("tau is 0", lambda: MeanPooling(tau=0)),
        ("partial_block is 'mean'", lambda: MeanPooling(partial_block="mean")),  # pyright: ignore[reportArgumentType]
        ("exactly one", lambda: Oracle(coverage=0.5, density=0.5)),
        ("density is 2", lambda: Oracle(coverage=None, density=2)),
        ("four dimensions", lambda: Dense().select(torch.ones(2, 3), torch.ones(2, 3))),
    ],
)
def test_bad_input_is_named(message, make):
    with pytest.raises(InputError, match=message):
        make()
