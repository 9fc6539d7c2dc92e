"""The whole network: normalisation, backbone, gates, decoder."""

from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import InputError
from papers.sentence_attention.backbones import SOURCES
from papers.sentence_attention.decoder import Decoder
from papers.sentence_attention.other_gates import Text

Normalisation = Literal["instance", "imagenet"]


class FixedNormalisation(nn.Module):
    """(x - mean) / deviation of the backbone's original training.

    Args:
        backbone: a name of `SOURCES`; the first one's numbers for others.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, backbone: str):
        super().__init__()
        source = SOURCES.get(backbone, next(iter(SOURCES.values())))
        self.register_buffer("mean", torch.tensor(source.mean)[:, None, None])
        self.register_buffer("deviation", torch.tensor(source.deviation)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """[S, 3, H, W] in 0..255."""
        return (x - self.mean) / self.deviation


class Grounder(nn.Module):
    """Image and sentence to a mask.

    Args:
        backbone: of `backbones.make_backbone`.
        gates: of `variants.make_gates`.
        decoder: of the backbone's channels.
        normalisation: "instance" as the authors' code: each image by its own mean and deviation in training, by running ones in
            evaluation; "imagenet": always that of the backbone's original training.
        backbone_name: for "imagenet".
    """

    def __init__(
        self, backbone: nn.Module, gates: nn.Module, decoder: Decoder, *, normalisation: Normalisation, backbone_name: str
    ):
        super().__init__()
        instance = nn.InstanceNorm2d(3, affine=False, track_running_stats=True)
        self.normalise = instance if normalisation == "instance" else FixedNormalisation(backbone_name)
        self.backbone, self.gates, self.decoder = backbone, gates, decoder

    def forward(self, images: Tensor, text: Text) -> Tensor:
        """Logits for every sentence of every image. The backbone does not read text, so that an image passes it once.

        Args:
            images: [S, 3, H, W], values 0..255.
            text: of B = S Q sentences, those of an image one after the other.

        Returns:
            float32 [B, 2, H, W]: background, grounding.

        Raises:
            InputError: the number of sentences is no multiple of that of images.
        """
        S, B = len(images), len(text.vectors)
        if B % S:
            raise InputError(f"{B} sentences for {S} images; give every image the same number of them.")
        with torch.autocast(images.device.type, enabled=False):
            x = self.normalise(images.float())
        maps = self.backbone(x.contiguous(memory_format=torch.channels_last))
        if B > S:
            maps = [f[:, None].expand(S, B // S, *f.shape[1:]).flatten(0, 1) for f in maps]
        return self.decoder(self.gates(maps, text), *images.shape[-2:])
