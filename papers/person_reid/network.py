"""The network of the bag of tricks (Luo et al., CVPRW 2019) with attention at chosen positions of a ResNet.

    x [B, 3, H, W] -> ResNet, last stride 1 -> f = mean over positions -> f_bn = BN(f), bias frozen at 0 -> logits = W f_bn

The triplet loss reads f, the identity loss the logits; tests compare f_bn by cosine. A position is (stage, block), both from 1:
its attention comes after the residual sum and ReLU of that block.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from common.configuration import Parameters
from common.errors import InputError
from papers.person_reid.blocks import BlockName, make_block

Position = tuple[int, int]
Depth = Literal["resnet18", "resnet34", "resnet50", "resnet101"]
BLOCKS: Mapping[str, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
STRIDES = (1, 2, 2, 1)  # the last stage keeps the size of its input


class Backbone(Parameters):
    """Which ResNet.

    Attributes:
        depth: its name.
        width: channels of the first stage before expansion; 64 in the literature.
        size: height and width of images, multiples of 16.
        reduction: of the spatial gate of `little`.
    """

    depth: Depth
    width: int
    size: tuple[int, int]
    reduction: int = 16


class ReidNetwork(nn.Module):
    """ResNet, attention, neck and classifier. Names of parameters of the ResNet are torchvision's.

    Args:
        backbone: which ResNet.
        attention: position -> block after it.
        identities: to classify in training.

    Raises:
        InputError: a position does not exist, or the size does not divide.
    """

    def __init__(self, backbone: Backbone, attention: Mapping[Position, BlockName], identities: int):
        super().__init__()
        block, counts = BLOCKS[backbone.depth]
        if any(side % 16 for side in backbone.size):
            raise InputError(f"size is {list(backbone.size)}; height and width must be multiples of 16.")
        positions = {(stage, number) for stage, count in enumerate(counts, 1) for number in range(1, count + 1)}
        if unknown := sorted(set(attention) - positions):
            raise InputError(f"{backbone.depth} has no position {unknown[0]}; its stages have {counts} blocks.")
        width = backbone.width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.attention = nn.ModuleDict()
        inplanes, places = width, backbone.size[0] * backbone.size[1] // 16
        sizes: dict[int, tuple[int, int]] = {}  # stage -> channels, positions
        for stage, (count, stride) in enumerate(zip(counts, STRIDES, strict=True), start=1):
            planes = width * 2 ** (stage - 1)
            places //= stride * stride
            layers: list[nn.Module] = []
            for number in range(count):
                step = stride if number == 0 else 1
                shortcut = None
                if step != 1 or inplanes != planes * block.expansion:
                    shortcut = nn.Sequential(
                        conv1x1(inplanes, planes * block.expansion, step), nn.BatchNorm2d(planes * block.expansion)
                    )
                layers.append(block(inplanes, planes, step, shortcut))
                inplanes = planes * block.expansion
            sizes[stage] = inplanes, places
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.features = inplanes
        self.neck = nn.BatchNorm1d(inplanes)
        self.neck.bias.requires_grad_(False)
        self.classifier = nn.Linear(inplanes, identities, bias=False)
        self._initialise()
        # Attention is made last, so that networks of one seed share the parameters of their backbone.
        for (stage, number), name in sorted(attention.items()):
            self.attention[f"{stage}_{number}"] = make_block(name, *sizes[stage], backbone.reduction)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.01)

    def maps(self, x: Tensor) -> Tensor:
        """Feature maps [B, features, H/16, W/16] of normalised images [B, 3, H, W]."""
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        for stage in range(1, 5):
            layers = self.get_submodule(f"layer{stage}")
            assert isinstance(layers, nn.Sequential)
            for number, layer in enumerate(layers, start=1):
                x = layer(x)
                if (name := f"{stage}_{number}") in self.attention:
                    x = self.attention[name](x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Features to compare, f_bn [B, features], of normalised images [B, 3, H, W]."""
        return self.neck(self.maps(x).mean(dim=(2, 3)))

    def for_training(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """F [B, features] and logits [B, identities]."""
        f = self.maps(x).mean(dim=(2, 3))
        return f, self.classifier(self.neck(f))
