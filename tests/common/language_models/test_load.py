"""Loading models from folders, and random ones; no download."""

import json

import pytest
import torch

from common.errors import DataError, InputError, MissingHardwareError
from common.language_models import load_language_model, negative_log_likelihoods, random_llama


@pytest.fixture
def folder(tmp_path, tokenizer):
    model = random_llama("tiny", seed=0, dtype=torch.float32, device="cpu", layers=1)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def load(folder, **changes):
    return load_language_model(str(folder), **({"dtype": torch.float32, "device": "cpu"} | changes))


TOKENS = torch.arange(40)[None]


def test_folder(folder, tokenizer):
    loaded = load(folder)
    saved = random_llama("tiny", seed=0, dtype=torch.float32, device="cpu", layers=1)
    assert torch.equal(negative_log_likelihoods(loaded.model, TOKENS), negative_log_likelihoods(saved, TOKENS))
    assert not loaded.model.training
    assert loaded.tokenizer("Hi")["input_ids"] == tokenizer("Hi")["input_ids"]
    assert loaded.name == str(folder)


def test_sha256_follows_the_weights(folder):
    first = load(folder).sha256
    assert first == load(folder, dtype=torch.bfloat16).sha256
    random_llama("tiny", seed=1, dtype=torch.float32, device="cpu", layers=1).save_pretrained(folder)
    assert load(folder).sha256 != first


def test_dtype_and_attention(folder):
    loaded = load(folder, dtype=torch.bfloat16, attn_implementation="eager")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.model.config._attn_implementation == "eager"


def test_rope_theta(folder):
    loaded = load(folder, rope_theta=250_000.0)
    assert loaded.model.config.rope_parameters == {"rope_type": "default", "rope_theta": 250_000.0}
    # Su et al. 2021, RoFormer, Section 3.2.2: theta_i = base^(-2i / d).
    expected = 250_000.0 ** (-torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    torch.testing.assert_close(loaded.model.model.rotary_emb.inv_freq.double(), expected, rtol=1e-6, atol=0)
    assert not torch.equal(negative_log_likelihoods(loaded.model, TOKENS), negative_log_likelihoods(load(folder).model, TOKENS))


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"dtype": torch.int8}, InputError, "int8"),
        ({"rope_theta": 0.0}, InputError, "rope_theta"),
        ({"attn_implementation": "flesh"}, InputError, "flesh"),
        ({"device": "cuda:99"}, MissingHardwareError, "cuda:99"),
    ],
)
def test_bad_arguments(folder, change, error, word):
    with pytest.raises(error, match=word):
        load(folder, **change)


def test_no_safetensors(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="safetensors"):
        load(folder)


def test_corrupt_weights(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(DataError, match="cannot be loaded"):
        load(folder)


def test_missing_weights_are_not_made_up(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(DataError, match=r"lacks weights .*layers\.1.* 9 in all"):
        load(folder)


def test_weights_of_another_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    with pytest.raises(DataError, match="model in"):
        load(folder)


def test_missing_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(DataError, match="cannot be loaded"):
        load(folder)


def test_code_of_a_model_is_never_run(folder):
    config = json.loads((folder / "config.json").read_text())
    mark = folder / "ran"
    (folder / "configuration_x.py").write_text(f"open({str(mark)!r}, 'w')\n")
    config |= {"model_type": "x", "auto_map": {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "configuration_x.X"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="cannot be loaded"):
        load(folder)
    assert not mark.exists()


def test_neither_folder_nor_hub_id():
    with pytest.raises(DataError, match=r"neither a folder.*Bring it"):
        load_language_model("/no/such/folder", dtype=torch.float32, device="cpu")


def test_hub_offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"meta-llama/Llama-3\.1-8B.*Bring it"):
        load_language_model("meta-llama/Llama-3.1-8B", dtype=torch.float32, device="cpu")


def test_llama_3_1_8b_has_its_parameters():
    """8,030,261,248: the parameters of the published weights. On the meta device, where they take no memory."""
    model = random_llama(seed=0, dtype=torch.bfloat16, device="meta")
    assert model.num_parameters() == 8_030_261_248
    assert model.config.num_key_value_heads == 8
    assert model.config.head_dim == 128


def test_random_weights():
    state = torch.get_rng_state()
    one, same, other = (random_llama("tiny", seed=seed, dtype=torch.float32, device="cpu") for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert one.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_rotary_frequencies_stay_in_float32():
    model = random_llama("tiny", seed=0, dtype=torch.bfloat16, device="cpu")
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("change", "word"),
    [({"shape": "llama-4"}, "llama-3.1-8b, tiny"), ({"layers": 0}, "layers = 0"), ({"attn_implementation": "x"}, "'x'")],
)
def test_random_llama_bad_arguments(change, word):
    with pytest.raises(InputError, match=word):
        random_llama(**({"shape": "tiny", "seed": 0, "dtype": torch.float32, "device": "cpu"} | change))


@pytest.mark.gpu
def test_random_llama_on_a_gpu():
    model = random_llama(seed=0, dtype=torch.bfloat16, device="cuda", layers=2)
    assert next(model.parameters()).device.type == "cuda"
    assert torch.isfinite(negative_log_likelihoods(model, torch.arange(256)[None])).all()
