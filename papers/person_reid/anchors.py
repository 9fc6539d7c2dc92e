"""What FigReID gives to methods that learn nothing: pixels, pixels less their camera's mean, colours of stripes."""

import numpy as np
import torch
from matplotlib.colors import rgb_to_hsv
from torch import Tensor

from papers.person_reid.training import Trial

STRIPES, HUES, SATURATIONS, VALUES = 8, 8, 4, 4


def pixel_features(images: Tensor) -> Tensor:
    """Intensities of uint8 [B, 3, H, W] as float32 [B, 3 H W]."""
    return images.flatten(1).float() / 255


def camera_centred(features: tuple[Tensor, Tensor], cameras: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Features of queries and gallery, [n, d] each, less the mean over all images of their camera."""
    both, camera = torch.cat(features), torch.cat(cameras)
    centred = both.clone()
    for number in camera.unique():
        own = camera == number
        centred[own] -= both[own].mean(dim=0)
    return centred[: len(features[0])], centred[len(features[0]) :]


def stripe_histograms(images: Tensor) -> Tensor:
    """Histograms of hue, saturation and value in eight horizontal stripes: uint8 [B, 3, H, W] to float32 [B, 8 · 16]."""
    hsv = rgb_to_hsv(images.cpu().numpy().transpose(0, 2, 3, 1) / 255)
    found = []
    for stripe in np.array_split(hsv, STRIPES, axis=1):
        for channel, bins in enumerate((HUES, SATURATIONS, VALUES)):
            numbers = np.minimum((stripe[..., channel] * bins).astype(int), bins - 1).reshape(len(hsv), -1)
            found.append(np.stack([(numbers == k).mean(axis=1) for k in range(bins)], axis=1))
    return torch.from_numpy(np.concatenate(found, axis=1)).float().to(images.device)


def anchor_features(trial: Trial, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> features of queries and gallery; `chance` are random numbers."""
    generator = torch.Generator().manual_seed(seed)
    pixels = pixel_features(trial.query), pixel_features(trial.gallery)
    return {
        "chance": (
            torch.randn(len(trial.query), 64, generator=generator).to(trial.query.device),
            torch.randn(len(trial.gallery), 64, generator=generator).to(trial.query.device),
        ),
        "stripes": (stripe_histograms(trial.query), stripe_histograms(trial.gallery)),
        "pixels": pixels,
        "camera_centred_pixels": camera_centred(pixels, trial.cameras),
    }
