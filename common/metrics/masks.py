"""Overlap of binary masks, in both conventions that are in use."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.errors import InputError


class Overlap(NamedTuple):
    """Counts of pixels, int64 [n], one number an image.

    Attributes:
        intersection: in both masks.
        union: in one of them at least.
    """

    intersection: Tensor
    union: Tensor


def overlap(predicted: Tensor, target: Tensor, valid: Tensor | None = None) -> Overlap:
    """Count pixels of masks.

    Args:
        predicted: bool [n, H, W].
        target: bool [n, H, W].
        valid: bool [n, H, W]; pixels where it is False, such as padding, count nowhere. None: all count.

    Raises:
        InputError: shapes or dtypes differ from these.
    """
    for name, mask in (("predicted", predicted), ("target", target), ("valid", valid)):
        if mask is not None and (mask.dtype != torch.bool or mask.ndim != 3 or mask.shape != target.shape):
            raise InputError(f"{name} is {mask.dtype} {tuple(mask.shape)}; expected torch.bool [n, H, W], all of one shape.")
    both, either = predicted & target, predicted | target
    if valid is not None:
        both, either = both & valid, either & valid
    return Overlap(both.sum((1, 2)), either.sum((1, 2)))


def iou_of_each(counts: Overlap) -> np.ndarray:
    """Intersection over union of every image, float64 [n]; two empty masks agree: 1."""
    intersection, union = (x.cpu().numpy().astype(np.float64) for x in counts)
    return np.where(union > 0, intersection / np.maximum(union, 1), 1.0)


def mean_iou(counts: Overlap) -> float:
    """The mean over images of their intersection over union: the convention of the VizWiz challenge. NaN without images."""
    return float(iou_of_each(counts).mean())


def cumulative_iou(counts: Overlap) -> float:
    """Intersection of all images over union of all images: large masks count more. 1 where all masks are empty."""
    union = int(counts.union.sum())
    return int(counts.intersection.sum()) / union if union else 1.0
