"""SmolLM2-135M-Instruct: from the 4-bit GGUF file to an ordinary float32 transformers folder, once.

Source of the format: the GGUF specification (github.com/ggml-org/ggml, docs/gguf.md). The weights are exactly those of the
file, dequantised: the model is the 4-bit one, whatever the dtype it runs in.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from common.data.fetch import cache_folder, fetch, locked
from common.errors import DataError
from common.files import sha256_of, write_text

NAME = "smollm2-135m-instruct"
CONVERSION = 1
"""Raise it when the conversion changes: folders of other conversions are then left alone."""

_CONTROL_TOKEN = 3  # GGUF's token type of special tokens

# GGUF's tensor names and transformers'.
_LAYER_TENSORS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_TENSORS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def smollm2_folder() -> Path:
    """The converted model's folder (config.json, model.safetensors, tokenizer), made on first use, verified on each.

    Raises:
        DataError: the file of weights cannot be had, the `gguf` package is absent, or a converted file is corrupt.
    """
    source = fetch(NAME)
    folder = cache_folder() / "models" / f"{NAME}-{sha256_of(source)[:16]}-{CONVERSION}"
    if not folder.is_dir():
        with locked(folder):
            if not folder.is_dir():
                _convert(source, folder)
    _verify(folder)
    return folder


def _verify(folder: Path) -> None:
    try:
        digests = json.loads((folder / "sha256.json").read_text(encoding="utf-8"))
        wrong = [name for name, digest in digests.items() if sha256_of(folder / name) != digest]
    except (OSError, ValueError) as error:
        raise DataError(
            f"The converted model in {folder} is damaged ({error}). Remove the folder; it is made again."
        ) from error
    if wrong:
        raise DataError(f"{', '.join(wrong)} in {folder} is corrupt (wrong sha256). Remove the folder; it is made again.")


def _convert(source: Path, folder: Path) -> None:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise DataError(
            "SmolLM2's file is read with the package gguf, which is not installed. Run: pip install gguf"
        ) from error
    reader = GGUFReader(source)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        config = gguf_config(reader)
        config.save_pretrained(temporary)
        gguf_tokenizer(reader).save_pretrained(temporary)
        save_file(gguf_weights(reader, config), temporary / "model.safetensors", metadata={"format": "pt"})
        digests = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
        write_text(temporary / "sha256.json", json.dumps(digests, indent=2) + "\n")
        temporary.chmod(0o755)
        os.replace(temporary, folder)
    except OSError as error:
        raise DataError(
            f"Cannot write the converted model to {folder} (550 MB): {error.strerror}. Free space, or set REATTEND_CACHE."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def gguf_config(reader) -> LlamaConfig:
    """The architecture, from the metadata of a GGUF file (a `gguf.GGUFReader`) of the llama family with tied embeddings."""
    value = {name: field.contents() for name, field in reader.fields.items() if name.startswith(("llama.", "tokenizer.ggml."))}
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=value["llama.vocab_size"],
        hidden_size=value["llama.embedding_length"],
        intermediate_size=value["llama.feed_forward_length"],
        num_hidden_layers=value["llama.block_count"],
        num_attention_heads=value["llama.attention.head_count"],
        num_key_value_heads=value["llama.attention.head_count_kv"],
        max_position_embeddings=value["llama.context_length"],
        rms_norm_eps=round(value["llama.attention.layer_norm_rms_epsilon"], 12),  # 1e-5, stored as float32
        rope_parameters={"rope_type": "default", "rope_theta": value["llama.rope.freq_base"]},
        bos_token_id=value["tokenizer.ggml.bos_token_id"],
        eos_token_id=value["tokenizer.ggml.eos_token_id"],
        pad_token_id=value["tokenizer.ggml.padding_token_id"],
        tie_word_embeddings=True,
        dtype="float32",
    )


def gguf_weights(reader, config: LlamaConfig) -> dict[str, np.ndarray]:
    """The dequantised float32 weights of a GGUF file (a `gguf.GGUFReader`) under transformers' names.

    The file stores the rows of each query and key head in interleaved order (rotary pairs next to each other); transformers
    wants the first halves of all pairs, then the second halves.

    Raises:
        DataError: the file has a tensor that this architecture does not know.
    """
    from gguf.quants import dequantize

    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        block, _, rest = tensor.name.removeprefix("blk.").partition(".")
        kind = rest.removesuffix(".weight")
        if tensor.name in _TENSORS:
            name = _TENSORS[tensor.name]
        elif tensor.name.startswith("blk.") and kind in _LAYER_TENSORS:
            name = f"model.layers.{block}.{_LAYER_TENSORS[kind]}.weight"
        else:
            raise DataError(
                f"The GGUF file holds an unknown tensor {tensor.name!r}: it is not a llama model with tied embeddings."
            )
        if kind in heads:
            rows, columns = weight.shape
            weight = weight.reshape(heads[kind], rows // heads[kind] // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        weights[name] = np.ascontiguousarray(weight)
    return weights


def gguf_tokenizer(reader) -> PreTrainedTokenizerFast:
    """The tokenizer of a GGUF file (a `gguf.GGUFReader`) with pre-tokenizer `smollm`: byte-level BPE, each digit one token.

    transformers' own GGUF reader leaves out the split before digits: it differs where two or more spaces precede one.
    """
    value = {name: field.contents() for name, field in reader.fields.items() if name.startswith("tokenizer.")}
    tokens: list[str] = value["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in value["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = value["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == _CONTROL_TOKEN
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[value["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[value["tokenizer.ggml.eos_token_id"]],
        unk_token=tokens[value["tokenizer.ggml.unknown_token_id"]],
        pad_token=tokens[value["tokenizer.ggml.padding_token_id"]],
        chat_template=value["tokenizer.chat_template"],
        model_max_length=reader.fields["llama.context_length"].contents(),
        clean_up_tokenization_spaces=False,
    )
