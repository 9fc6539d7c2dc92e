"""The decoder (after the authors' code): merges gated maps from the deepest to the finest, then classifies every pixel.

    y = f_4'
    y = ReLU(upsample(BN(Conv1x1(y))) + f_i')      i = 3, 2, 1, 0
    logits = upsample(Conv1x1(Dropout(y)))         background, grounding

"upsample" is bilinear with align_corners=False, to the size of f_i' and at last of the image.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.training.counter_random import mixed_seed, uniform


def interpolation(size: int, target: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix [target, size] of linear interpolation with half-pixel centres: a row holds the weights of one new place.

    `torch.nn.functional.interpolate` does the same, but its gradient on a CUDA device differs from run to run.
    """
    place = ((torch.arange(target, device=device, dtype=torch.float32) + 0.5) * (size / target) - 0.5).clamp(0, size - 1)
    old = torch.arange(size, device=device, dtype=torch.float32)
    return (1 - (place[:, None] - old).abs()).clamp(min=0).to(dtype)


def upsample(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear interpolation of maps [B, C, h, w] to [B, C, height, width] by two products with `interpolation`."""
    rows = interpolation(x.shape[-2], height, dtype=x.dtype, device=x.device)
    columns = interpolation(x.shape[-1], width, dtype=x.dtype, device=x.device)
    return torch.matmul(rows, torch.matmul(x, columns.T))


class CountedDropout(nn.Module):
    """Dropout that draws from a counter, so that a captured step draws new numbers, the same on every machine.

    Args:
        share: of the elements set to 0; the others are divided by 1 - share.
        seed: of the draws.
    """

    seed: Tensor
    step: Tensor

    def __init__(self, share: float, seed: int):
        super().__init__()
        if not 0 <= share < 1:
            raise InputError(f"share is {share}; it lies in 0..1, without 1.")
        self.share = share
        self.register_buffer("seed", torch.tensor(seed, dtype=torch.int64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; in evaluation mode x as it is."""
        if not self.training or not self.share:
            return x
        self.step.add_(1)
        kept = uniform(mixed_seed(self.seed, self.step), *x.shape) >= self.share
        return x * kept.to(x.dtype) / (1 - self.share)


class Decoder(nn.Module):
    """See the file.

    Args:
        channels: of the maps f_0 (finest) to f_4.
        dropout: share of y that is dropped before the classifier.
        seed: of the dropout.
        classes: of a pixel.
    """

    def __init__(self, channels: Sequence[int], *, dropout: float, seed: int, classes: int = 2):
        super().__init__()
        self.merges = nn.ModuleList(
            nn.Sequential(nn.Conv2d(deep, fine, 1, bias=False), nn.BatchNorm2d(fine)) for fine, deep in pairwise(channels)
        )
        self.dropout = CountedDropout(dropout, seed)
        self.classify = nn.Conv2d(channels[0], classes, 1)

    def forward(self, maps: Sequence[Tensor], height: int, width: int) -> Tensor:
        """Gated maps [B, C_i, h_i, w_i] to logits float32 [B, classes, height, width].

        Raises:
            InputError: there are not as many maps as channels were given.
        """
        if len(maps) != len(self.merges) + 1:
            raise InputError(f"{len(maps)} maps for a decoder of {len(self.merges) + 1}; give one for each of its channels.")
        y = maps[-1]
        for i in reversed(range(len(self.merges))):
            y = torch.relu(upsample(self.merges[i](y), *maps[i].shape[-2:]) + maps[i])
        y = self.classify(self.dropout(y)).float()
        with torch.autocast(y.device.type, enabled=False):
            return upsample(y, height, width)
