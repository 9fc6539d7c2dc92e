"""Where features come from: the small vision transformer, models that are brought, data sets by name."""

import io
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.io import wavfile
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from common.data.cifar100 import ColourImages
from common.errors import ConfigError, DataError, InputError
from common.experiment import Context
from common.training import Recipe
from papers.gaam import subjects
from papers.gaam.encoders import cached_layers, compact, digest_of
from papers.gaam.generated import generated_images, generated_news, generated_waves
from papers.gaam.hub_features import cut, folder_digests, hub_image_layers, hub_speech_layers, hub_text_layers
from papers.gaam.masked_patches import VisionSizes, make_vision_transformer, patches_of, pretrain, vision_layers
from papers.gaam.subjects import Subject, features_of

CONTEXT = Context("cpu", "test")
SIZES = VisionSizes(layers=3, width=12, heads=2, patch=4, masked=0.5)


@pytest.fixture
def brought(tmp_path, monkeypatch):
    """A folder for what the user brings, and a cache of its own."""
    monkeypatch.setenv("REATTEND_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("REATTEND_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def soundfile(monkeypatch):
    """A stand-in for soundfile that reads WAV."""

    def read(stream, dtype):
        rate, wave = wavfile.read(stream)
        return (wave / 32768).astype(dtype), rate

    monkeypatch.setitem(sys.modules, "soundfile", types.SimpleNamespace(read=read))


def wav(wave: np.ndarray, rate: int = 16_000) -> bytes:
    stream = io.BytesIO()
    wavfile.write(stream, rate, (wave * 32767).astype(np.int16))
    return stream.getvalue()


def test_patches_are_cut_row_by_row():
    images = torch.arange(2 * 8 * 12 * 3).view(2, 8, 12, 3).remainder(256).to(torch.uint8)
    found = patches_of(images, 4)
    number = 0
    for i in range(0, 8, 4):
        for j in range(0, 12, 4):
            expected = images[:, i : i + 4, j : j + 4].flatten(1).float() / 127.5 - 1
            assert torch.allclose(found[:, number], expected)
            number += 1
    assert number == found.shape[1]
    with pytest.raises(InputError, match="5 pixels"):
        patches_of(images, 5)


def test_masked_patches_do_not_reach_the_network():
    network = make_vision_transformer(SIZES, (8, 8, 3), 0)
    x = torch.randn(2, 4, 48)
    masked = torch.tensor([[True, False, False, True]] * 2)
    other = torch.where(masked[..., None], x + 1, x)
    assert torch.equal(network(x, masked), network(other, masked))
    assert not torch.allclose(network(x, ~masked), network(other, ~masked))


def test_vision_layers_are_means_of_the_blocks_outputs():
    network = make_vision_transformer(SIZES, (8, 8, 3), 0).eval()
    pixels = generated_images(5, 0).pixels
    found = vision_layers(network, pixels, "cpu", batch_size=2)
    h = network.embed(patches_of(torch.from_numpy(pixels), 4)) + network.positions
    for number, block in enumerate(network.blocks):
        h = block(h)
        assert torch.allclose(found[:, number], h.mean(1), atol=1e-5)


def test_pretraining_learns_to_fill_in():
    pixels = generated_images(60, 0).pixels
    recipe = Recipe(optimiser="adamw", learning_rate=1e-2, batch_size=20)
    _, curve = pretrain(pixels, SIZES, recipe, 12, 0, CONTEXT)
    assert curve[-1]["loss"] < 0.9 * curve[0]["loss"]


def test_features_are_kept_by_content(brought):
    calls = []

    def make():
        calls.append(1)
        return torch.ones(2, 3, 4)

    first, again = (cached_layers({"texts": digest_of(["a", "b"])}, make) for _ in range(2))
    assert torch.equal(first, again)
    assert len(calls) == 1
    cached_layers({"texts": digest_of(["ab"])}, make)
    assert len(calls) == 2
    assert compact(torch.full((1,), 1e5)).dtype == torch.float32
    assert compact(torch.full((1,), 1e2)).dtype == torch.float16


@pytest.mark.parametrize("modality", ["text", "speech", "images"])
def test_unknown_data_sets_are_named(modality):
    with pytest.raises(ConfigError, match="wikipedia"):
        features_of("wikipedia", Subject(modality=modality, model="m" if modality == "images" else None), CONTEXT)


def test_generated_sets_tell_their_classes_apart():
    news = generated_news(40, 0)
    assert all(any(word in text for word in ("goal", "referee")) for text in news.texts[1::4])
    waves, labels, _ = generated_waves(8, 0)
    peaks = [np.abs(np.fft.rfft(wave)).argmax() * 16_000 / len(wave) for wave in waves]
    assert np.allclose(peaks, 200 * 2.0**labels, rtol=0.05)
    images = generated_images(8, 0)
    for image, label in zip(images.pixels.astype(float), images.labels, strict=True):
        quarters = [image[i : i + 4, j : j + 4].mean() for i in (0, 4) for j in (0, 4)]
        assert int(np.argmax(quarters)) == label


def test_fewer_training_images_are_a_fixed_choice(monkeypatch):
    images = ColourImages(np.arange(20 * 4, dtype=np.uint8).reshape(20, 2, 2, 1), np.arange(20))
    monkeypatch.setattr(subjects, "load_cifar100_subset", lambda: (images, images))
    few, test = subjects.images_of("cifar100", 5)
    assert len(few.labels) == 5
    assert len(test.labels) == 20
    assert (few.pixels[:, 0, 0, 0] == few.labels * 4).all()
    assert few.labels.tolist() == subjects.images_of("cifar100", 5)[0].labels.tolist()


def tiny_text_model(folder):
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<unk>", "goal", "market", "news", "of", "the"]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>").save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2
    )
    LlamaModel(config).save_pretrained(folder)


def test_a_language_model_that_is_brought(brought):
    folder = brought / "models" / "tiny-llama"
    tiny_text_model(folder)
    (brought / "ag_news").mkdir()
    rows = '"1","news","of the market"\n"2","goal","news"\n"3","market","goal goal of"\n"4","the","goal"\n'
    for part in ("train", "test"):
        (brought / "ag_news" / f"{part}.csv").write_text(rows)
    found = features_of("ag_news_whole", Subject(modality="text", model="tiny-llama", longest=16), CONTEXT)
    assert found.X.shape == (8, 3, 16)
    assert found.groups.tolist() == [0] * 4 + [1] * 4
    assert found.labels.tolist() == [0, 1, 2, 3] * 2
    # one text at a time, without padding
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
    for number, text in enumerate(["news of the market", "goal news"]):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False), output_hidden_states=True)
        expected = torch.stack([h[0].mean(0) for h in states.hidden_states[1:]])
        assert torch.allclose(found.X[number].float(), expected, atol=5e-3)
    assert hub_text_layers(folder, ["goal"], "cpu", 4).dtype == torch.float16


def test_a_speech_model_that_is_brought(brought, soundfile):
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

    folder = brought / "models" / "tiny-wavlm"
    torch.manual_seed(0)
    config = WavLMConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8), conv_stride=(10, 8),
        conv_kernel=(20, 8), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, num_buckets=8, max_bucket_distance=16,
        feat_extract_norm="group",
    )  # fmt: skip
    WavLMModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False).save_pretrained(folder)
    waves, labels, folds = generated_waves(8, 0)
    (brought / "iemocap").mkdir()
    table = pd.DataFrame(
        {
            "audio": [wav(wave) for wave in waves],
            "emotion": [subjects.EMOTIONS[label] for label in labels],
            "session": folds + 1,
        }
    )
    table.to_parquet(brought / "iemocap" / "utterances.parquet")
    found = features_of("iemocap", Subject(modality="speech", model="tiny-wavlm", longest=4000), CONTEXT)
    pieces = [piece for wave in waves for piece in cut(wave, 4000) if len(piece) >= 400]
    counts = [sum(len(piece) >= 400 for piece in cut(wave, 4000)) for wave in waves]
    assert found.X.shape == (len(pieces), 2, 16)
    assert found.labels.tolist() == np.repeat(labels, counts).tolist()
    assert found.groups.tolist() == np.repeat(folds + 1, counts).tolist()  # pieces of an utterance stay in its session
    alone = hub_speech_layers(folder, [waves[0][:4000]], "cpu", 16_000, 4000)
    assert torch.allclose(found.X[0].float(), alone[0], atol=2e-2)
    table["emotion"] = "excited"
    table.to_parquet(brought / "iemocap" / "utterances.parquet")
    with pytest.raises(DataError, match="excited as happiness"):
        features_of("iemocap", Subject(modality="speech", model="tiny-wavlm", longest=4000), CONTEXT)


def test_an_image_model_that_is_brought(brought):
    from PIL import Image
    from transformers import BeitConfig, BeitImageProcessor, BeitModel

    folder = brought / "models" / "tiny-beit"
    torch.manual_seed(0)
    config = BeitConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )  # fmt: skip
    config.out_indices = [1, 2, 3, 4]  # the default asks for the twelfth layer
    BeitModel(config).save_pretrained(folder)
    BeitImageProcessor(size={"height": 16, "width": 16}, do_center_crop=False).save_pretrained(folder)
    images = generated_images(8, 0)
    files = []
    for pixels in images.pixels:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="PNG")
        files.append({"bytes": stream.getvalue(), "path": None})
    (brought / "cifar100").mkdir()
    for part in ("train", "test"):
        pd.DataFrame({"img": files, "fine_label": images.labels}).to_parquet(brought / "cifar100" / f"{part}.parquet")
    found = features_of("cifar100_whole", Subject(modality="images", model="tiny-beit"), CONTEXT)
    assert found.X.shape == (16, 4, 16)
    assert torch.equal(found.X[:8], found.X[8:])
    assert torch.allclose(hub_image_layers(folder, images.pixels, "cpu", batch_size=3)[:8], found.X[:8].float(), atol=1e-2)


def test_what_is_not_brought_is_named(brought):
    with pytest.raises(DataError, match=r"iemocap/utterances\.parquet must be brought"):
        features_of("iemocap", Subject(modality="speech", model="wavlm-large"), CONTEXT)
    with pytest.raises(DataError, match=r"config\.json is missing"):
        folder_digests(brought)
    (brought / "config.json").write_text("{}")
    with pytest.raises(DataError, match="bring the whole repository"):
        hub_text_layers(brought, ["a"], "cpu", 4)
