"""Selectors on equal terms: equal densities, the oracle above all, permuted keys by their own blocks."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from common.experiment import Context
from common.selector_comparison import baseline_families, value_at_density
from common.selector_comparison import coverage as comparison
from common.sparse_attention import Selection, block_attention_mass, coverage, density, selection_density
from common.sparse_attention.blocks import causal_blocks

ON_CPU = Context(device="cpu", label="test")
B, N, H, HK, D = 16, 96, 4, 2, 64


def test_between_two_points_on_a_straight_line_and_nowhere_outside():
    densities, coverages = [0.4, 0.1, 0.2], [0.9, 0.3, 0.7]
    assert value_at_density(densities, coverages, 0.1) == pytest.approx(0.3)
    assert value_at_density(densities, coverages, 0.15) == pytest.approx(0.5)
    assert value_at_density(densities, coverages, 0.3) == pytest.approx(0.8)
    assert value_at_density(densities, coverages, 0.05) is None
    assert value_at_density(densities, coverages, 0.41) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6), st.floats(0, 1))
def test_never_outside_the_coverages_of_the_sweep(points, wanted):
    densities, coverages = zip(*points, strict=True)
    found = value_at_density(densities, coverages, wanted)
    if found is None:
        assert wanted < min(densities) or wanted > max(densities)
    else:
        assert min(coverages) - 1e-9 <= found <= max(coverages) + 1e-9


def test_densities_that_nearly_coincide_do_not_overflow():
    assert value_at_density([0.0, 1e-310], [0.0, 1.0], 5e-311) == pytest.approx(0.5)


@pytest.mark.parametrize(("x", "y"), [([], []), ([0.1], [0.1, 0.2]), ([[0.1]], [[0.1]])])
def test_points_that_are_no_sweep(x, y):
    with pytest.raises(InputError, match="give as many of both"):
        value_at_density(x, y, 0.1)


class TwoLayers:
    """A model of two attention layers that hands their queries and keys to whoever records."""

    def __init__(self):
        g = torch.Generator().manual_seed(0)
        self.layers = [
            tuple(1.5 * torch.randn(1, heads, N, D, generator=g) for heads in (H, HK, HK)) for _ in range(2)
        ]  # fmt: skip
        self.on_attention = None

    def base_model(self, tokens, use_cache):
        assert tokens.shape == (1, N)
        assert self.on_attention is not None
        for layer, (q, k, v) in enumerate(self.layers):
            self.on_attention(layer, q, k, v)


@dataclass(frozen=True)
class Nearest:
    """The nearest blocks; with `reverse` the keys are laid out backwards inside segments of two blocks."""

    blocks: int
    reverse: bool = False

    @property
    def name(self):
        return "nearest"

    def select(self, q, k):
        T = N // B
        distance = torch.arange(T)[:, None] - torch.arange(T)
        mask = ((distance < self.blocks) & (distance >= 0)).expand(1, H, T, T)
        if not self.reverse:
            return Selection(mask, B, B)
        order = torch.arange(N).view(-1, 2 * B).flip(1).flatten().int().expand(1, HK, N)
        return Selection(mask, B, 2 * B, order)


@pytest.fixture
def model(monkeypatch):
    model = TwoLayers()

    class Recording:
        def __init__(self, _, on_attention):
            model.on_attention = on_attention

        def __enter__(self):
            return None

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(comparison, "load_subject", lambda *_: SimpleNamespace(model=model))
    monkeypatch.setattr(comparison, "token_windows", lambda *_: torch.zeros(2, N, dtype=torch.int64))
    monkeypatch.setattr(comparison, "recording", Recording)
    return model


FAMILIES = {
    "nearest": lambda blocks: Nearest(round(blocks)),
    "reversed": lambda blocks: Nearest(round(blocks), reverse=True),
}


def settings_of(**changes):
    values = {
        "model": "none", "dtype": "float32", "rope_theta": 1e4, "trained_length": N, "text": "none", "length": N, "windows": 2,
        "block_size": B, "sweeps": {"nearest": [1.0, 3.0, 6.0], "reversed": [2.0]}, "densities": [0.3, 0.6], "layers": 0,
    }  # fmt: skip
    return comparison.CoverageSettings.model_validate({**values, **changes})


def rows_of(measurement, metric, method):
    return [row for row in measurement.rows if (row.metric, row.method) == (metric, method)]


def test_rows_are_means_over_layers_and_heads(model):
    measurement = comparison.compare_coverage(settings_of(), FAMILIES, ON_CPU)
    selection = Nearest(3)
    expected = [
        coverage(selection.select(q, k).mask, block_attention_mass(q, k, B)).mean().item() for q, k, _ in model.layers
    ]  # fmt: skip
    found = [row.value for row in rows_of(measurement, "coverage", "nearest") if row.setting["threshold"] == 3.0]
    assert found == pytest.approx([np.mean(expected)] * 2)
    shares = [row.value for row in rows_of(measurement, "density", "nearest") if row.setting["threshold"] == 6.0]
    assert shares == [1.0, 1.0]
    full = [row.value for row in rows_of(measurement, "coverage", "nearest") if row.setting["threshold"] == 6.0]
    assert full == pytest.approx([1.0, 1.0])
    assert measurement.arrays["coverage_nearest"].shape == (3, 2, H)


def test_permuted_keys_are_measured_by_their_own_blocks(model):
    measurement = comparison.compare_coverage(settings_of(layers=1), FAMILIES, ON_CPU)
    q, k, _ = model.layers[0]
    selection = FAMILIES["reversed"](2).select(q, k)
    mass = block_attention_mass(q, k, B, key_order=selection.key_order)
    found = rows_of(measurement, "coverage", "reversed")
    assert found[0].value == pytest.approx(coverage(selection.mask, mass).mean().item())
    assert found[0].value != pytest.approx(coverage(selection.mask, block_attention_mass(q, k, B)).mean().item())


def test_no_selector_beats_the_oracle_of_its_rows(model):
    measurement = comparison.compare_coverage(settings_of(), FAMILIES, ON_CPU)
    for row in rows_of(measurement, "coverage_at_density", "nearest"):
        best = next(
            other.value for other in rows_of(measurement, "coverage", "oracle")
            if (other.setting["threshold"], other.setting["window"]) == (row.setting["density"], row.setting["window"])
        )  # fmt: skip
        assert row.value <= best + 1e-6
    assert not rows_of(measurement, "coverage_at_density", "reversed")  # one point, of another density
    T = N // B
    share = density(causal_blocks(T).expand(1, H, T, T), B, B)
    assert share.eq(1).all()


def test_wrong_sweeps(model):
    with pytest.raises(InputError, match=r"sweeps names \['best'\]; known selectors are nearest, reversed"):
        comparison.compare_coverage(settings_of(sweeps={"best": [1.0]}), FAMILIES, ON_CPU)
    with pytest.raises(InputError, match="leave it out"):
        comparison.compare_coverage(settings_of(sweeps={"oracle": [1.0]}), FAMILIES, ON_CPU)


def test_baselines_read_more_with_a_larger_threshold():
    g = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, heads, 512, D, generator=g) for heads in (H, HK))
    values = {
        "mean_pooling": (0.3, 0.9), "xattention": (0.3, 0.9), "flexprefill": (0.3, 0.9), "vertical_slash": (64, 300),
        "streaming_llm": (64, 256),
    }  # fmt: skip
    families = baseline_families(32)
    assert set(values) == set(families)
    for name, (less, more) in values.items():
        smaller, larger = (families[name](value).select(q, k) for value in (less, more))
        assert selection_density(smaller).sum() < selection_density(larger).sum(), name
        larger.check_contents()
