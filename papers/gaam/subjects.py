"""Data sets by name, as features of a frozen encoder: what the experiments share."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from common.configuration import Parameters
from common.data.cifar100 import ColourImages, load_cifar100_subset, read_cifar100
from common.data.emotional_speech import Recordings, decode, load_nemo
from common.data.fashion_mnist import load_fashion_mnist
from common.data.news import News, load_ag_news_folds, read_ag_news
from common.data.segmentation.document import brought
from common.errors import ConfigError, DataError
from common.experiment import Context
from common.files import sha256_of
from common.speech import whisper
from papers.gaam.encoders import cached_layers, digest_of, speech_layers, text_layers
from papers.gaam.generated import generated_images, generated_news, generated_waves
from papers.gaam.hub_features import cut, folder_digests, hub_image_layers, hub_speech_layers, hub_text_layers
from papers.gaam.layer_features import LayerFeatures
from papers.gaam.masked_patches import VisionSizes, make_vision_transformer, vision_layers

RATE = 16_000
Modality = Literal["text", "speech", "images"]
EMOTIONS = ("anger", "happiness", "neutral", "sadness")


class Subject(Parameters):
    """A data set and the encoder that reads it.

    Attributes:
        modality: text, speech or images.
        model: folder of a model that you bring, in `$REATTEND_DATA/models/`; None is the encoder of the suite.
        samples: made at scale smoke, or the largest number of training images; None is all.
        longest: tokens of a text, or samples of a recording for a model that you bring.
    """

    modality: Modality
    model: str | None = None
    samples: int | None = None
    longest: int = 128


def _generated(name: str) -> bool:
    return name.startswith("generated")


def images_of(name: str, samples: int | None) -> tuple[ColourImages, ColourImages]:
    """Training and test images of a data set for the suite's own encoder.

    Args:
        name: `generated_images`, `cifar100` or `fashion_mnist`.
        samples: at most so many training images, the first ones; for generated images all, a third of them test images.

    Raises:
        ConfigError: there is no such set.
        DataError: it cannot be had.
    """
    if name == "generated_images":
        assert samples is not None, "config.yaml gives the number of generated samples"
        made, cut_at = generated_images(samples, 0), samples - samples // 3
        parts = (slice(None, cut_at), slice(cut_at, None))
        train, test = (ColourImages(made.pixels[part], made.labels[part]) for part in parts)
        return train, test
    if name == "cifar100":
        train, test = load_cifar100_subset()
    elif name == "fashion_mnist":
        train, test = (ColourImages(part.pixels[..., None], part.classes) for part in load_fashion_mnist())
    else:
        raise ConfigError(f"There are no images called {name!r}; there are generated_images, cifar100 and fashion_mnist.")
    if samples is None or samples >= len(train.labels):
        return train, test
    chosen = np.random.default_rng(0).permutation(len(train.labels))[:samples]
    return ColourImages(train.pixels[chosen], train.labels[chosen]), test


def _joined(parts: tuple[ColourImages, ColourImages]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, labels and groups of training and test images together."""
    groups = np.repeat([0, 1], [len(part.labels) for part in parts])
    return np.concatenate([p.pixels for p in parts]), np.concatenate([p.labels for p in parts]), groups


def _read_iemocap(path: Path, longest: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Pieces of utterances, labels and sessions from the table that you bring: columns audio, emotion, session."""
    try:
        table = pd.read_parquet(path, columns=["audio", "emotion", "session"])
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): it needs the columns audio, emotion and session.") from error
    unknown = sorted(set(table["emotion"]) - set(EMOTIONS))
    if unknown:
        raise DataError(f"{path} has the emotions {unknown}; keep {', '.join(EMOTIONS)}, with excited as happiness.")
    pieces, labels, folds = [], [], []
    for number, (audio, emotion, session) in enumerate(zip(table["audio"], table["emotion"], table["session"], strict=True)):
        for piece in cut(decode(audio, RATE, f"{path}, utterance {number}"), longest):
            if len(piece) >= whisper.WINDOW:  # a rest shorter than a window of 25 ms says nothing
                pieces.append(piece)
                labels.append(EMOTIONS.index(emotion))
                folds.append(int(session))
    return pieces, np.array(labels, dtype=np.int64), np.array(folds, dtype=np.int64)


def features_of(name: str, subject: Subject, context: Context) -> LayerFeatures:
    """The features of a data set, on the device of the cell.

    Args:
        name: of the data set.
        subject: how it is read.
        context: of a cell that comes after `pretraining`, for images.

    Raises:
        DataError: data or weights cannot be had.
        ConfigError: there is no such data set.
    """
    read: Mapping[Modality, Callable[..., LayerFeatures]] = {"text": _text, "speech": _speech, "images": _images}
    return read[subject.modality](name, subject, context).to(context.device)


def _features(X: Tensor, labels: np.ndarray, groups: np.ndarray, *, folds: bool) -> LayerFeatures:
    return LayerFeatures(X, torch.from_numpy(labels), groups, folds)


def _model_folder(subject: Subject) -> Path:
    assert subject.model is not None
    return brought("models", subject.model, "the model's repository on the Hugging Face hub (accept its licence there)")


def _text(name: str, subject: Subject, context: Context) -> LayerFeatures:
    news: News
    if _generated(name):
        assert subject.samples is not None, "config.yaml gives the number of generated samples"
        news = generated_news(subject.samples, 0)
    elif name == "ag_news":
        news = load_ag_news_folds()
    elif name == "ag_news_whole":
        where = "the official release of AG News (train.csv and test.csv)"
        news = read_ag_news(brought("ag_news", "train.csv", where), brought("ag_news", "test.csv", where))
    else:
        raise ConfigError(f"There are no texts called {name!r}; there are ag_news and ag_news_whole.")
    if subject.model is None:
        X = text_layers(news.texts, context.device, subject.longest)
    else:
        folder = _model_folder(subject)
        content = {"encoder": folder_digests(folder), "longest": subject.longest, "texts": digest_of(news.texts)}
        X = cached_layers(content, lambda: hub_text_layers(folder, news.texts, context.device, subject.longest))
    return _features(X, news.labels, news.groups, folds=news.folds)


def _speech(name: str, subject: Subject, context: Context) -> LayerFeatures:
    if _generated(name):
        assert subject.samples is not None, "config.yaml gives the number of generated samples"
        waves, labels, folds = generated_waves(subject.samples, 0)
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            encoder = whisper.make_encoder(32, 4, 2, 64)
        states = [whisper.hidden_states(encoder, torch.from_numpy(wave)).mean(1) for wave in waves]
        return _features(torch.stack(states), labels, folds, folds=True)
    if name == "nemo":
        recordings: Recordings = load_nemo()
        return _features(speech_layers(recordings, context.device), recordings.labels, recordings.folds, folds=True)
    if name != "iemocap":
        raise ConfigError(f"There are no recordings called {name!r}; there are nemo and iemocap.")
    where = "USC SAIL, on request; make the table as the README says"
    path, folder = brought("iemocap", "utterances.parquet", where), _model_folder(subject)
    pieces, labels, folds = _read_iemocap(path, subject.longest)
    content = {"encoder": folder_digests(folder), "longest": subject.longest, "recordings": sha256_of(path)}
    X = cached_layers(content, lambda: hub_speech_layers(folder, pieces, context.device, RATE, subject.longest))
    return _features(X, labels, folds, folds=True)


def _images(name: str, subject: Subject, context: Context) -> LayerFeatures:
    if subject.model is not None:
        if name != "cifar100_whole":
            raise ConfigError(f"There are no whole images called {name!r}; there is cifar100_whole.")
        where = "the hub data set uoft-cs/cifar100"
        paths = [brought("cifar100", f"{part}.parquet", where) for part in ("train", "test")]
        pixels, labels, groups = _joined(read_cifar100(*paths))
        folder = _model_folder(subject)
        content = {"encoder": folder_digests(folder), "images": [sha256_of(path) for path in paths]}
        X = cached_layers(content, lambda: hub_image_layers(folder, pixels, context.device))
        return _features(X, labels, groups, folds=False)
    pixels, labels, groups = _joined(images_of(name, subject.samples))
    records = context.results_of("pretraining")
    (record,) = [one for one in records.records if one.axes["images"] == name]
    sizes = VisionSizes.model_validate(record.parameters["sizes"])
    network = make_vision_transformer(sizes, pixels.shape[1:], 0)
    network.load_state_dict(records.artifact(record, "vision"))
    content: dict[str, Any] = {"encoder": record.artifacts["vision"], "images": digest_of([pixels.tobytes()])}
    X = cached_layers(content, lambda: vision_layers(network.eval(), pixels, context.device))
    return _features(X, labels, groups, folds=False)
