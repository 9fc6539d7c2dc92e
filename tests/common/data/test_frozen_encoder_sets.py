"""The loaders of AG News, nEMO and CIFAR-100, on files written for the test."""

import io
import sys
import types

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import wavfile

from common.data import cifar100, emotional_speech, news
from common.errors import DataError


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def test_ag_news_in_folds(tmp_path, monkeypatch):
    path = tmp_path / "news.csv"
    path.write_text('label,title,description,fold\n2,"A, b",c,4\n0,NA,null,1\n')
    monkeypatch.setattr(news, "fetch", lambda name: path)
    found = news.load_ag_news_folds()
    assert found.texts == ("A, b c", "NA null")  # words that pandas takes for missing values
    assert found.labels.tolist() == [2, 0]
    assert found.groups.tolist() == [4, 1]
    assert found.folds


def test_the_official_files_of_ag_news(tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text('"4","t","d"\n"1","u","e"\n')
    test.write_text('"2","v","f"\n')
    found = news.read_ag_news(train, test)
    assert found.texts == ("t d", "u e", "v f")
    assert found.labels.tolist() == [3, 0, 1]
    assert found.groups.tolist() == [0, 0, 1]
    assert not found.folds
    test.write_text('"0","v","f"\n')
    with pytest.raises(DataError, match="class from 1 to 4"):
        news.read_ag_news(train, test)
    with pytest.raises(DataError, match="bring the official file"):
        news.read_ag_news(train, tmp_path / "absent.csv")


def test_cifar100(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    subset = pd.DataFrame({"split": ["train", "test", "train"], "label": [5, 6, 7], "png": [png(one) for one in pixels]})
    path = tmp_path / "subset.parquet"
    subset.to_parquet(path)
    monkeypatch.setattr(cifar100, "fetch", lambda name, file: path)
    train, test = cifar100.load_cifar100_subset()
    assert train.labels.tolist() == [5, 7]
    assert np.array_equal(train.pixels, pixels[[0, 2]])
    assert np.array_equal(test.pixels, pixels[[1]])
    whole = tmp_path / "whole.parquet"
    pd.DataFrame({"img": [{"bytes": png(one), "path": "x"} for one in pixels], "fine_label": [1, 2, 3]}).to_parquet(whole)
    train, test = cifar100.read_cifar100(whole, whole)
    assert np.array_equal(train.pixels, pixels)
    assert test.labels.tolist() == [1, 2, 3]
    with pytest.raises(DataError, match="columns img and fine_label"):
        cifar100.read_cifar100(path, path)
    with pytest.raises(DataError, match="cannot be read"):
        cifar100.decode_images([b"no image"], "this file")
    with pytest.raises(DataError, match="several sizes"):
        cifar100.decode_images([png(pixels[0]), png(pixels[0, :2])], "this file")


def _wav(wave: np.ndarray, rate: int) -> bytes:
    stream = io.BytesIO()
    wavfile.write(stream, rate, (wave * 32767).astype(np.int16))
    return stream.getvalue()


def _read(stream, dtype):
    try:
        rate, wave = wavfile.read(stream)
    except ValueError as error:
        raise RuntimeError(str(error)) from error
    return (wave / 32768).astype(dtype), rate


def test_nemo_and_its_recordings(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", types.SimpleNamespace(read=_read))
    wave = np.sin(np.arange(1000) * 0.1) / 2
    audio = [_wav(wave, 16_000), _wav(wave, 8_000), b"noise", _wav(np.stack([wave, wave], axis=1), 16_000)]
    table = pd.DataFrame(
        {"audio": audio, "emotion": ["sadness", "anger", "neutral", "anger"], "fold": [0, 1, 2, 3], "speaker_id": list("abcd")}
    )
    path = tmp_path / "nemo.parquet"
    table.to_parquet(path)
    monkeypatch.setattr(emotional_speech, "fetch", lambda name: path)
    found = emotional_speech.load_nemo()
    assert found.labels.tolist() == [3, 0, 2, 0]
    assert found.folds.tolist() == [0, 1, 2, 3]
    assert len(found) == 4
    waves = found.waves()
    assert np.allclose(next(waves), wave, atol=1e-3)
    with pytest.raises(DataError, match="recording 1 has a rate of 8000"):
        next(waves)
    with pytest.raises(DataError, match="this cannot be decoded"):
        emotional_speech.decode(audio[2], 16_000, "this")
    with pytest.raises(DataError, match="make it mono"):
        emotional_speech.decode(audio[3], 16_000, "this")


def test_without_soundfile_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(DataError, match="pip install soundfile"):
        emotional_speech.decode(b"", 16_000, "this")
