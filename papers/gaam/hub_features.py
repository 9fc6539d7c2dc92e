"""Features of a model that you bring: WavLM, Llama 2, BEiT or any other that transformers reads from a folder.

The hidden states of layers 1..N (the embedding layer dropped), mean over time. Recordings are padded to a common length and the
padding is part of the mean, as in the official code; of texts the real tokens alone are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import DataError
from common.files import sha256_of
from common.language_models.sentence_encoder import mean_of_tokens
from common.progress import Progress

WEIGHTS = ("*.safetensors", "*.bin", "*.json")


def folder_digests(folder: Path) -> dict[str, str]:
    """Digest of every file of a model's folder: part of the key of its features.

    Raises:
        DataError: the folder does not exist or holds no config.json.
    """
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} holds no model (config.json is missing): put the files of the model's repository there.")
    return {path.name: sha256_of(path) for pattern in WEIGHTS for path in sorted(folder.glob(pattern))}


def _load(kind: str, folder: Path, **keywords: Any) -> Any:
    import transformers

    try:
        return getattr(transformers, kind).from_pretrained(folder, local_files_only=True, **keywords)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} cannot be read as {kind} of transformers ({error}): bring the whole repository.") from error


def load_model(folder: Path, device: str) -> Any:
    """The model without its head, in evaluation mode: bfloat16 on a GPU, float32 on the CPU."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return _load("AutoModel", folder, dtype=dtype).to(device).eval()


def _layers(model: Any, inputs: dict[str, Tensor], mask: Tensor | None) -> Tensor:
    """Mean over time of the layers' hidden states, [samples, N, d] on the CPU."""
    states = model(**inputs, output_hidden_states=True).hidden_states[1:]
    if mask is None:
        return torch.stack([h.float().mean(1) for h in states], dim=1).cpu()
    return torch.stack([mean_of_tokens(h, mask) for h in states], dim=1).cpu()


@torch.inference_mode()
def hub_text_layers(folder: Path, texts: Sequence[str], device: str, longest: int, batch_size: int = 32) -> Tensor:
    """Texts to float16 [texts, N, d].

    Args:
        folder: with model and tokenizer.
        texts: not empty.
        device: `cpu` or `cuda`.
        longest: tokens of a text; the rest is cut off.
        batch_size: texts at once, of similar length.
    """
    tokenizer, model = _load("AutoTokenizer", folder), load_model(folder, device)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    found: Tensor | None = None
    progress = Progress("text layers", len(texts))
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        batch = [texts[number] for number in numbers]
        encoded = tokenizer(batch, padding=True, padding_side="right", truncation=True, max_length=longest, return_tensors="pt")
        inputs = {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}
        layers = _layers(model, inputs, inputs["attention_mask"].bool()).half()
        found = torch.zeros(len(texts), *layers.shape[1:], dtype=torch.float16) if found is None else found
        found[numbers] = layers
        progress.step("encoded", steps=len(numbers))
    assert found is not None, "there are texts"
    return found


def cut(wave: np.ndarray, longest: int) -> list[np.ndarray]:
    """A recording in pieces of at most `longest` samples: each is a sample of its own."""
    return [wave[start : start + longest] for start in range(0, max(len(wave), 1), longest)]


@torch.inference_mode()
def hub_speech_layers(
    folder: Path, waves: Sequence[np.ndarray], device: str, rate: int, longest: int, batch_size: int = 16
) -> Tensor:
    """Recordings to float32 [recordings, N, d].

    Args:
        folder: with model and feature extractor.
        waves: float32 vectors of at most `longest` samples.
        device: `cpu` or `cuda`.
        rate: samples a second.
        longest: length to which recordings are filled up with zeros.
        batch_size: recordings at once.
    """
    extractor, model = _load("AutoFeatureExtractor", folder), load_model(folder, device)
    found = []
    progress = Progress("speech layers", len(waves))
    for start in range(0, len(waves), batch_size):
        batch = list(waves[start : start + batch_size])
        encoded = extractor(
            batch, sampling_rate=rate, padding="max_length", max_length=longest, truncation=True, return_tensors="pt"
        )
        inputs = {"input_values": encoded["input_values"].to(device, model.dtype)}
        found.append(_layers(model, inputs, None))
        progress.step("encoded", steps=len(batch))
    return torch.cat(found)


@torch.inference_mode()
def hub_image_layers(folder: Path, pixels: np.ndarray, device: str, batch_size: int = 64) -> Tensor:
    """Images uint8 [images, H, W, 3] to float32 [images, N, d]; the model's processor resizes them.

    Args:
        folder: with model and image processor.
        pixels: RGB.
        device: `cpu` or `cuda`.
        batch_size: images at once.
    """
    processor, model = _load("AutoImageProcessor", folder), load_model(folder, device)
    found = []
    progress = Progress("image layers", len(pixels))
    for start in range(0, len(pixels), batch_size):
        encoded = processor(images=list(pixels[start : start + batch_size]), return_tensors="pt")
        found.append(_layers(model, {"pixel_values": encoded["pixel_values"].to(device, model.dtype)}, None))
        progress.step("encoded", steps=len(pixels[start : start + batch_size]))
    return torch.cat(found)
