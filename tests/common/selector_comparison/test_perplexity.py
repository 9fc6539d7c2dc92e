"""Perplexity under selectors: losses of a tiny model, equal to dense where everything is read."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from common.errors import InputError
from common.selector_comparison import perplexity as comparison
from common.selector_comparison import sparse_prefill
from common.sparse_attention import Dense

N = 96


@pytest.fixture(autouse=True)
def texts(monkeypatch, subject):
    windows = torch.randint(256, (2, N), generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(comparison, "load_subject", lambda *_: subject)
    monkeypatch.setattr(comparison, "token_windows", lambda *_: windows)
    return windows


def settings_of(subject_settings, **changes):
    values = {
        "text": "none", "length": N, "windows": 2, "block_size": 16, "densities": [0.5, 0.9],
        "sweeps": {"nearest": [1.0, 3.0, 6.0], "strided": [0.0], "oracle": [0.5, 1.0]},
    }  # fmt: skip
    return comparison.PerplexitySettings.model_validate({**subject_settings, **values, **changes})


def test_losses_are_those_of_the_model(subject, texts, subject_settings, families, on_cpu, rows_of):
    measurement = comparison.compare_perplexity(settings_of(subject_settings), families, on_cpu)
    with torch.no_grad():
        expected = [float(cross_entropy(subject.model(w[None]).logits[0, :-1], w[1:])) for w in texts]
    losses = "negative_log_likelihood"
    assert [row.value for row in rows_of(measurement, losses, "dense")] == pytest.approx(expected, rel=1e-5)
    for method, threshold in (("nearest", 6.0), ("oracle", 1.0)):  # everything is read
        found = [row.value for row in rows_of(measurement, losses, method) if row.setting["threshold"] == threshold]
        assert found == pytest.approx(expected, rel=1e-4)
    some = [row.value for row in rows_of(measurement, losses, "nearest") if row.setting["threshold"] == 1.0]
    assert all(abs(a - b) > 1e-3 for a, b in zip(some, expected, strict=True))
    assert len(rows_of(measurement, losses, "strided")) == 2
    assert subject.model.config._attn_implementation == "sdpa"


def test_densities_and_losses_between_them(subject_settings, families, on_cpu, rows_of):
    measurement = comparison.compare_perplexity(settings_of(subject_settings), families, on_cpu)
    shares = {row.setting["threshold"]: row.value for row in rows_of(measurement, "density", "nearest")}
    assert shares == pytest.approx({1.0: 6 / 21, 3.0: 15 / 21, 6.0: 1.0})
    assert rows_of(measurement, "density", "strided")[0].value == pytest.approx((N / 2) * (N / 2 + 1) / (N * (N + 1) / 2))
    at = {
        (row.setting["window"], row.setting["density"]): row.value
        for row in rows_of(measurement, "negative_log_likelihood_at_density", "nearest")
    }
    losses = [
        row.value for row in rows_of(measurement, "negative_log_likelihood", "nearest") if row.setting["window"] == 0
    ]  # fmt: skip
    share = (0.5 - 6 / 21) / (9 / 21)
    assert at[0, 0.5] == pytest.approx(losses[0] + share * (losses[1] - losses[0]))
    assert set(at) == {(window, density) for window in (0, 1) for density in (0.5, 0.9)}
    assert not rows_of(measurement, "negative_log_likelihood_at_density", "strided")  # one point, of another density


def test_an_unknown_selector(subject_settings, families, on_cpu):
    with pytest.raises(InputError, match=r"sweeps names \['best'\]; known selectors are nearest, strided, oracle"):
        comparison.compare_perplexity(settings_of(subject_settings, sweeps={"best": [1.0]}), families, on_cpu)


def test_attention_is_as_before_after_an_error(subject):
    with pytest.raises(RuntimeError, match="inside"), sparse_prefill(subject.model, Dense(16)):
        raise RuntimeError("inside")
    assert subject.model.config._attn_implementation == "sdpa"
