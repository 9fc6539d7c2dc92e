"""A small vision transformer, pretrained by filling in masked patches: the frozen encoder of images.

The paper takes BEiT-Large, which predicts tokens of masked patches; here pixels are predicted (as in SimMIM, Xie et al., 2022),
without any label. The hidden states after each block are averaged over patches.
"""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from common.configuration import Parameters
from common.errors import InputError
from common.experiment import Context
from common.training import CurveRow, Recipe, Replica, derived_seed, evenly_spaced, train
from common.training.counter_random import mixed_seed, uniform


class VisionSizes(Parameters):
    """Of the transformer.

    Attributes:
        layers: blocks, N.
        width: d.
        heads: of attention; they divide d.
        patch: side of a patch in pixels.
        masked: share of patches that are masked in training.
    """

    layers: int = Field(ge=2)
    width: int = Field(ge=1)
    heads: int = Field(ge=1)
    patch: int = Field(ge=1)
    masked: float = Field(gt=0, lt=1)


def patches_of(images: Tensor, patch: int) -> Tensor:
    """Images uint8 [B, H, W, C] to standardised patches float32 [B, (H / patch) (W / patch), patch² C].

    Raises:
        InputError: the patch does not divide height and width.
    """
    _, H, W, _ = images.shape
    if H % patch or W % patch:
        raise InputError(f"Patches of {patch} pixels do not divide images of {H} x {W}.")
    x = images.float() / 127.5 - 1
    return (
        x.unflatten(2, (W // patch, patch)).unflatten(1, (H // patch, patch)).permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
    )


class VisionTransformer(nn.Module):
    """Pre-norm transformer on patches.

    Args:
        sizes: of it.
        patches: number in an image.
        values: of a patch.
    """

    def __init__(self, sizes: VisionSizes, patches: int, values: int):
        super().__init__()
        self.sizes = sizes
        self.embed = nn.Linear(values, sizes.width)
        self.positions = nn.Parameter(0.02 * torch.randn(patches, sizes.width))
        self.mask_token = nn.Parameter(0.02 * torch.randn(sizes.width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                sizes.width, sizes.heads, 4 * sizes.width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(sizes.layers)
        )
        self.normalisation = nn.LayerNorm(sizes.width)
        self.predict = nn.Linear(sizes.width, values)

    def hidden_states(self, x: Tensor, masked: Tensor | None = None) -> list[Tensor]:
        """States after each block, [B, patches, d] each: patches [B, patches, values], masked bool [B, patches] or None."""
        h = self.embed(x)
        if masked is not None:
            h = torch.where(masked[..., None], self.mask_token.to(h.dtype), h)
        h = h + self.positions
        found = []
        for block in self.blocks:
            h = block(h)
            found.append(h)
        return found

    def forward(self, x: Tensor, masked: Tensor) -> Tensor:
        """Patches filled in, [B, patches, values]."""
        return self.predict(self.normalisation(self.hidden_states(x, masked)[-1]))


class _Pretraining(nn.Module):
    """The network, and the counter from which masks are drawn."""

    seed: Tensor
    step: Tensor

    def __init__(self, network: VisionTransformer, seed: int):
        super().__init__()
        self.network = network
        self.register_buffer("seed", torch.tensor(derived_seed(seed, "masks")))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def loss(self, images: Tensor) -> Tensor:
        self.step.add_(1)
        sizes = self.network.sizes
        x = patches_of(images, sizes.patch)
        masked = uniform(mixed_seed(self.seed, self.step), *x.shape[:2]) < sizes.masked
        error = (self.network(x, masked).float() - x).abs().mean(-1)
        return (error * masked).sum() / masked.sum().clamp(min=1)


def _loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    assert isinstance(network, _Pretraining)
    return network.loss(batch[0])


def make_vision_transformer(sizes: VisionSizes, image_shape: tuple[int, int, int], seed: int) -> VisionTransformer:
    """A network with random weights for images [H, W, C]."""
    H, W, C = image_shape
    with torch.random.fork_rng([]):
        torch.manual_seed(derived_seed(seed, "vision"))
        return VisionTransformer(sizes, (H // sizes.patch) * (W // sizes.patch), sizes.patch**2 * C)


def pretrain(
    images: np.ndarray, sizes: VisionSizes, recipe: Recipe, epochs: int, seed: int, context: Context
) -> tuple[VisionTransformer, list[CurveRow]]:
    """Train on images without labels.

    Args:
        images: uint8 [images, H, W, C].
        sizes: of the network.
        recipe: how to optimise.
        epochs: passes over the images.
        seed: of parameters, order and masks.
        context: of the cell.

    Returns:
        The network in evaluation mode, and the learning curve: mean absolute error of masked patches.
    """
    network = make_vision_transformer(sizes, images.shape[1:], seed)
    training = _Pretraining(network, seed).to(context.device)
    data = torch.from_numpy(images).to(context.device)
    steps = epochs * (len(images) // recipe.batch_size)
    replica = Replica(
        "vision", training, recipe, loss=_loss, buckets={0: (data,)}, steps=steps, order_seed=derived_seed(seed, "order"),
        curve_steps=evenly_spaced(steps, 20),
    )  # fmt: skip
    curves = train([replica], checkpoints=context.checkpoints, name="vision", progress=context.progress(steps))
    return network.eval(), curves["vision"]


@torch.inference_mode()
def vision_layers(network: VisionTransformer, images: np.ndarray, device: str, batch_size: int = 512) -> Tensor:
    """Mean over patches of the hidden states of each block: uint8 [images, H, W, C] to float32 [images, N, d] on the CPU."""
    torch.nn.Module.to(network, device)
    found = []
    for start in range(0, len(images), batch_size):
        x = patches_of(torch.from_numpy(images[start : start + batch_size]).to(device), network.sizes.patch)
        found.append(torch.stack([h.mean(1) for h in network.hidden_states(x)], dim=1).float().cpu())
    return torch.cat(found)
