"""Photographs for training and testing, after the authors' training code of the follow-up paper.

A label is 0 background, 1 grounding, 2 ignored: padding, which counts neither in the loss nor in the metric.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from common.errors import InputError

IGNORED = 2
ROTATION, SHEAR, TRANSLATION = 10.0, 0.1, 1 / 6
"""Constant magnitudes, always of this sign, as in the code."""


@dataclass(frozen=True)
class Labelled:
    """A photograph and its label.

    Attributes:
        pixels: uint8 [3, H, W].
        label: uint8 [H, W].
    """

    pixels: Tensor
    label: Tensor


def labelled(pixels: np.ndarray, mask: np.ndarray) -> Labelled:
    """From uint8 [H, W, 3] and bool [H, W]. Raises InputError where the sizes differ."""
    if pixels.shape[:2] != mask.shape:
        raise InputError(f"The photograph is {pixels.shape[:2]} and the mask {mask.shape}; give both the same size.")
    return Labelled(torch.from_numpy(pixels.copy()).permute(2, 0, 1), torch.from_numpy(mask.astype(np.uint8)))


def _moved(one: Labelled, *, shear: tuple[float, float] = (0, 0), shift: tuple[float, float] = (0, 0)) -> Labelled:
    height, width = one.label.shape
    arguments = {
        "angle": 0.0,
        "translate": [round(shift[0] * width), round(shift[1] * height)],
        "scale": 1.0,
        "shear": [float(np.degrees(np.arctan(x))) for x in shear],
    }
    pixels = functional.affine(one.pixels, **arguments, interpolation=InterpolationMode.BILINEAR)
    label = functional.affine(one.label[None], **arguments, interpolation=InterpolationMode.NEAREST, fill=[IGNORED])
    return Labelled(pixels, label[0])


def _rotated(one: Labelled) -> Labelled:
    pixels = functional.rotate(one.pixels, ROTATION, interpolation=InterpolationMode.BILINEAR, expand=True)
    label = functional.rotate(one.label[None], ROTATION, interpolation=InterpolationMode.NEAREST, expand=True, fill=[IGNORED])
    return Labelled(pixels, label[0])


OPERATIONS = (
    lambda one: one,
    lambda one: Labelled(functional.autocontrast(one.pixels), one.label),
    lambda one: Labelled(functional.adjust_sharpness(one.pixels, 1.3), one.label),
    _rotated,
    lambda one: _moved(one, shear=(SHEAR, 0)),
    lambda one: _moved(one, shear=(0, SHEAR)),
    lambda one: _moved(one, shift=(TRANSLATION, 0)),
    lambda one: _moved(one, shift=(0, TRANSLATION)),
)


def resized(one: Labelled, longer: int) -> Labelled:
    """With a longer side of so many pixels; the label by nearest neighbour."""
    height, width = one.label.shape
    size = [max(1, round(side * longer / max(height, width))) for side in (height, width)]
    pixels = functional.resize(one.pixels, size, antialias=True)
    label = functional.resize(one.label[None], size, interpolation=InterpolationMode.NEAREST)
    return Labelled(pixels, label[0])


def placed(one: Labelled, side: int, left: float, top: float) -> Labelled:
    """On a square: padded where it is smaller, cropped where it is larger.

    Args:
        one: any size.
        side: of the square.
        left: share of the free, or the cropped, columns that are on the left, 0..1.
        top: likewise of rows.
    """
    pixels = torch.zeros(3, side, side, dtype=torch.uint8)
    label = torch.full((side, side), IGNORED, dtype=torch.uint8)
    spans = []
    for size, share in zip(one.label.shape, (top, left), strict=True):
        inner, free = min(size, side), abs(side - size)
        start = round(share * free)
        outer, whole = slice(start, start + inner), slice(0, inner)
        spans.append((outer, whole) if size < side else (whole, outer))
    (rows, from_rows), (columns, from_columns) = spans
    pixels[:, rows, columns] = one.pixels[:, from_rows, from_columns]
    label[rows, columns] = one.label[from_rows, from_columns]
    return Labelled(pixels, label)


def for_training(one: Labelled, side: int, generator: np.random.Generator) -> Labelled:
    """Two random operations, a random size (longer side 2/3 to 8/3 of `side`), random pad and crop to `side`, random flip."""
    for number in generator.integers(len(OPERATIONS), size=2):
        one = OPERATIONS[int(number)](one)
    one = resized(one, int(generator.integers(side * 2 // 3, side * 8 // 3 + 1)))
    one = placed(one, side, float(generator.random()), float(generator.random()))
    return Labelled(one.pixels.flip(2), one.label.flip(1)) if generator.random() < 0.5 else one


def for_testing(one: Labelled, side: int) -> Labelled:
    """Longer side `side`, in the middle of a square of that side."""
    return placed(resized(one, side), side, 0.5, 0.5)
