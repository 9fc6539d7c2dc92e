"""The encoder of Whisper tiny.en (Radford et al., 2023) as a source of frozen features: recordings at 16 kHz to layers."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from common.data.fetch import fetch
from common.errors import InputError
from common.speech.ctranslate2 import read_variables

if TYPE_CHECKING:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

WHISPER = "whisper-tiny-en"
RATE = 16_000
WINDOW, HOP = 400, 160
LONGEST = 30.0  # seconds: positions of the model


@lru_cache(maxsize=4)
def _mel_filters(bands: int) -> Tensor:
    """Slaney's mel filters: float32 [201, bands]."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(WINDOW // 2 + 1, bands, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters).float()


def log_mel(wave: Tensor, bands: int = 80) -> Tensor:
    """Whisper's spectrogram: log10 of mel energies, at most 8 below the largest, shifted and scaled.

    Args:
        wave: float32 [samples] in -1..1 at 16 kHz.
        bands: of the mel scale.

    Returns:
        float32 [bands, samples // 160], on the device of `wave`.

    Raises:
        InputError: the recording is shorter than a window or longer than 30 seconds.
    """
    if wave.ndim != 1 or not WINDOW <= len(wave) <= LONGEST * RATE:
        raise InputError(f"The recording has shape {tuple(wave.shape)}; give a vector of 400 to {int(LONGEST * RATE)} samples.")
    window = torch.hann_window(WINDOW, device=wave.device)
    spectrum = torch.stft(wave, WINDOW, HOP, window=window, return_complex=True)[:, :-1].abs().square()
    energy = (_mel_filters(bands).to(wave.device).T @ spectrum).clamp(min=1e-10).log10()
    return (torch.maximum(energy, energy.max() - 8) + 4) / 4


def encoder_state(variables: Mapping[str, np.ndarray], layers: int) -> dict[str, Tensor]:
    """Variables of CTranslate2's encoder under the names of transformers' `WhisperEncoder`; keys have no bias there.

    Args:
        variables: as `read_variables(path, "encoder/")` gives them.
        layers: of the encoder.

    Returns:
        Name -> float32 tensor.
    """

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(np.array(variables[name], dtype=np.float32))

    state = {f"{conv}.{kind}": tensor(f"{conv}/{kind}") for conv in ("conv1", "conv2") for kind in ("weight", "bias")}
    state["embed_positions.weight"] = tensor("position_encodings/encodings")
    norms = {"layer_norm": "layer_norm"}
    linears: dict[str, str] = {}
    for number in range(layers):
        ours, theirs = f"layers.{number}", f"layer_{number}"
        norms |= {f"{ours}.self_attn_layer_norm": f"{theirs}/self_attention/layer_norm"}
        norms |= {f"{ours}.final_layer_norm": f"{theirs}/ffn/layer_norm"}
        linears |= {f"{ours}.self_attn.out_proj": f"{theirs}/self_attention/linear_1"}
        linears |= {f"{ours}.fc1": f"{theirs}/ffn/linear_0", f"{ours}.fc2": f"{theirs}/ffn/linear_1"}
        weights = tensor(f"{theirs}/self_attention/linear_0/weight").chunk(3)
        biases = tensor(f"{theirs}/self_attention/linear_0/bias").chunk(3)
        for part, weight, bias in zip("qkv", weights, biases, strict=True):
            state[f"{ours}.self_attn.{part}_proj.weight"] = weight
            if part != "k":
                state[f"{ours}.self_attn.{part}_proj.bias"] = bias
    for ours, theirs in norms.items():
        state |= {f"{ours}.weight": tensor(f"{theirs}/gamma"), f"{ours}.bias": tensor(f"{theirs}/beta")}
    for ours, theirs in linears.items():
        state |= {f"{ours}.{kind}": tensor(f"{theirs}/{kind}") for kind in ("weight", "bias")}
    return state


def make_encoder(width: int, layers: int, heads: int, hidden: int) -> "WhisperEncoder":
    """An encoder with random weights, in evaluation mode."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(d_model=width, encoder_layers=layers, encoder_attention_heads=heads, encoder_ffn_dim=hidden)
    return WhisperEncoder(config).eval()


def load_encoder(device: str) -> "WhisperEncoder":
    """The pretrained encoder in float32: 4 layers, 384 dimensions.

    Raises:
        DataError: its file cannot be had.
    """
    encoder = make_encoder(384, 4, 6, 1536)
    encoder.load_state_dict(encoder_state(read_variables(fetch(WHISPER), "encoder/"), 4))
    torch.nn.Module.to(encoder, device)  # transformers' own `to` has no usable type
    return encoder


@torch.inference_mode()
def hidden_states(encoder: "WhisperEncoder", wave: Tensor) -> Tensor:
    """Hidden states after every layer, before the final LayerNorm, of one recording at its own length.

    Positions beyond the recording are left out, where Whisper itself pads to 30 seconds.

    Args:
        encoder: of any size.
        wave: as for `log_mel`, on the encoder's device.

    Returns:
        float32 [layers, frames, width], a frame being 20 ms.
    """
    x = torch.nn.functional.gelu(encoder.conv1(log_mel(wave, encoder.num_mel_bins)[None]))
    x = torch.nn.functional.gelu(encoder.conv2(x)).transpose(1, 2)
    x = x + encoder.embed_positions.weight[: x.shape[1]]
    found = []
    for layer in encoder.layers:
        x = layer(x, None)
        found.append(x[0])
    return torch.stack(found)
