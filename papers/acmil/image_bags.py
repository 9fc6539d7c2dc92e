"""Bags of Fashion-MNIST images, built as MNIST-bags (Ilse et al., 2018): positive where an ankle boot is among them."""

import numpy as np
import sklearn
import torch
from sklearn.decomposition import PCA

from common.data.bags import Bags
from common.data.fashion_mnist import Images, load_fashion_mnist
from common.data.feature_cache import cached_features
from common.data.fetch import digests
from common.errors import InputError
from common.training import derived_seed

WITNESS = 9
"""The class that makes a bag positive: ankle boot."""


def image_features(components: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of training and test images, fitted on the training images; kept on disk by their content.

    Args:
        components: features of an image.

    Returns:
        float32 [12000, components] and [3000, components].
    """

    def make() -> dict[str, torch.Tensor]:
        train, test = (images.pixels.reshape(len(images.pixels), -1) / 255.0 for images in load_fashion_mnist())
        fitted = PCA(components, svd_solver="full").fit(train)
        parts = {"train": fitted.transform(train), "test": fitted.transform(test)}
        return {name: torch.from_numpy(part.astype(np.float32)) for name, part in parts.items()}

    content = {"kind": "principal components", "data": digests("fashion-mnist"), "components": components}
    found = cached_features({**content, "scikit-learn": sklearn.__version__}, make)
    return found["train"].numpy(), found["test"].numpy()


def draw_image_bags(
    features: np.ndarray, classes: np.ndarray, count: int, seed: int, *, mean_size: float, spread: float, most_witnesses: int
) -> Bags:
    """Bags of images drawn without replacement within a bag; every second bag is positive.

    Args:
        features: [images, d].
        classes: int64 [images].
        count: bags.
        seed: of the draws.
        mean_size: of the normal distribution of sizes.
        spread: its standard deviation.
        most_witnesses: a positive bag holds 1 to that many witnesses, each number as likely.

    Raises:
        InputError: a bag would need more images than there are.
    """
    generator = np.random.default_rng(derived_seed(seed, "image bags"))
    witnesses, others = np.flatnonzero(classes == WITNESS), np.flatnonzero(classes != WITNESS)
    sizes = np.maximum(generator.normal(mean_size, spread, count).round().astype(int), most_witnesses + 1)
    if sizes.max() > len(others) or most_witnesses > len(witnesses):
        raise InputError(
            f"A bag of {sizes.max()} images with up to {most_witnesses} witnesses needs more than the {len(others)} others and "
            f"{len(witnesses)} witnesses there are; make bags smaller."
        )
    rows = []
    for number, size in enumerate(sizes):
        held = int(generator.integers(1, most_witnesses + 1)) if number % 2 else 0
        chosen = [generator.choice(witnesses, held, replace=False), generator.choice(others, size - held, replace=False)]
        rows.append(generator.permutation(np.concatenate(chosen)))
    every = np.concatenate(rows)
    return Bags(
        features[every],
        np.concatenate([[0], np.cumsum(sizes)]),
        np.arange(count) % 2,
        (classes[every] == WITNESS).astype(np.int64),
    )


def generated_images(count: int, seed: int) -> Images:
    """Images of ten blurred patterns, for scale smoke: uint8 [count, 28, 28]."""
    generator = np.random.default_rng(derived_seed(seed, "images"))
    patterns = np.random.default_rng(0).uniform(0, 200, (10, 28, 28))
    classes = np.arange(count) % 10
    return Images((patterns[classes] + generator.uniform(0, 55, (count, 28, 28))).astype(np.uint8), classes)
