"""The experiments on tiny inputs: what is measured is what the names say."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.experiment import Context, Measurement
from common.sparse_attention import selection_density
from papers.proxy_attn import ablations, heads
from papers.proxy_attn.methods import ablated_families, compared_families
from papers.proxy_attn.proxy_attn import ProxyAttention

ON_CPU = Context(device="cpu", label="test")
N, H, HK, D, LAYERS = 128, 4, 2, 64, 2


def inputs(seed=0):
    g = torch.Generator().manual_seed(seed)
    return tuple(1.5 * torch.randn(1, heads, N, D, generator=g) for heads in (H, HK, HK))


def rows_of(measurement, metric, **setting):
    return [row.value for row in measurement.rows if row.metric == metric and setting.items() <= row.setting.items()]


@pytest.mark.parametrize("build", [lambda: compared_families(16, 2, 64), lambda: ablated_families(16, 1, 2)])
def test_every_family_selects_causally_and_more_at_a_higher_threshold(build):
    q, k, _ = inputs()
    for name, family in build().items():
        less, more = (40, 112) if name in ("vertical_slash", "streaming_llm") else (0.1, 0.95)
        smaller, larger = (family(value).select(q, k) for value in (less, more))
        assert selection_density(smaller).mean() < selection_density(larger).mean(), name
        larger.check_contents()


def test_families_are_the_method_with_one_part_changed():
    compared, ablated = compared_families(16, 2, 64), ablated_families(16, 1, 2)
    method = ProxyAttention(block_size=16, gamma=0.7, groups=2, minimum_budget=0)
    assert compared["proxy_attn"](0.7) == method
    assert compared["proxy_attn_minimum"](0.7) == ProxyAttention(block_size=16, gamma=0.7, groups=2, minimum_budget=64)
    plain: dict[str, Any] = {"block_size": 16, "minimum_budget": 0}
    assert ablated["proxy_attn"](0.7) == ProxyAttention(**plain, gamma=0.7)
    assert ablated["mean_pooled"](0.7) == ProxyAttention(**plain, gamma=0.7, pooling="mean")
    assert ablated["fixed_budget"](0.7) == ProxyAttention(**plain, fixed_budget=0.7)
    assert ablated["more_proxies"](0.7) == ProxyAttention(**plain, gamma=0.7, groups=2)
    assert ablated["row_share"](0.7) == ProxyAttention(**plain, gamma=0.7, budget="row_share")


def test_gains_are_differences_at_equal_density():
    measurement = Measurement()
    for method, density, value in (("proxy_attn", 0.1, 0.7), ("fixed_budget", 0.1, 0.6), ("fixed_budget", 0.2, 0.8)):
        measurement.add("coverage_at_density", value, method=method, density=density, window=0)
    ablations.add_gains(measurement)
    (gain,) = [row for row in measurement.rows if row.metric == "coverage_gain"]
    assert gain.value == pytest.approx(0.1)
    assert gain.setting == {"than": "fixed_budget", "density": 0.1, "sparsity": 0.9, "window": 0}
    assert gain.method == "proxy_attn"


def test_means_over_pairs_and_variations_by_hand():
    mass = torch.tensor([[[0.9, 0.1], [0.3, 0.8]]])
    assert heads.pairs_mean(mass).tolist() == [pytest.approx(0.2)]
    assert heads.variation(torch.tensor([[1.0, 3.0], [2.0, 2.0]])).tolist() == [pytest.approx(0.5), 0.0]


def heads_settings():
    return heads.Settings(
        model="none", dtype="float32", rope_theta=1e4, trained_length=N, text="none", length=N, windows=1, block_size=16,
        gamma=0.9, top_share=0.125, skipped=[0, 4], layers=0,
    )  # fmt: skip


@pytest.fixture
def layers(monkeypatch):
    """Two layers with the same keys in all heads; queries are given by the test."""
    shown = [inputs(seed) for seed in range(LAYERS)]

    class Recording:
        def __init__(self, _, on_attention):
            self.on_attention = on_attention

        def __enter__(self):
            for layer, (q, k, v) in enumerate(shown):
                self.on_attention(layer, q, k, v)

        def __exit__(self, *_):
            return None

    model = SimpleNamespace(base_model=lambda *_, **__: None)
    monkeypatch.setattr(heads, "load_subject", lambda *_: SimpleNamespace(model=model))
    monkeypatch.setattr(heads, "token_windows", lambda *_: torch.zeros(1, N, dtype=torch.int64))
    monkeypatch.setattr(heads, "recording", Recording)
    return shown


def test_heads_that_attend_alike_share_all_their_mass(layers):
    for number, (q, k, v) in enumerate(layers):
        layers[number] = (q[:, :1].expand(1, H, N, D), k[:, :1].expand(1, HK, N, D), v)
    measurement = heads.run(heads_settings(), ON_CPU)
    for skipped in (0, 4):
        shared, own = (rows_of(measurement, metric, skipped=skipped) for metric in ("shared_mass", "own_mass"))
        assert shared == pytest.approx(own)
        random = rows_of(measurement, "random_mass", skipped=skipped)
        assert random == [pytest.approx(16 / (N - skipped))]
        assert rows_of(measurement, "shared_mass_over_random", skipped=skipped) == [pytest.approx(shared[0] / random[0])]
        assert measurement.arrays[f"shared_mass_{skipped}"].shape == (LAYERS, H, H)
    assert rows_of(measurement, "budget_variation", over="layer") == [pytest.approx(0)]


def test_unlike_heads_share_less_and_flat_ones_need_more(layers):
    for number, (q, k, v) in enumerate(layers):
        layers[number] = (q * torch.tensor([0.0, 1.0, 1.0, 3.0]).view(1, H, 1, 1), k, v)  # flat to peaked
    measurement = heads.run(heads_settings(), ON_CPU)
    assert rows_of(measurement, "shared_mass", skipped=0)[0] < rows_of(measurement, "own_mass", skipped=0)[0]
    budgets = measurement.arrays["budgets"]
    assert budgets.shape == (LAYERS, H)
    assert (budgets[:, 0] > budgets[:, 3]).all()
    assert rows_of(measurement, "budget_variation", over="layer")[0] > 0
    assert rows_of(measurement, "budget") == [pytest.approx(budgets.mean())]
