"""Frozen encoders of text and speech: the mean over time of the hidden states of each layer, kept on disk by content.

The key is made of the digests of data and weights and of the settings, not of the device: what was computed on a machine that
can decode recordings serves one that cannot. Computed in float32, kept in float16 where its range allows.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from common.data.emotional_speech import Recordings
from common.data.feature_cache import cached_features
from common.data.fetch import digests
from common.language_models import sentence_encoder
from common.progress import Progress
from common.speech import whisper

if TYPE_CHECKING:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

LARGEST_HALF = 6e4


def digest_of(parts: Sequence[str | bytes]) -> str:
    """SHA-256 of a list of texts or files, with their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def compact(X: Tensor) -> Tensor:
    """Features [samples, N, d] in float16, or in float32 where one is too large for that."""
    return X.half() if float(X.abs().max()) < LARGEST_HALF else X.float()


def cached_layers(content: Mapping[str, Any], make: Callable[[], Tensor]) -> Tensor:
    """Features [samples, N, d], made once for a content and compacted."""
    return cached_features({"paper": "gaam", **content}, lambda: {"X": compact(make())})["X"]


@torch.inference_mode()
def encode_texts(texts: Sequence[str], device: str, longest: int, batch_size: int = 128) -> Tensor:
    """MiniLM: mean over tokens (the special ones included, padding not) of each layer: float32 [texts, 6, 384].

    Args:
        texts: not empty.
        device: `cpu` or `cuda`.
        longest: tokens of a text; the rest is cut off.
        batch_size: texts at once, of similar length.
    """
    tokenizer, network = sentence_encoder.load_tokenizer(), sentence_encoder.load_encoder(device)
    pieces = tokenizer.pieces(texts, longest - 2)
    order = sorted(range(len(pieces)), key=lambda number: len(pieces[number]))
    found = torch.zeros(len(pieces), network.config.num_hidden_layers, network.config.hidden_size)
    progress = Progress("text layers", len(order))
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        ids = tokenizer.batch([pieces[number] for number in numbers]).to(device)
        mask = ids != tokenizer.padding
        states = network(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        found[numbers] = torch.stack([sentence_encoder.mean_of_tokens(h, mask) for h in states[1:]], dim=1).cpu()
        progress.step("encoded", steps=len(numbers))
    return found


def text_layers(texts: Sequence[str], device: str, longest: int) -> Tensor:
    """`encode_texts`, cached: float16 [texts, 6, 384]."""
    content = {"encoder": digests(sentence_encoder.MINILM), "longest": longest, "texts": digest_of(texts)}
    return cached_layers(content, lambda: encode_texts(texts, device, longest))


def encode_recordings(recordings: Recordings, encoder: "WhisperEncoder", device: str) -> Tensor:
    """Mean over the frames of each recording, at its own length: float32 [recordings, N, d]."""
    found = []
    progress = Progress("speech layers", len(recordings))
    for wave in recordings.waves(whisper.RATE):
        found.append(whisper.hidden_states(encoder, torch.from_numpy(wave).to(device)).mean(1).cpu())
        progress.step("encoded")
    return torch.stack(found)


def speech_layers(recordings: Recordings, device: str) -> Tensor:
    """`encode_recordings` with Whisper tiny.en, cached: float16 [recordings, 4, 384]."""
    content = {"encoder": digests(whisper.WHISPER), "recordings": digest_of(recordings.audio)}
    return cached_layers(content, lambda: encode_recordings(recordings, whisper.load_encoder(device), device))
