"""Selections that are no block masks: attention, density and coverage are theirs, in transformers and in comparisons too."""

from dataclasses import dataclass, field

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from common.errors import InputError
from common.selector_comparison import coverage as comparison
from common.sparse_attention import (
    Dense,
    block_attention_mass,
    coverage,
    selection_coverage,
    selection_density,
    sparse_attention,
)
from common.sparse_attention.transformers_attention import SelectionStatistics, register

B, H, HK, N, D = 1, 4, 2, 60, 64


class Even:
    """Keys at an even distance from the query, every one of them."""

    def __init__(self, heads, length):
        distance = torch.arange(length)[:, None] - torch.arange(length)
        self.heads, self.visible, self.read = heads, distance >= 0, (distance >= 0) & (distance % 2 == 0)
        self.checks = 0

    def density(self):
        return (self.read.sum() / self.visible.sum()).double().expand(1, self.heads)

    def _weights(self, q, k, visible, scale=None):
        logits = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        return logits.masked_fill(~visible, float("-inf")).softmax(-1)

    def coverage(self, q, k):
        return self._weights(q, k, self.visible).masked_fill(~self.read, 0.0).sum(-1).mean(-1)

    def attend(self, q, k, v, *, scale=None):
        return self._weights(q, k, self.read, scale) @ v.repeat_interleave(q.shape[1] // v.shape[1], 1)

    def check_contents(self):
        self.checks += 1
        if self.read.triu(1).any():
            raise InputError("a later key is read.")


@dataclass
class Evens:
    name: str = "evens"
    made: list = field(default_factory=list)

    def select(self, q, k):
        self.made.append(Even(q.shape[1], q.shape[2]))
        return self.made[-1]


def inputs():
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(B, heads, N, D, generator=g) for heads in (H, HK, HK))


def test_it_attends_itself_and_is_checked_unless_told_otherwise():
    q, k, v = inputs()
    selection = Even(H, N)
    out = sparse_attention(q, k, v, selection, scale=0.3)
    assert selection.checks == 1
    h, r = 2, 57
    seen = list(range(1, r + 1, 2))
    weights = (k[0, h // 2, seen] @ q[0, h, r] * 0.3).softmax(0)
    torch.testing.assert_close(out[0, h, r], weights @ v[0, h // 2, seen], atol=1e-5, rtol=1e-4)
    sparse_attention(q, k, v, selection, check=False)
    assert selection.checks == 1
    selection.read = torch.ones_like(selection.read)
    with pytest.raises(InputError, match="later key"):
        sparse_attention(q, k, v, selection)
    with pytest.raises(InputError, match="it must be like k"):
        sparse_attention(q, k, v[:, :1], selection)


def test_density_and_coverage_of_both_kinds():
    q, k, _ = inputs()
    even, dense = Even(H, N), Dense(16).select(q, k)
    assert selection_density(even).tolist() == [[pytest.approx(930 / 1830)] * H]  # 30 x 31 of 60 x 61 / 2 pairs
    assert selection_density(dense).tolist() == [[1.0] * H]
    assert selection_coverage(even, q, k).dtype == torch.float64
    torch.testing.assert_close(selection_coverage(even, q, k), even.coverage(q, k).double())
    mass = block_attention_mass(q, k, 16)
    given, computed = selection_coverage(dense, q, k, mass), selection_coverage(dense, q, k)
    assert torch.equal(given, computed)
    assert torch.equal(given, coverage(dense.mask, mass))


def test_in_a_model_it_is_used_checked_and_counted():
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=97, hidden_size=128, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=64, eos_token_id=None, initializer_range=0.3,
        )
    ).eval()  # fmt: skip
    tokens = torch.randint(1, 97, (1, N), generator=torch.Generator().manual_seed(1))
    selector, statistics = Evens(), SelectionStatistics()
    register("even_keys", selector, statistics)
    with torch.no_grad():
        expected = model(tokens).logits
        model.set_attn_implementation("even_keys")
        found = model(tokens).logits
    assert not torch.allclose(found, expected, atol=1e-2)
    assert [selection.checks for selection in selector.made] == [1, 1]
    assert statistics.density_per_layer() == {0: pytest.approx(930 / 1830), 1: pytest.approx(930 / 1830)}


def test_in_a_comparison_of_coverage():
    q, k, v = inputs()
    settings = comparison.CoverageSettings(
        model="none", dtype="float32", rope_theta=1e4, trained_length=N, text="none", length=N, windows=1, block_size=16,
        sweeps={"evens": [0.0], "dense": [0.0]}, densities=[0.5], layers=0,
    )  # fmt: skip
    sweeps = comparison._Sweeps(settings, {"evens": lambda _: Evens(), "dense": lambda _: Dense(16)})
    sweeps.on_attention(0, q, k, v)
    density, covered = sweeps.per_head("evens", [0.0])
    assert density.tolist() == [[[pytest.approx(930 / 1830)] * H]]
    assert covered[0, 0].tolist() == pytest.approx(Even(H, N).coverage(q, k)[0].tolist())
    assert sweeps.per_head("dense", [0.0])[1][0, 0].tolist() == pytest.approx([1.0] * H)
