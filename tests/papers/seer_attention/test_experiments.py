"""The experiments on tiny inputs: what is measured is what the names say."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from common.errors import InputError
from common.experiment import Context, Measurement
from common.records import RecordSet, results_digest, write_artifacts, write_record
from common.sparse_attention import Selection
from common.sparse_attention.transformers_attention import recording
from papers.seer_attention import ablations, distillation, ground_truth, kernel_time, selection_time
from papers.seer_attention.gates import GATES, ablation_families, gated, seer_families, tensor_name, trained_gates
from papers.seer_attention.training import GateSettings, make_gate
from tests.example_records import make_record

ON_CPU = Context(device="cpu", label="test")
SHAPE = {"heads": 4, "key_heads": 2, "head_dim": 64, "dtype": "float32"}
KINDS = {
    "first": {"queries": ["mean"], "keys": ["max", "min", "mean"], "seeds": 2},
    "second": {"queries": ["max"], "keys": ["min"]},
}


def mask_of(selector, q, k):
    """The blocks that a selector of blocks selects."""
    selection = selector.select(q, k)
    assert isinstance(selection, Selection)
    return selection.mask


def rows_of(measurement, metric):
    return [row for row in measurement.rows if row.metric == metric]


@pytest.fixture
def after_distillation(tmp_path, model):
    """The context of an experiment after a distillation whose gates are the untrained ones plus 1; and these gates."""
    gates = {}
    for name, kind in KINDS.items():
        settings = GateSettings.model_validate(kind)
        for seed in range(settings.seeds):
            gates[name, seed] = make_gate(settings, model.config, block_size=16, seed=seed)
            gates[name, seed].W_k.data += 1
    tensors = {
        tensor_name(name, seed, parameter): weight
        for (name, seed), gate in gates.items()
        for parameter, weight in gate.state_dict().items()
    }
    folder = tmp_path / "distillation" / "training=long"
    training = {"length": 64, "batch_size": 1, "gates": KINDS}
    record = make_record(
        [], paper="seer_attention", experiment="distillation", cell="training=long", axes={"training": "long"},
        parameters={"block_size": 16, "trainings": {"long": training}}, artifacts=write_artifacts(folder, {GATES: tensors}),
    )  # fmt: skip
    record = record.model_copy(update={"results_sha256": results_digest([], {}, record.artifacts)})
    write_record(folder, record, {})
    earlier = {"distillation": RecordSet(tmp_path, "distillation")}
    return Context(device="cpu", label="test", earlier=earlier), gates


def test_trained_gates_are_those_of_the_artifact(after_distillation, model):
    context, expected = after_distillation
    found = trained_gates(context, model, "long", 16)
    assert found.keys() == expected.keys()
    for place, gate in expected.items():
        assert found[place].query_poolings == gate.query_poolings
        assert found[place].key_poolings == gate.key_poolings
        assert torch.equal(found[place].W_k, gate.W_k)
        assert not found[place].W_k.requires_grad


def test_gates_that_do_not_fit_are_refused(after_distillation, model):
    context, _ = after_distillation
    with pytest.raises(InputError, match="training is 'short'; distillation has: long"):
        trained_gates(context, model, "short", 16)
    with pytest.raises(InputError, match="block_size is 32, and the gates were trained for 16"):
        trained_gates(context, model, "long", 32)
    model.config.num_key_value_heads, model.config.num_attention_heads = 4, 8
    with pytest.raises(InputError, match="do not fit LlamaForCausalLM"):
        trained_gates(context, model, "long", 16)


def test_families_select_with_the_gates_of_their_names(after_distillation, model, tokens):
    context, gates = after_distillation
    masks = {}
    with seer_families(context, model, "long", 16) as ours, ablation_families(context, model, "long", 16) as ablated:
        families = {**ours, **ablated}
        assert set(ours) == {"seer_attention", "seer_attention_seed_1", "seer_attention_threshold", "untrained_gate"}
        assert set(ablated) == {"first", "second"}

        def keep(layer, q, k, v):
            for name, family in families.items():
                masks[name, layer] = mask_of(family(0.05 if "threshold" in name else 0.3), q, k)

        with recording(model, keep), torch.no_grad():
            model.base_model(tokens[:1], use_cache=False)
    with gated(model) as made:
        expected = {}
        selectors = {place: made.by_density(gate)(0.3) for place, gate in gates.items()}

        def keep_expected(layer, q, k, v):
            for place, selector in selectors.items():
                expected[place, layer] = mask_of(selector, q, k)

        with recording(model, keep_expected), torch.no_grad():
            model.base_model(tokens[:1], use_cache=False)
    names = {
        "seer_attention": ("first", 0),
        "seer_attention_seed_1": ("first", 1),
        "first": ("first", 0),
        "second": ("second", 0),
    }
    for name, place in names.items():
        for layer in range(2):
            assert torch.equal(masks[name, layer], expected[place, layer])
    assert any(not torch.equal(masks["untrained_gate", layer], masks["first", layer]) for layer in range(2))


def test_the_ground_truth_is_exact_on_the_cpu():
    settings = ground_truth.Settings.model_validate(
        {**SHAPE, "length": 96, "block_size": 16, "exact_lengths": [50, 64], "exact_heads": 2, "dense": ["math"], "seed": 0,
         "repeat_milliseconds": 1}
    )  # fmt: skip
    measurement = ground_truth.run(settings, ON_CPU)
    errors = rows_of(measurement, "absolute_error")
    assert [row.setting["tokens"] for row in errors] == [50, 64]
    assert all(row.value <= 1e-5 for row in errors)
    times = {row.method: row.value for row in rows_of(measurement, "time")}
    assert rows_of(measurement, "time_ratio")[0].value == pytest.approx(times["attention_block_max"] / times["math"])


def test_naive_block_maxima_by_hand():
    """Two tokens a block: equal logits give 1, 1/2, 1/3 and 1/4 a row."""
    q = k = torch.zeros(1, 1, 4, 2)
    maxima = ground_truth.naive_block_maxima(q, k, 2)[0, 0]
    torch.testing.assert_close(maxima, torch.tensor([[1.0, 0.0], [1 / 3, 1 / 3]]).double())


def test_kernel_times_give_their_speed_up():
    settings = kernel_time.Settings.model_validate(
        {**SHAPE, "length": 128, "block_sizes": [16, 32], "sparsities": [0.5], "dense": ["math"], "seed": 0,
         "repeat_milliseconds": 1}
    )  # fmt: skip
    measurement = kernel_time.run(settings, ON_CPU)
    times = {(row.method, row.setting.get("block_size")): row.value for row in rows_of(measurement, "time")}
    for row in rows_of(measurement, "speed_up"):
        expected = times["math", None] / times["block_sparse_attention", row.setting["block_size"]]
        assert row.value == pytest.approx(expected)
    assert {row.setting["block_size"]: row.value for row in rows_of(measurement, "density")} == {
        16: pytest.approx((1 + 1 + 2 + 2 + 3 + 3 + 4 + 4) / 36), 32: pytest.approx((1 + 1 + 2 + 2) / 10)
    }  # fmt: skip


def test_the_untrained_gate_selects_the_density_that_it_is_told():
    settings = selection_time.Settings.model_validate(
        {**SHAPE, "length": 1024, "seed": 0, "topic_logits": [1.0, 4.0], "locality_logit": 3.0, "structure": {1024: 0.3},
         "block_size": 16, "thresholds": {"seer_attention": 0.4}, "dense": ["math"], "repeat_milliseconds": 1,
         "rotary_of": "tiny"}
    )  # fmt: skip
    family = selection_time.untrained_family(settings, "cpu")
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 4, 1024, 64, generator=g), torch.randn(1, 2, 1024, 64, generator=g)
    mask = mask_of(family(0.4), q, k)
    T = 64
    share = mask.sum((-1, -2)) / (T * (T + 1) / 2)
    assert mask.shape == (1, 4, T, T)
    # Two dense rows of 64 and the diagonal come on top of the density.
    assert ((share > 0.38) & (share < 0.4 + 3 * T / (T * (T + 1) / 2))).all()


def test_the_rank_of_a_pooling():
    measurement = Measurement()
    for window, values in enumerate(({"a": 0.5, "b": 0.7, "c": 0.6}, {"a": 0.8, "b": 0.7, "c": 0.8})):
        for method, value in {**values, "other": 0.9}.items():
            measurement.add("coverage_at_density", value, method=method, density=0.2, window=window)
    ablations.add_rank(measurement, ["a", "b", "c"], "a")
    ranks = rows_of(measurement, "pooling_rank")
    assert [(row.setting["window"], row.value) for row in ranks] == [(0, 3.0), (1, 2.0)]  # a tie counts against it
    assert all(row.setting["of"] == 3 and row.setting["density"] == 0.2 for row in ranks)
    with pytest.raises(InputError, match="best_pooling is 'd'; choose one of poolings: a, b"):
        ablations.add_rank(measurement, ["a", "b"], "d")


def test_training_windows_are_joined_by_the_end_of_text_token(monkeypatch):
    class Tokenizer:
        eos_token_id = 9

        def __call__(self, contents, **_):
            return {"input_ids": [[int(letter) for letter in content] for content in contents]}

    texts = {"one": "123", "two": "45"}
    monkeypatch.setattr(distillation, "load_text", lambda name, unwrap: SimpleNamespace(text=texts[name]))
    windows = distillation.training_windows(cast(Any, Tokenizer()), ["one", "two"], 3)
    np.testing.assert_array_equal(windows.numpy(), [[1, 2, 3], [9, 4, 5]])
    with pytest.raises(InputError, match="texts have 7 tokens together, and a window 8"):
        distillation.training_windows(cast(Any, Tokenizer()), ["one", "two"], 8)
