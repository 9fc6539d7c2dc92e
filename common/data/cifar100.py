"""CIFAR-100 (Krizhevsky, 2009): colour images of 32 x 32 pixels in a hundred classes."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from common.data.fetch import fetch
from common.errors import DataError


@dataclass(frozen=True)
class ColourImages:
    """Images with their classes.

    Attributes:
        pixels: uint8 [images, height, width, 3].
        labels: int64 [images].
    """

    pixels: np.ndarray
    labels: np.ndarray


def decode_images(content: Sequence[bytes], name: str) -> np.ndarray:
    """Compressed images of one size as uint8 [images, height, width, 3].

    Args:
        content: PNG or JPEG files.
        name: what a message blames.

    Raises:
        DataError: one is damaged, or sizes differ.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        images = [np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in content]
        return np.stack(images)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DataError(f"{name} holds an image that cannot be read, or images of several sizes ({error}).") from error


def load_cifar100_subset() -> tuple[ColourImages, ColourImages]:
    """60 training and 15 test images of each class. Raises DataError when the file cannot be had."""
    table = pd.read_parquet(fetch("cifar100-subset", "cifar100_60x15.parquet"))
    pixels, labels = decode_images(list(table["png"]), "cifar100-subset"), table["label"].to_numpy(np.int64)
    split = table["split"].to_numpy()
    train, test = (ColourImages(pixels[split == part], labels[split == part]) for part in ("train", "test"))
    return train, test


def read_cifar100(train: Path, test: Path) -> tuple[ColourImages, ColourImages]:
    """The whole set as parquet files with the columns `img` (a file's bytes under the key `bytes`) and `fine_label`.

    Args:
        train: 50,000 images.
        test: 10,000 images.

    Raises:
        DataError: a file cannot be read, or is not like this.
    """
    found = []
    for path in (train, test):
        try:
            table = pd.read_parquet(path, columns=["img", "fine_label"])
            content = [image["bytes"] for image in table["img"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} cannot be read as CIFAR-100 ({error}): it needs the columns img and fine_label."
            ) from error
        found.append(ColourImages(decode_images(content, str(path)), table["fine_label"].to_numpy(np.int64)))
    return found[0], found[1]
