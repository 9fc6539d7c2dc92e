"""The gate of SeerAttention against loops over heads and blocks, and its loss and selections against hand-worked cases."""

import math
from itertools import pairwise

import pytest
import torch

from common.errors import InputError
from papers.seer_attention.seer_attention import (
    AttentionGate,
    best_blocks,
    block_positions,
    blocks_above,
    distillation_loss,
    pool,
)


def inputs(N=50, H=4, Hk=2, d=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, h, N, d, generator=g) for h in (H, Hk))


def rotary_table(positions, dim):
    """Angles of Llama's rotary embedding, base 10,000: cos and sin, [T, dim]."""
    frequencies = 10_000.0 ** (-torch.arange(0, dim, 2) / dim)
    angles = positions[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=1)
    return angles.cos(), angles.sin()


def rotated(x, position):
    """Rotary embedding of one vector as a rotation of pairs (j, j + dim / 2)."""
    dim = len(x)
    out = x.clone()
    for j in range(dim // 2):
        angle = position * 10_000.0 ** (-2 * j / dim)
        a, b = x[j].item(), x[j + dim // 2].item()
        out[j] = a * math.cos(angle) - b * math.sin(angle)
        out[j + dim // 2] = b * math.cos(angle) + a * math.sin(angle)
    return out


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("N", [7, 32, 50])
def test_the_gate_is_that_of_the_definition(projected, N):
    B = 16
    q, k = inputs(N)
    gate = AttentionGate(4, 2, 8, seed=0, block_size=B, query_projection=projected)
    positions = block_positions(N, B)
    logits = gate(q, k, *rotary_table(positions, 8))
    T = math.ceil(N / B)
    assert logits.shape == (2, 4, T, T)
    for head in range(4):
        for i in range(T):
            for j in range(T):
                if j > i:
                    assert logits[1, head, i, j] == -math.inf
                    continue
                keys = k[1, head // 2, j * B : (j + 1) * B]
                y = torch.cat([keys.max(0).values, keys.min(0).values, keys.mean(0)])
                x = q[1, head, i * B : (i + 1) * B].mean(0)
                x = x @ gate.W_q[head] if gate.W_q is not None else x
                y = y @ gate.W_k[head // 2 if projected else head]
                expected = rotated(x, i * B) @ rotated(y, j * B) / math.sqrt(8)
                torch.testing.assert_close(logits[1, head, i, j], expected, atol=1e-5, rtol=1e-4)


def test_the_published_size():
    """Llama-3.1-8B: 32 layers of 32 x 384 x 128 in bfloat16 are the 101 MB of the published file."""
    gate = AttentionGate(32, 8, 128, seed=0)
    assert [tuple(weight.shape) for weight in gate.parameters()] == [(32, 384, 128)]
    assert 32 * 2 * gate.W_k.numel() == pytest.approx(101e6, rel=0.01)


def test_poolings_of_a_partial_block():
    x = torch.tensor([[[[1.0], [5.0], [-2.0]]]])
    assert pool(x, 2, ("max", "min", "mean")).tolist() == [[[[5.0, 1.0, 3.0], [-2.0, -2.0, -2.0]]]]


def test_equal_seeds_give_equal_gates():
    first, second, other = (AttentionGate(4, 2, 8, seed=seed).W_k for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_loss_is_the_mean_divergence_over_the_last_three_quarters():
    g = torch.Generator().manual_seed(0)
    T = 8
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    logits = torch.randn(1, 2, T, T, generator=g).masked_fill(~causal, -math.inf).requires_grad_()
    maxima = torch.rand(1, 2, T, T, generator=g) * causal
    expected = 0.0
    for head in range(2):
        for i in range(2, T):
            truth = maxima[0, head, i] / maxima[0, head, i].sum()
            score = logits[0, head, i, : i + 1].softmax(-1)
            expected += sum(float(truth[j] * (truth[j].log() - score[j].log())) for j in range(i + 1))
    loss = distillation_loss(logits, maxima)
    assert loss.item() == pytest.approx(10 * expected / (2 * 6 * T), rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[..., ~causal].eq(0).all()
    assert logits.grad.isfinite().all()


def test_a_perfect_gate_has_no_loss():
    T = 4
    maxima = torch.rand(1, 1, T, T, generator=torch.Generator().manual_seed(0)).tril()
    logits = maxima.log()
    assert distillation_loss(logits, maxima).item() == pytest.approx(0.0, abs=1e-6)


def test_a_gate_learns_a_map_that_its_inputs_tell():
    """Overfit: with 200 steps of Adam the loss of one layer falls to a tenth."""
    q, k = inputs(128, H=2, Hk=1, d=16)
    gate = AttentionGate(2, 1, 16, seed=0, block_size=16)
    table = rotary_table(block_positions(128, 16), 16)
    teacher = AttentionGate(2, 1, 16, seed=5, block_size=16)
    with torch.no_grad():
        teacher.W_k.mul_(40)
        maxima = teacher(q, k, *table).softmax(-1)
    optimiser = torch.optim.AdamW(gate.parameters(), lr=0.05, weight_decay=0.0)
    losses = []
    for _ in range(200):
        loss = distillation_loss(gate(q, k, *table), maxima)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


def test_selections():
    T = 6
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    logits = torch.zeros(1, 1, T, T).masked_fill(~causal, -math.inf)
    logits[0, 0, 3] = torch.tensor([5.0, 0.0, 1.0, 0.0, -math.inf, -math.inf])
    above = blocks_above(logits, 0.3, dense_rows=1)[0, 0]
    assert above[3].tolist() == [True, False, False, True, False, False]
    assert above[1].tolist() == [True, True, False, False, False, False]  # both have 0.5
    assert above[4].tolist() == [False, False, False, False, True, False]  # five of 0.2, and the own block
    assert above[5].all()
    logits[0, 0, 4] = torch.tensor([5.0, 0.5, 1.0, 0.2, 0.1, -math.inf])
    best = best_blocks(logits, 0.75, dense_rows=0)[0, 0]  # k = floor(0.5 * 6) = 3
    assert best[4].tolist() == [True, True, True, False, True, False]  # the three best, and the own block
    assert best[1].tolist() == [True, True, False, False, False, False]
    assert torch.equal(best_blocks(logits, 1.0)[0, 0], causal)
    assert torch.equal(blocks_above(logits, 0.0)[0, 0], causal)


def test_more_density_never_loses_a_block():
    logits = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    logits = logits.masked_fill(torch.ones(12, 12, dtype=torch.bool).triu(1), -math.inf)
    masks = [best_blocks(logits, density) for density in (0.1, 0.3, 0.6, 1.0)]
    assert all((less <= more).all() for less, more in pairwise(masks))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "heads is 3 and key_heads 2"),
        ({"gate_dim": 7}, "gate_dim is 7"),
        ({"key_poolings": ()}, r"key_poolings is \(\)"),
        ({"key_poolings": ("max", "max")}, "each once"),
        ({"query_poolings": ("median",)}, r"query_poolings is \('median',\)"),
        ({"block_size": 0}, "block_size"),
    ],
)
def test_wrong_settings(change, message):
    with pytest.raises(InputError, match=message):
        AttentionGate(**{"heads": 4, "key_heads": 2, "head_dim": 8, "seed": 0, **change})


def test_wrong_inputs():
    q, k = inputs()
    gate = AttentionGate(4, 2, 8, seed=0, block_size=16)
    table = rotary_table(block_positions(50, 16), 8)
    with pytest.raises(InputError, match="this gate takes 4 and 2 heads of size 8"):
        gate(q[:, :2], k, *table)
    with pytest.raises(InputError, match=r"cos has shape \(3, 8\); expected \(4, 8\)"):
        gate(q, k, table[0][:3], table[1])
    with pytest.raises(InputError, match="they must be"):
        distillation_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3, 3))
    with pytest.raises(InputError, match="threshold is 1"):
        blocks_above(torch.zeros(1, 1, 2, 2), 1)
    with pytest.raises(InputError, match="density is 0"):
        best_blocks(torch.zeros(1, 1, 2, 2), 0)
