"""Fashion-MNIST (Xiao et al., 2017): the first 1,200 training and 300 test images of each of its ten classes."""

from dataclasses import dataclass

import numpy as np

from common.data.fetch import fetch

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@dataclass(frozen=True)
class Images:
    """Images with their classes.

    Attributes:
        pixels: uint8 [images, 28, 28].
        classes: int64 [images], numbers in `CLASSES`.
    """

    pixels: np.ndarray
    classes: np.ndarray


def load_fashion_mnist() -> tuple[Images, Images]:
    """Training and test images. Raises DataError when the file cannot be had."""
    with np.load(fetch("fashion-mnist", "fashion_mnist_12k3k.npz"), allow_pickle=False) as content:
        train, test = (Images(content[f"x_{part}"], content[f"y_{part}"].astype(np.int64)) for part in ("train", "test"))
    return train, test
