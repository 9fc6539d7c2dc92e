"""Paints the scenes of EmojiGround, many at once on any device."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

from common.errors import InputError
from papers.sentence_attention.emoji_ground import SLOTS, Scenes

ON_TILE = 0.85
"""Side of a drawing over that of its tile, so that a turned drawing stays on it."""
AT_ONCE = 256


@dataclass(frozen=True)
class Painted:
    """Images, and whose pixels are whose.

    Attributes:
        images: uint8 [N, 3, H, W].
        slots: uint8 [N, H, W]: 1 + the slot whose drawing covers the pixel by more than half, 0 elsewhere.
    """

    images: Tensor
    slots: Tensor


def mask_of(slots: Tensor, targets: Tensor) -> Tensor:
    """The masks of questions.

    Args:
        slots: uint8 [..., H, W] of `Painted`.
        targets: int64 [...], one bit a slot that belongs to the mask.

    Returns:
        bool [..., H, W].
    """
    bits = (targets << 1)[..., None, None]
    return (bits >> slots.long()) & 1 == 1


def target_bits(scenes: Scenes) -> np.ndarray:
    """int64 [N, Q]: one bit a slot of the question's mask."""
    return np.array([[sum(1 << slot for slot in q.targets) for q in asked] for asked in scenes.questions], dtype=np.int64)


def _prepared(pixels: np.ndarray, canvas: int, device: str) -> Tensor:
    """Drawings with colours times alpha, [objects, 4, side, side] in 0..1; averaged to about their size on the canvas."""
    rgba = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
    premultiplied = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)
    factor = max(1, round(rgba.shape[-1] / (canvas / 3 * 0.8)))
    return avg_pool2d(premultiplied, factor)


def _paint(scenes: dict[str, Tensor], drawings: Tensor, canvas: int) -> Painted:
    N, device = len(scenes["labels"]), drawings.device
    place = (torch.arange(canvas, device=device) + 0.5) / canvas
    image = scenes["background"][:, :, None, None] + scenes["gradients"][:, None, None, None] * (place[:, None] - 0.5) * 2
    image = image + interpolate(scenes["noise"][:, None], size=(canvas, canvas), mode="bilinear", align_corners=True)
    slots = torch.zeros(N, canvas, canvas, dtype=torch.uint8, device=device)
    for slot in range(SLOTS):
        labels, centre, size = scenes["labels"][:, slot], scenes["centres"][:, slot], scenes["sizes"][:, slot].clamp(min=0.01)
        used = (labels >= 0)[:, None, None]
        inside = [(place - centre[:, axis : axis + 1]).abs() <= size[:, None] / 2 for axis in (0, 1)]
        tile = inside[1][:, :, None] & inside[0][:, None, :] & used
        # From the canvas, in -1..1, to the drawing: shift to the centre, turn back, flip, and stretch to its side.
        angle = torch.deg2rad(scenes["angles"][:, slot])
        stretch = 1 / (size * ON_TILE)
        flip = torch.where(scenes["flips"][:, slot], -1.0, 1.0)
        turn = torch.stack([angle.cos() * flip, angle.sin() * flip, -angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
        turn = turn * stretch[:, None, None]
        shift = -torch.matmul(turn, (2 * centre - 1)[:, :, None])
        grid = affine_grid(torch.cat([turn, shift], dim=2), [N, 4, canvas, canvas], align_corners=False)
        drawing = grid_sample(drawings[labels.clamp(min=0)], grid, align_corners=False)
        drawing = drawing * tile[:, None]
        alpha = drawing[:, 3:]
        coloured = scenes["tiles"][:, slot][:, :, None, None]
        image = torch.where(tile[:, None], coloured * (1 - alpha) + 255 * drawing[:, :3], image)
        slots = torch.where(alpha[:, 0] > 0.5, torch.tensor(slot + 1, dtype=torch.uint8, device=device), slots)
    return Painted(image.clamp(0, 255).round().to(torch.uint8), slots)


@torch.inference_mode()
def paint(scenes: Scenes, pixels: np.ndarray, canvas: int, device: str) -> Painted:
    """Paint all scenes.

    Args:
        scenes: of `emoji_ground`.
        pixels: uint8 [objects, 64, 64, 4], the drawings of the style wanted.
        canvas: side of the image in pixels.
        device: where to.

    Raises:
        InputError: the canvas is too small for a grid of 3x3 objects.
    """
    if canvas < 32:
        raise InputError(f"canvas is {canvas} pixels; at least 32 are needed.")
    drawings = _prepared(pixels, canvas, device)
    names = ("labels", "centres", "sizes", "flips", "angles", "tiles", "background", "gradients", "noise")
    tensors = {name: torch.from_numpy(getattr(scenes, name)) for name in names}
    parts = []
    for start in range(0, len(scenes), AT_ONCE):
        parts.append(_paint({name: x[start : start + AT_ONCE].to(device) for name, x in tensors.items()}, drawings, canvas))
    return Painted(torch.cat([part.images for part in parts]), torch.cat([part.slots for part in parts]))
