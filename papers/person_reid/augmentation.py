"""Training images of the bag of tricks, on the device of the images: pad and crop, flip, random erasing, normalisation.

Random numbers come from a counter, so that a step draws the same ones on every device and may be captured in a CUDA graph.
"""

import math

import torch
from torch import Tensor

from common.training.counter_random import mixed_seed, uniform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for intensities in 0..1
FLIP, ERASE = 0.5, 0.5  # probabilities
AREA, RATIO = (0.02, 0.33), (0.3, 3.3)  # of an erased rectangle: share of the image, height over width
ATTEMPTS = 10  # to find a rectangle that lies in the image


def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """[channels, 1, 1], filled on the device: a captured step may copy nothing from the CPU."""
    return torch.stack([torch.full((), value, device=device) for value in values])[:, None, None]


def normalised(images: Tensor) -> Tensor:
    """float32 images of mean 0 and deviation 1 over ImageNet, from [B, 3, H, W] in 0..255; channels last."""
    mean, std = (_per_channel(values, images.device) for values in (MEAN, STD))
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def augmented(images: Tensor, seed: Tensor, padding: int) -> Tensor:
    """Training images.

    Args:
        images: uint8 [B, 3, H, W].
        seed: int64 without dimensions, of this batch.
        padding: zeros on each side before a random crop of H x W.

    Returns:
        float32 [B, 3, H, W], normalised.
    """
    B, _, H, W = images.shape
    device = images.device
    draws = uniform(mixed_seed(seed, 0), 3, B)
    down, along = ((draws[k] * (2 * padding + 1)).long() for k in (0, 1))
    columns = torch.arange(W, device=device).expand(B, W)
    columns = torch.where((draws[2] < FLIP)[:, None], W - 1 - columns, columns) + along[:, None]
    rows = torch.arange(H, device=device) + down[:, None]
    padded = torch.nn.functional.pad(images, [padding] * 4)
    number, channel = torch.arange(B, device=device)[:, None, None, None], torch.arange(3, device=device)[None, :, None, None]
    cropped = padded[number, channel, rows[:, None, :, None], columns[:, None, None, :]].float()
    mean = 255 * _per_channel(MEAN, device)
    return normalised(torch.where(erased(B, H, W, mixed_seed(seed, 1))[:, None], mean, cropped))


def erased(B: int, H: int, W: int, seed: Tensor) -> Tensor:
    """Where random erasing takes pixels away, bool [B, H, W] (Zhong et al., 2020): torchvision's rules.

    Of ten rectangles the first that is smaller than the image counts; where there is none, nothing is erased.
    """
    draws = uniform(seed, 4, ATTEMPTS, B)
    area = H * W * (AREA[0] + (AREA[1] - AREA[0]) * draws[0])
    ratio = torch.exp(math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * draws[1])
    tall, wide = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (tall < H) & (wide < W)
    chosen = fits.int().argmax(dim=0, keepdim=True)  # the first that fits
    tall, wide, place = (x.gather(0, chosen)[0] for x in (tall, wide, draws[2]))
    top, left = (place * (H - tall + 1)).floor(), (draws[3].gather(0, chosen)[0] * (W - wide + 1)).floor()
    happens = fits.any(dim=0) & (uniform(mixed_seed(seed, 1), B) < ERASE)
    y, x = torch.arange(H, device=seed.device)[:, None], torch.arange(W, device=seed.device)
    top, left, tall, wide = (value[:, None, None] for value in (top, left, tall, wide))
    return (y >= top) & (y < top + tall) & (x >= left) & (x < left + wide) & happens[:, None, None]
