"""The experiments on tiny settings: what is trained, timed and measured is what the configuration says."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from common.checkpoints import Checkpoints
from common.configuration import cells_of, read_paper_config
from common.errors import ConfigError, InputError
from common.experiment import Context
from common.provenance import REPOSITORY
from common.training import Batches, train
from papers.lightning_attention import (
    ablations,
    decode,
    exactness,
    kernel_time,
    language_model,
    language_modelling,
    train_on_gpus,
    training_speed,
)
from papers.lightning_attention.language_modelling import (
    adjacent_windows,
    make_model,
    matrix_peak,
    mean_losses,
    operations_per_token,
    replica_of,
    spread_windows,
    training_windows,
    validation_of,
)
from papers.lightning_attention.transnormer_llm import Shape, TransNormerLLM

ON_CPU = Context(device="cpu", label="test")
SHAPE: dict[str, Any] = {"vocabulary": 256, "width": 8, "layers": 2, "heads": 2, "glu_width": 12}
LLAMA: dict[str, Any] = {"vocabulary": 256, "width": 8, "layers": 2, "heads": 2, "mlp_width": 16}
RECIPE: dict[str, Any] = {"optimiser": "adamw", "learning_rate": 0.01, "batch_size": 4, "clip_norm": 1.0, "weight_decay": 0.1}
LEARNING: dict[str, Any] = {
    "transnormer_llm": SHAPE, "llama": LLAMA, "recipe": RECIPE, "steps": 6, "length": 16, "compile": False, "curve_rows": 3,
    "training_texts": ["a", "b"], "validation_text": "c", "validation_windows": 2, "test_texts": ["c", "d"], "spans": 2,
    "span_length": 32,
}  # fmt: skip


@pytest.fixture(autouse=True)
def texts(monkeypatch):
    """Four short texts, so that no data are needed."""

    def bytes_of(name):
        generator = torch.Generator().manual_seed(ord(name))
        return torch.randint(97, 123, (300,), generator=generator, dtype=torch.uint8)

    monkeypatch.setattr(language_modelling, "bytes_of", bytes_of)


def rows_of(measurement, metric):
    return [row for row in measurement.rows if row.metric == metric]


def values(measurement):
    return [(row.metric, row.method, row.setting, row.value) for row in measurement.rows if not row.timing]


def learning(module, **changes):
    return module.Settings.model_validate({**LEARNING, **changes})


def language_model_settings(model="transnormer_llm", **changes):
    return learning(language_model, model=model, seed=0, test_lengths=[16, 32], peak_teraflops={}, **changes)


def test_the_reference_is_exact_in_float32():
    settings = exactness.Settings(
        dtype="float32", lengths=[1, 70], sizes=[(4, 4), (8, 4)], slopes=[0.0, 0.5, 8.0], deviation=0.2, batch=2, seed=0
    )
    errors = rows_of(exactness.run(settings, ON_CPU), "relative_error")
    assert {row.setting["tensor"] for row in errors} == {"o", "dq", "dk", "dv"}
    assert len(errors) == 2 * 2 * 4
    assert all(0 <= row.value <= 1e-5 for row in errors)


def test_kernel_times_and_what_follows_from_them():
    problem = {"lengths": [32, 64], "heads": 2, "head_dim": 8, "longest_softmax": {"forward": 64, "forward_backward": 32}}
    settings = kernel_time.Settings.model_validate(
        {
            "problem": "a", "problems": {"a": {**problem, "tokens": 64}, "b": {**problem, "batch": 3}}, "dtype": "float32",
            "softmax": ["math"], "repeat_milliseconds": 1, "seed": 0,
        }
    )  # fmt: skip
    measurement = kernel_time.run(settings, ON_CPU)
    times = {(row.method, row.setting["pass"], row.setting["length"]): row.value for row in rows_of(measurement, "time")}
    assert set(times) == {
        *(("lightning_attention", which, length) for which in ("forward", "forward_backward") for length in (32, 64)),
        ("math", "forward", 32), ("math", "forward", 64), ("math", "forward_backward", 32),
    }  # fmt: skip
    assert {(row.setting["length"], row.setting["batch"]) for row in rows_of(measurement, "time")} == {(32, 2), (64, 1)}
    for row in rows_of(measurement, "time_per_token"):
        assert row.value == pytest.approx(1e6 * times[row.method, row.setting["pass"], row.setting["length"]] / 64)
    for row in rows_of(measurement, "speed_up"):
        place = row.setting["pass"], row.setting["length"]
        assert row.value == pytest.approx(times["math", *place] / times["lightning_attention", *place])
    for row in rows_of(measurement, "backward_time"):
        both, forward = (times[row.method, which, row.setting["length"]] for which in ("forward_backward", "forward"))
        assert row.value == pytest.approx(both - forward)
    assert [row.value for row in rows_of(measurement, "installed")] == [0]  # no CUDA device, no peer
    assert settings.problems["b"].sequences(1000) == 3
    assert settings.problems["a"].sequences(128) == 1


@pytest.mark.parametrize(
    ("faster", "expected"),
    [([False, True, True], 2), ([True, True, True], 1), ([True, False, True], 4), ([True, True, False], None), ([], None)],
)
def test_a_crossover_is_never_lost_again(faster, expected):
    assert kernel_time.crossover([1, 2, 4][: len(faster)], faster) == expected


def test_calls_give_outputs_and_gradients():
    inputs = [torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    slopes = torch.tensor([0.1, 0.5])
    forward = kernel_time.call_of(kernel_time.ours(slopes), inputs, "forward")()
    both = kernel_time.call_of(kernel_time.ours(slopes), inputs, "forward_backward")()
    assert len(forward) == 1
    assert len(both) == 4
    assert torch.equal(forward[0], both[0])
    assert not forward[0].requires_grad
    leaf = inputs[1].double().requires_grad_()
    o = kernel_time.ours(slopes)(inputs[0].double(), leaf, inputs[2].double())
    torch.testing.assert_close(both[2].double(), torch.autograd.grad(o, leaf, inputs[3].double())[0], rtol=1e-4, atol=1e-5)


def test_decoding_keeps_a_state_or_a_cache():
    settings = decode.Settings(
        lengths=[8, 32], batch=2, heads=2, head_dim=4, dtype="float32", softmax=["math"], compile=False,
        repeat_milliseconds=1, seed=0,
    )  # fmt: skip
    measurement = decode.run(settings, ON_CPU)
    kept = {(row.method, row.setting["length"]): row.value for row in rows_of(measurement, "kept_bytes")}
    state = 2 * 2 * 4 * 4 * 4
    assert kept == {
        ("lightning_attention", 8): state, ("lightning_attention", 32): state,
        ("math", 8): 2 * 2 * 2 * 8 * 4 * 4, ("math", 32): 2 * 2 * 2 * 32 * 4 * 4,
    }  # fmt: skip
    assert len(rows_of(measurement, "decode_time")) == 4


def test_decoding_steps_are_those_of_their_attentions():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 1, 4, generator=generator) for _ in range(3))
    slopes = torch.tensor([0.0, 0.5])
    step = decode.LinearStep(q, k, v, slopes, compiled=False)
    for count in (1, 2, 3):  # the same token again: the state is k v^T times a geometric sum
        weights = torch.stack([torch.exp(-slopes * age) for age in range(count)]).sum(0)
        expected = weights[None, :, None, None] * (q * k).sum(-1, keepdim=True) * v
        torch.testing.assert_close(step(), expected)
    dense = decode.SoftmaxStep(q, k, v, 6, "math", generator)
    o = dense()
    scores = (q @ dense.keys.mT / 2).softmax(-1)
    torch.testing.assert_close(o, scores @ dense.values)
    assert torch.equal(dense.keys[:, :, -1:], k)
    assert torch.equal(dense.values[:, :, -1:], v)


def test_training_speed_of_both_models():
    settings = training_speed.Settings.model_validate(
        {
            "lengths": [8, 16], "tokens": 16, "transnormer_llm": SHAPE, "llama": LLAMA, "recipe": RECIPE, "compile": False,
            "peak_teraflops": {}, "repeat_milliseconds": 1, "seed": 0,
        }
    )  # fmt: skip
    measurement = training_speed.run(settings, ON_CPU)
    for method in ("transnormer_llm", "llama"):
        rates = [row.value for row in rows_of(measurement, "tokens_per_second") if row.method == method]
        spread = next(row.value for row in rows_of(measurement, "speed_range") if row.method == method)
        assert len(rates) == 2
        assert spread == pytest.approx(100 * (max(rates) - min(rates)) / max(rates))


def test_a_timed_step_changes_the_parameters():
    settings = language_model_settings()
    network = make_model("llama", settings, seed=0)
    before = network.head.weight.clone()
    windows = torch.randint(256, (2, 9), generator=torch.Generator().manual_seed(0))
    training_speed.training_step(network, settings.recipe, windows)()
    assert not torch.equal(before, network.head.weight)


@pytest.mark.parametrize("model", ["transnormer_llm", "llama"])
def test_a_language_model_learns_and_is_tested(model):
    settings = language_model_settings(model)
    measurement = language_model.run(settings, ON_CPU)
    assert {row.method for row in measurement.rows} == {model}
    curve = rows_of(measurement, "training_loss")
    assert [row.setting["tokens"] for row in curve] == [128, 256, 384]
    assert curve[-1].value < curve[0].value
    items = rows_of(measurement, "negative_log_likelihood")
    places = {(row.setting["text"], row.setting["span"], row.setting["length"]) for row in items}
    assert places == {(text, span, length) for text in "cd" for span in (0, 1) for length in (16, 32)}
    for row in rows_of(measurement, "perplexity"):
        found = [item.value for item in items if item.setting["length"] == row.setting["length"]]
        assert row.value == pytest.approx(math.exp(sum(found) / 4))
    order = measurement.arrays["order_0"]
    windows = training_windows(settings, "cpu")
    assert order.shape == (6, 4)
    assert order.tolist() == [Batches({16: (windows,)}, 4, 0).draw()[1].tolist(), *order[1:].tolist()]
    trained = make_model(model, settings, seed=5)
    trained.load_state_dict(measurement.artifacts["weights"])
    span = spread_windows(language_modelling.bytes_of("d"), 32, 2)[1].long()
    logits = torch.cat([trained(span[None, :16])[0], trained(span[None, 16:32])[0]])
    expected = next(r.value for r in items if (r.setting["text"], r.setting["span"], r.setting["length"]) == ("d", 1, 16))
    assert expected == pytest.approx(cross_entropy(logits, span[1:]).item(), rel=1e-5)
    assert values(language_model.run(settings, ON_CPU)) == values(measurement)


def test_a_stopped_language_model_goes_on_to_the_same_numbers(tmp_path):
    settings = language_model_settings()
    windows = training_windows(settings, "cpu")
    expected = language_model.run(settings, ON_CPU)

    class StoppedError(Exception):
        pass

    def stop(replica):
        if replica.step == 4:
            raise StoppedError
        return validation_of(settings, "cpu")(replica)

    stopped = replica_of("seed 0", make_model("transnormer_llm", settings, seed=0), settings, windows, steps=6, order_seed=0)
    checkpoints = Checkpoints(tmp_path, "key")
    with pytest.raises(StoppedError):
        train([stopped], evaluate=stop, checkpoints=checkpoints, save_seconds=0)
    resumed = language_model.run(settings, Context(device="cpu", label="test", checkpoints=checkpoints))
    assert values(resumed) == values(expected)
    weights = expected.artifacts["weights"]
    assert all(torch.equal(weights[name], tensor) for name, tensor in resumed.artifacts["weights"].items())


def test_ablations_train_every_seed_of_a_variant():
    variants = {"mix": {}, "no_gate": {"changes": {"gate": False}, "steps": 4}, "llama": {"model": "llama"}}
    found = {}
    for variant in variants:
        settings = learning(ablations, variant=variant, variants=variants, seeds=2)
        measurement = ablations.run(settings, ON_CPU)
        losses = rows_of(measurement, "test_loss")
        assert [row.setting["seed"] for row in losses] == [0, 1]
        assert losses[0].value != losses[1].value
        assert rows_of(measurement, "training_loss")[-1].setting["tokens"] == 64 * (4 if variant == "no_gate" else 6)
        found[variant] = {row.metric: row.value for row in measurement.rows}["parameters"]
    assert found["mix"] - found["no_gate"] == 2 * 8 * 8
    with pytest.raises(ConfigError, match="variant = 'gate' is not among variants: mix, no_gate, llama"):
        ablations.run(learning(ablations, variant="gate", variants=variants, seeds=1), ON_CPU)


def test_windows_predict_every_byte_once():
    tokens = torch.arange(23, dtype=torch.uint8)
    assert adjacent_windows(tokens, 5).tolist() == [[start + n for n in range(6)] for start in (0, 5, 10, 15)]
    assert spread_windows(tokens, 5, 3).tolist() == [[start + n for n in range(6)] for start in (0, 8, 16)]
    assert spread_windows(tokens, 22, 1).tolist() == [list(range(23))]
    assert spread_windows(tokens, 11, 2)[:, 0].tolist() == [0, 11]


def test_losses_at_a_longer_window_use_more_context():
    settings = language_model_settings()
    network = make_model("llama", settings, seed=0)
    spans = spread_windows(language_modelling.bytes_of("c"), 32, 2)
    whole = mean_losses(network, spans, 32, settings)
    logits = network(spans[:, :-1].long())
    expected = cross_entropy(logits.transpose(1, 2), spans[:, 1:].long(), reduction="none").mean(1)
    torch.testing.assert_close(whole, expected.double(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(mean_losses(network, spans, 8, settings), whole, rtol=1e-9)


def test_operations_are_those_that_torch_counts():
    settings = language_model_settings()
    length = 64
    tokens = torch.zeros(1, length, dtype=torch.int64)
    for model in ("llama", "transnormer_llm"):
        network = make_model(model, settings, seed=0)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            network(tokens)
        counted = counter.get_total_flops() / length
        # The quadratic forms compute all scores; the causal half of them, or the states, are what the definition asks for.
        if model == "llama":
            scores_and_values_of_layers = 2 * (2 * 2 * length * 8)
            rotary_angles = 2 * 2  # which transformers makes by a product
            counted -= scores_and_values_of_layers / 2 + rotary_angles
        else:
            state_of_layers = 2 * 2 * 8 * 4 * (2 + 1)
            scores_of_layers = 2 * length * (16 + 8) + 2 * length * (8 + 8)
            final_states = 2 * 8 * 4 * (2 + 1)  # which the reference forms, asked for or not
            counted += state_of_layers - scores_of_layers - final_states
        assert operations_per_token(network, length) == pytest.approx(3 * counted)


def test_the_twins_of_the_configuration_are_of_one_size():
    config = read_paper_config(REPOSITORY / "papers/lightning_attention/config.yaml")
    for name, module in (("language_model", language_model), ("ablations", ablations)):
        for scale in ("standard", "paper"):
            cell = cells_of(config, name, scale)[0]
            settings = module.Settings.model_validate({**cell.axes, **cell.parameters})
            sizes = []
            for model in ("transnormer_llm", "llama"):
                with torch.device("meta"):
                    network = make_model(model, settings, seed=0)
                sizes.append(sum(parameter.numel() for parameter in network.parameters()))
            assert 1 <= sizes[1] / sizes[0] <= 1.02


def test_training_on_several_gpus_is_the_experiments_training(tmp_path, monkeypatch):
    for name, value in {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }.items():
        monkeypatch.setenv(name, value)
    settings = language_model_settings()
    train_on_gpus.train_together(settings, "key", "cpu", tmp_path)
    expected = language_model.run(settings, ON_CPU)
    weights = load_file(tmp_path / "transnormer_llm.safetensors")
    assert weights.keys() == expected.artifacts["weights"].keys()
    assert all(torch.equal(tensor, expected.artifacts["weights"][name]) for name, tensor in weights.items())
    curve = json.loads((tmp_path / "transnormer_llm.json").read_text())
    assert [row["loss"] for row in curve] == [row.value for row in rows_of(expected, "training_loss")]


def test_bad_input():
    settings = language_model_settings()
    network = make_model("llama", settings, seed=0)
    tokens = torch.zeros(10, dtype=torch.uint8)
    problem = {"heads": 1, "head_dim": 4, "longest_softmax": {"forward": 1, "forward_backward": 1}}
    times = {"problem": "a", "dtype": "float32", "softmax": [], "repeat_milliseconds": 1, "seed": 0}
    descending = {**times, "problems": {"a": {**problem, "lengths": [4, 2], "tokens": 4}}}
    twice = kernel_time.Problem.model_validate({**problem, "lengths": [2], "tokens": 4, "batch": 2})
    for call, message in [
        (lambda: adjacent_windows(tokens, 10), "The text has 10 bytes, and a window takes 11"),
        (lambda: spread_windows(tokens, 5, 2), "2 windows of 5 bytes do not fit a text of 10"),
        (lambda: mean_losses(network, tokens[None, :9], 3, settings), "length = 3 does not divide the 8 bytes"),
        (lambda: kernel_time.run(kernel_time.Settings.model_validate(descending), ON_CPU), r"lengths = \[4, 2\] of a"),
        (lambda: twice.sequences(2), "tokens = 4, batch = 2: a problem has one of them"),
        (lambda: train_on_gpus.train_together(settings, "key", "cpu", REPOSITORY), "LOCAL_RANK is not set"),
    ]:
        with pytest.raises(InputError, match=message):
            call()
    assert matrix_peak("cpu", {"NVIDIA": 1.0}) is None


ON_GPU: dict[str, dict[str, Any]] = {
    "transnormer_llm": {"transnormer_llm": {**SHAPE, "width": 128, "glu_width": 192}},
    "llama": {"llama": {**LLAMA, "width": 128, "mlp_width": 192}},
}


@pytest.mark.gpu
@pytest.mark.parametrize("model", ON_GPU)
def test_kernels_and_compilation_train_as_the_reference_does_on_gpu(model):
    def losses(compiled, precision, change=0.0):
        recipe = {**RECIPE, "precision": precision}
        settings = language_model_settings(model, compile=compiled, recipe=recipe, steps=30, curve_rows=30, **ON_GPU[model])
        changes = {} if compiled or model == "llama" else {"attention": "reference"}
        network = make_model(model, settings, seed=0, changes=changes)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1 + change)
        replica = replica_of("a", network, settings, training_windows(settings, "cuda"), steps=30, order_seed=0)
        curve = train([replica], evaluate=validation_of(settings, "cuda"))["a"]
        return np.array([row[name] for row in curve for name in ("loss", "validation_loss")])

    plain = losses(False, "float32")
    # Trainings drift apart, the further the later: the yardstick is how far a change in the sixth digit of all weights leads.
    drift = np.abs(losses(False, "float32", change=1e-6) - plain).max()
    compiled = np.abs(losses(True, "float32") - plain)
    assert (compiled[:20] < 1e-3 * plain[:20]).all()
    assert compiled.max() < max(1e-3 * plain.min(), 10 * drift)
    rounded = losses(True, "bfloat16")
    assert rounded[:20] == pytest.approx(plain[:20], rel=2e-2)
    assert rounded[-20:].mean() == pytest.approx(plain[-20:].mean(), rel=2e-2)
    assert plain[-1] < plain[0]


@pytest.mark.gpu
def test_decoding_is_the_prefill_on_gpu():
    network = TransNormerLLM(Shape(**ON_GPU["transnormer_llm"]["transnormer_llm"]), seed=0).cuda()
    tokens = torch.randint(256, (2, 100), generator=torch.Generator().manual_seed(0)).cuda()
    with torch.inference_mode():
        expected = network(tokens)
        logits, memory = network.read(tokens[:, :90])
        torch.testing.assert_close(logits, expected[:, :90], rtol=1e-3, atol=1e-4)
        for place in range(90, 100):
            logits, memory = network.read(tokens[:, place : place + 1], memory)
            torch.testing.assert_close(logits[:, 0], expected[:, place], rtol=1e-3, atol=1e-4)
