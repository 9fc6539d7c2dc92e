"""Language models by name, folder or hub id; and the Llama-3.1-8B architecture with random weights, for timing."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from common.errors import DataError, InputError, MissingHardwareError
from common.files import sha256_of
from common.language_models import smollm2

# The architecture of meta-llama/Llama-3.1-8B, from its public config.json; and a very small one of the same kind.
SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": False,
    },
}


_HUB_FILES = ["*.safetensors", "*.json", "tokenizer*", "*.txt", "*.jinja"]


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer.

    Attributes:
        model: in evaluation mode, on the device and in the dtype asked for.
        tokenizer: its tokenizer.
        name: as asked for.
        sha256: of the weights: over the sha256 of each safetensors file, in the order of their names.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    sha256: str


def load_language_model(
    name_or_path: str,
    *,
    dtype: torch.dtype,
    device: str | torch.device,
    attn_implementation: str = "sdpa",
    rope_theta: float | None = None,
) -> LanguageModel:
    """Load a pretrained causal language model from safetensors; code that comes with a model is never run.

    Args:
        name_or_path: `smollm2-135m-instruct`, a local folder in the format of transformers, or a hub id (`HF_HUB_OFFLINE` and
            the hub's cache are respected).
        dtype: floating-point dtype of the weights.
        device: where the weights go.
        attn_implementation: a name of transformers' attention interface.
        rope_theta: a rotary base other than the trained one; a larger one lengthens the usable context.

    Raises:
        DataError: the model cannot be found, has no safetensors, is no causal language model, or lacks some of its weights.
        InputError: `dtype` is not a floating-point type, the attention is not registered, `rope_theta` is not positive, or the
            model has no single rotary base.
        MissingHardwareError: the device is not there.
    """
    place = _present(device)
    _check_attention(attn_implementation)
    if not dtype.is_floating_point:
        raise InputError(f"dtype = {dtype}: weights need a floating-point type such as torch.bfloat16.")
    if rope_theta is not None and not rope_theta > 0:
        raise InputError(f"rope_theta = {rope_theta}: it must be positive (the usual values are 10,000 to 1,000,000).")
    folder = _folder_of(name_or_path)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        raise DataError(
            f"{folder} does not hold a model: it needs config.json, *.safetensors and the tokenizer's files. "
            "Convert other formats with transformers' save_pretrained first."
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if rope_theta is not None:
            _set_rope_theta(config, rope_theta)
        model, report = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attn_implementation,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(f"The model in {folder} cannot be loaded: {' '.join(str(error).split())[:400]}") from error
    absent = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    if absent:
        raise DataError(
            f"The model in {folder} lacks weights ({', '.join(absent[:5])}, {len(absent)} in all). Bring the whole model."
        )
    digests = "\n".join(f"{path.name} {sha256_of(path)}" for path in weights)
    return LanguageModel(model.to(place).eval(), tokenizer, name_or_path, hashlib.sha256(digests.encode()).hexdigest())


def random_llama(
    shape: str = "llama-3.1-8b",
    *,
    seed: int,
    dtype: torch.dtype,
    device: str | torch.device,
    layers: int | None = None,
    attn_implementation: str = "sdpa",
) -> LlamaForCausalLM:
    """A Llama with random weights (normal, standard deviation 0.02), made on the device: for timing, not for quality.

    Args:
        shape: `llama-3.1-8b` (8.03 billion parameters), or `tiny` (2 layers, 4 query and 2 key heads of 64 dimensions).
        seed: the same seed gives the same weights on the same device; the global generators are left as they were.
        dtype: of the weights.
        device: where they are made.
        layers: a smaller number of layers.
        attn_implementation: a name of transformers' attention interface.

    Raises:
        InputError: unknown shape or attention, or a number of layers that is not positive.
        MissingHardwareError: the device is not there.
    """
    if shape not in SHAPES:
        raise InputError(f"shape = {shape!r} is not known; there are: {', '.join(SHAPES)}.")
    if layers is not None and layers < 1:
        raise InputError(f"layers = {layers}: at least one is needed.")
    place = _present(device)
    settings = SHAPES[shape] | ({} if layers is None else {"num_hidden_layers": layers})
    _check_attention(attn_implementation)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []), place:
        torch.manual_seed(seed)
        model = LlamaForCausalLM._from_config(LlamaConfig(**settings), dtype=dtype, attn_implementation=attn_implementation)
    return model.eval()


def _present(device: str | torch.device) -> torch.device:
    wanted = torch.device(device)
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise MissingHardwareError(
            f"device = {str(wanted)!r}, but this machine has {torch.cuda.device_count()} CUDA devices. Use 'cpu'."
        )
    return wanted


def _check_attention(name: str) -> None:
    known = ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
    if name not in known:
        raise InputError(f"attn_implementation = {name!r} is not registered; there are: {', '.join(known)}.")


def _folder_of(name_or_path: str) -> Path:
    if name_or_path == smollm2.NAME:
        return smollm2.smollm2_folder()
    if Path(name_or_path).expanduser().is_dir():
        return Path(name_or_path).expanduser()
    try:
        return Path(
            snapshot_download(name_or_path, allow_patterns=["*.safetensors", "*.json", "tokenizer*", "*.txt", "*.jinja"])
        )
    except HFValidationError:
        reason = "it is neither a folder on this machine nor a hub id (owner/name)"
    except LocalEntryNotFoundError:
        reason = "the hub cannot be reached and its cache on this machine does not hold it"
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
    raise DataError(
        f"The model {name_or_path!r} cannot be had: {reason}. Bring it: give the path of a folder with config.json, "
        f"*.safetensors and the tokenizer's files, or use {smollm2.NAME!r}."
    )


def _set_rope_theta(config: Any, theta: float) -> None:
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict) or "rope_theta" not in parameters:
        raise InputError(f"rope_theta = {theta}: the model type {config.model_type!r} has no single rotary base to set.")
    config.rope_parameters = {**parameters, "rope_theta": float(theta)}
