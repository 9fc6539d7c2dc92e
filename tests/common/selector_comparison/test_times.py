"""Times of selectors and of whole models: what is timed is what is named, and the shares follow from the times."""

import pytest
import torch

from common.errors import InputError
from common.selector_comparison import prefill_time, selection_time
from common.sparse_attention import block_attention_mass, coverage, density, structured_inputs

N = 160
INPUTS = {"heads": 4, "key_heads": 2, "head_dim": 64, "locality_logit": 1.5}


def time_settings(**changes):
    values = {
        **INPUTS, "length": N, "seed": 1, "dtype": "float32", "topic_logits": (2.0, 4.0), "locality_logit": 3.0,
        "structure": {N: 0.5}, "block_size": 16, "thresholds": {"nearest": 3.0, "strided": 0.0}, "dense": ["math"],
        "repeat_milliseconds": 1,
    }  # fmt: skip
    return selection_time.SelectionTimeSettings.model_validate({**values, **changes})


def test_selection_times(families, on_cpu, rows_of):
    measurement = selection_time.compare_selection_time(time_settings(), families, on_cpu)
    q, k, _ = structured_inputs(N, **INPUTS, topic_logits=(1.0, 2.0), seed=1)
    selection = families["nearest"](3).select(q, k)
    (share,), (covered,) = (rows_of(measurement, metric, "nearest") for metric in ("density", "coverage"))
    assert share.value == pytest.approx(density(selection.mask, 16, 16).mean().item())
    assert covered.value == pytest.approx(coverage(selection.mask, block_attention_mass(q, k, 16)).mean().item())
    (other,) = rows_of(measurement, "coverage", "strided")
    assert other.value == pytest.approx(families["strided"](0).select(q, k).coverage(q, k).mean().item())
    (dense,) = rows_of(measurement, "total_time", "math")
    for name in ("nearest", "strided"):
        time = {stage: rows_of(measurement, f"{stage}_time", name)[0].value for stage in ("selection", "attention", "total")}
        assert all(value > 0 for value in time.values())
        (share,), (gain,) = (rows_of(measurement, metric, name) for metric in ("selection_share", "speed_up"))
        assert share.setting == gain.setting == {"over": "math"}
        assert share.value == pytest.approx(100 * time["selection"] / dense.value)
        assert gain.value == pytest.approx(dense.value / time["total"])


def test_the_first_candidate_that_covers_enough_is_timed(families, on_cpu, rows_of):
    q, k, _ = structured_inputs(N, **INPUTS, topic_logits=(1.0, 2.0), seed=1)
    mass = block_attention_mass(q, k, 16)
    covered = [float(coverage(families["nearest"](n).select(q, k).mask, mass).mean()) for n in range(1, 11)]
    target = (covered[4] + covered[5]) / 2
    settings = time_settings(thresholds={"nearest": [float(n) for n in range(1, 11)]}, target_coverage=target)
    measurement = selection_time.compare_selection_time(settings, families, on_cpu)
    assert rows_of(measurement, "threshold", "nearest")[0].value == 6
    assert rows_of(measurement, "coverage", "nearest")[0].value == pytest.approx(covered[5])


def test_candidates():
    assert selection_time.first_reaching([1, 2, 3, 4], lambda value: value >= 3) == 3
    assert selection_time.first_reaching([1, 2], lambda value: True) == 1
    assert selection_time.first_reaching([1, 2], lambda value: False) == 2
    with pytest.raises(InputError, match="must not be empty"):
        selection_time.first_reaching([], lambda value: True)


def test_wrong_time_settings(families, on_cpu):
    for changes, message in (
        ({"thresholds": {"best": 1.0}}, r"thresholds names \['best'\]"),
        ({"structure": {1: 0.5}}, "structure has no factor for length 160"),
        ({"dense": ["fastest"]}, "'fastest' is not known"),
    ):
        with pytest.raises(InputError, match=message):
            selection_time.compare_selection_time(time_settings(**changes), families, on_cpu)


def prefill_settings(**changes):
    values = {
        "subject": "random", "lengths": {"random": [100, 160], "pretrained": [96]}, "pretrained": "tiny", "text": "none",
        "shape": "tiny", "layers": 1, "dtype": "float32", "block_size": 16, "thresholds": {"nearest": 2.0, "strided": 0.0},
        "densities": {100: 0.5, 160: 0.3}, "baseline": "sdpa", "repeat_milliseconds": 1, "seed": 0,
    }  # fmt: skip
    return prefill_time.PrefillSettings.model_validate({**values, **changes})


def test_prefill_of_random_weights_reads_the_density_asked_for(families, on_cpu, rows_of):
    measurement = prefill_time.compare_prefill(prefill_settings(), families, on_cpu)
    times = {(row.method, row.setting["length"]): row.value for row in rows_of(measurement, "prefill_time")}
    assert set(times) == {(method, length) for method in ("dense", "nearest", "strided") for length in (100, 160)}
    for row in rows_of(measurement, "prefill_speed_up"):
        length = row.setting["length"]
        assert row.value == pytest.approx(times["dense", length] / times[row.method, length])
    shares = {(row.method, row.setting["length"]): row.value for row in rows_of(measurement, "density")}
    assert shares["nearest", 160] == pytest.approx(0.3, abs=0.1)
    assert shares["nearest", 100] == pytest.approx(0.5, abs=0.1)
    assert shares["strided", 160] == pytest.approx(80 * 81 / (160 * 161 / 2))  # read as it is


def test_prefill_of_a_pretrained_model_reads_what_is_selected(monkeypatch, subject, families, on_cpu, rows_of):
    monkeypatch.setattr(prefill_time, "load_language_model", lambda *_, **__: subject)
    monkeypatch.setattr(prefill_time, "token_windows", lambda *_: torch.arange(96)[None])
    measurement = prefill_time.compare_prefill(prefill_settings(subject="pretrained"), families, on_cpu)
    assert rows_of(measurement, "density", "nearest")[0].value == pytest.approx(11 / 21)
    assert subject.model.config._attn_implementation == "sdpa"


def test_wrong_prefill_settings(families, on_cpu):
    with pytest.raises(InputError, match=r"thresholds names \['best'\]"):
        prefill_time.compare_prefill(prefill_settings(thresholds={"best": 1.0}), families, on_cpu)
    with pytest.raises(InputError, match=r"densities lacks the lengths \[160\]"):
        prefill_time.compare_prefill(prefill_settings(densities={100: 0.5}), families, on_cpu)
