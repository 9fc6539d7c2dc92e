"""Whisper's spectrogram, CTranslate2's file, and the mapping of its weights, against independent versions."""

import struct

import numpy as np
import pytest
import torch

from common.errors import DataError, InputError
from common.speech.ctranslate2 import read_variables
from common.speech.whisper import encoder_state, hidden_states, log_mel, make_encoder

CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def write_model(path, variables, version=6):
    """A file in CTranslate2's layout, written with struct alone."""

    def string(text):
        content = text.encode() + b"\0"
        return struct.pack("<H", len(content)) + content

    parts = [struct.pack("<I", version), string("WhisperSpec"), struct.pack("<II", 3, len(variables))]
    for name, array in variables.items():
        parts += [string(name), struct.pack("<B", array.ndim), struct.pack(f"<{array.ndim}I", *array.shape)]
        parts += [struct.pack("<BI", CODES[str(array.dtype)], array.nbytes), array.tobytes()]
    path.write_bytes(b"".join(parts))
    return path


def test_variables_come_back(tmp_path):
    rng = np.random.default_rng(0)
    variables = {
        "encoder/a": rng.standard_normal((2, 3)).astype(np.float16),
        "decoder/b": rng.standard_normal(4).astype(np.float32),
        "encoder/c": np.array(7, dtype=np.int8),
    }
    path = write_model(tmp_path / "model.bin", variables)
    found = read_variables(path, "encoder/")
    assert set(found) == {"a", "c"}
    assert np.array_equal(found["a"], variables["encoder/a"])
    assert found["c"].shape == ()
    assert set(read_variables(path)) == set(variables)


def test_damaged_files_are_named(tmp_path):
    path = write_model(tmp_path / "model.bin", {"encoder/a": np.zeros((2, 3), dtype=np.float16)})
    with pytest.raises(DataError, match="cannot be read"):
        read_variables(tmp_path / "absent.bin")
    content = path.read_bytes()
    for length in (2, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match="ends early"):
            read_variables(path)
    path.write_bytes(struct.pack("<I", 5) + content[4:])
    with pytest.raises(DataError, match="version 5"):
        read_variables(path)
    broken = bytearray(content)
    broken[-16] = 9  # the rest is data (12 bytes) and their number: the last byte of the type and number is changed
    path.write_bytes(bytes(broken))
    with pytest.raises(DataError, match="damaged"):
        read_variables(path)


def test_log_mel_is_that_of_transformers():
    from transformers import WhisperFeatureExtractor

    rng = np.random.default_rng(0)
    wave = (0.3 * np.sin(np.arange(20_000) * 0.2) + 0.05 * rng.standard_normal(20_000)).astype(np.float32)
    extractor = WhisperFeatureExtractor()
    expected = extractor(wave, sampling_rate=16_000, padding="do_not_pad", return_tensors="np").input_features[0]
    assert np.allclose(log_mel(torch.from_numpy(wave)).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("samples", [0, 399, 16_000 * 30 + 1])
def test_recordings_of_a_wrong_length_are_refused(samples):
    with pytest.raises(InputError, match="400 to 480000"):
        log_mel(torch.zeros(samples))


def looped_encoder(variables, wave, layers, heads):
    """A numpy forward pass on CTranslate2's own names: convolutions, then pre-norm blocks, without the final normalisation."""
    from scipy.special import erf

    def gelu(x):
        return 0.5 * x * (1 + erf(x / np.sqrt(2)))

    def norm(x, name):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-5) * variables[f"{name}/gamma"] + variables[f"{name}/beta"]

    def linear(x, name):
        return x @ variables[f"{name}/weight"].T + variables[f"{name}/bias"]

    def conv(x, name, stride):
        weight, padded = variables[f"{name}/weight"], np.pad(x, ((0, 0), (1, 1)))
        frames = range(0, x.shape[1], stride)
        columns = [np.tensordot(weight, padded[:, t : t + 3], axes=((1, 2), (0, 1))) for t in frames]
        return gelu(np.stack(columns, axis=1) + variables[f"{name}/bias"][:, None])

    mel = log_mel(torch.from_numpy(wave)).numpy().astype(np.float64)
    x = conv(conv(mel, "conv1", 1), "conv2", 2).T
    x = x + variables["position_encodings/encodings"][: len(x)]
    found = []
    for number in range(layers):
        attention, ffn = f"layer_{number}/self_attention", f"layer_{number}/ffn"
        q, k, v = np.split(linear(norm(x, f"{attention}/layer_norm"), f"{attention}/linear_0"), 3, axis=1)
        width = x.shape[1] // heads
        mixed = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = q[:, part] @ k[:, part].T / np.sqrt(width)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            mixed.append(weights / weights.sum(1, keepdims=True) @ v[:, part])
        x = x + linear(np.concatenate(mixed, axis=1), f"{attention}/linear_1")
        x = x + linear(gelu(linear(norm(x, f"{ffn}/layer_norm"), f"{ffn}/linear_0")), f"{ffn}/linear_1")
        found.append(x)
    return np.stack(found)


def test_mapped_weights_compute_what_the_model_does():
    d, layers, heads, hidden = 8, 2, 2, 12
    rng = np.random.default_rng(0)
    shapes = {
        "conv1/weight": (d, 80, 3), "conv1/bias": (d,), "conv2/weight": (d, d, 3), "conv2/bias": (d,),
        "position_encodings/encodings": (1500, d), "layer_norm/gamma": (d,), "layer_norm/beta": (d,),
    }  # fmt: skip
    for number in range(layers):
        attention, ffn = f"layer_{number}/self_attention", f"layer_{number}/ffn"
        for place in (attention, ffn):
            shapes |= {f"{place}/layer_norm/gamma": (d,), f"{place}/layer_norm/beta": (d,)}
        for name, (rows, columns) in {
            f"{attention}/linear_0": (3 * d, d), f"{attention}/linear_1": (d, d),
            f"{ffn}/linear_0": (hidden, d), f"{ffn}/linear_1": (d, hidden),
        }.items():  # fmt: skip
            shapes |= {f"{name}/weight": (rows, columns), f"{name}/bias": (rows,)}
    variables = {name: 0.3 * rng.standard_normal(shape) for name, shape in shapes.items()}
    for number in range(layers):
        variables[f"layer_{number}/self_attention/linear_0/bias"][d : 2 * d] = 0  # keys have no bias
    encoder = make_encoder(d, layers, heads, hidden)
    encoder.load_state_dict(encoder_state(variables, layers))
    wave = (0.2 * rng.standard_normal(3_333)).astype(np.float32)
    found = hidden_states(encoder, torch.from_numpy(wave))
    expected = looped_encoder(variables, wave, layers, heads)
    assert found.shape == expected.shape
    assert np.allclose(found.numpy(), expected, atol=1e-3)


def test_the_rest_of_a_model_is_that_of_transformers():
    """At 30 seconds, and with its last normalisation, the whole encoder is transformers' own forward pass."""
    torch.manual_seed(0)
    encoder = make_encoder(8, 2, 2, 12)
    wave = 0.1 * torch.randn(16_000 * 30)
    with torch.inference_mode():
        expected = encoder(log_mel(wave)[None]).last_hidden_state[0]
        assert torch.allclose(encoder.layer_norm(hidden_states(encoder, wave)[-1]), expected, atol=1e-5)
