"""Small texts, recordings and images made by a rule, for scale smoke: every part runs, no number means anything."""

import numpy as np

from common.data.cifar100 import ColourImages
from common.data.news import News

CLASSES = 4
WORDS = (("river", "harvest"), ("goal", "referee"), ("market", "profit"), ("rocket", "telescope"))
COMMON = ("the", "a", "new", "old", "of", "and", "today", "report")
RATE = 16_000


def generated_news(samples: int, seed: int) -> News:
    """Texts of common words and some of their class, in five folds."""
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % CLASSES
    texts = tuple(
        " ".join(rng.permutation([*rng.choice(COMMON, 6), *rng.choice(WORDS[label], 2)]).tolist()) for label in labels
    )
    return News(texts, labels.astype(np.int64), (np.arange(samples) // CLASSES % 5).astype(np.int64), folds=True)


def generated_waves(samples: int, seed: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Tones in noise, one pitch a class: float32 vectors of about half a second, labels and folds int64."""
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % CLASSES
    waves = []
    for label in labels:
        time = np.arange(rng.integers(RATE // 3, RATE // 2)) / RATE
        tone = np.sin(2 * np.pi * 200 * 2**label * time)
        waves.append((0.3 * tone + 0.1 * rng.standard_normal(len(time))).astype(np.float32))
    return waves, labels.astype(np.int64), (np.arange(samples) // CLASSES % 5).astype(np.int64)


def generated_images(samples: int, seed: int, side: int = 8) -> ColourImages:
    """Noise with one bright quarter, whose place is the class: uint8 [samples, side, side, 3]."""
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % CLASSES
    pixels = rng.integers(0, 128, (samples, side, side, 3))
    half = side // 2
    for image, label in zip(pixels, labels, strict=True):
        i, j = divmod(int(label), 2)
        image[i * half : (i + 1) * half, j * half : (j + 1) * half] += 96
    return ColourImages(pixels.astype(np.uint8), labels.astype(np.int64))
