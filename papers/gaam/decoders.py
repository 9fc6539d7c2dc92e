"""What follows the attention: the paper's convolutional decoder, and linear layers on one vector as simpler baselines."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad, relu

from common.errors import InputError

TAPS = tuple((i, j) for i in range(3) for j in range(3))


def picture(width: int) -> tuple[int, int]:
    """Height and width of the most square picture of `width` pixels, the height being the smaller one.

    1024 → 32 x 32 and 5120 → 64 x 80, as in the paper. (512 → 16 x 32; the paper has 8 x 64 for it.)
    """
    height = next(h for h in range(math.isqrt(width), 0, -1) if width % h == 0)
    return height, width // height


def _shifts(padded: Tensor, h: int, w: int) -> list[Tensor]:
    """The nine windows of a picture [..., h + 2, w + 2, C] that a 3 x 3 kernel reads."""
    return [padded[..., i : i + h, j : j + w, :] for i, j in TAPS]


def convolution_up(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3 x 3 convolution with padding 1 from few channels to many, as one product of matrices.

    `conv2d` of many networks side by side is a grouped convolution, which is slow.

    Args:
        x: [..., h, w, C], channels last.
        weight: [O, C, 3, 3].
        bias: [O].

    Returns:
        [..., h, w, O].
    """
    h, w = x.shape[-3:-1]
    patches = torch.cat(_shifts(pad(x, (0, 0, 1, 1, 1, 1)), h, w), dim=-1)
    return linear(patches, weight.permute(0, 2, 3, 1).flatten(1), bias)


def convolution_down(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same from many channels to few: all nine products first, then their shifted sum, which moves fewer numbers."""
    h, w = x.shape[-3:-1]
    O = weight.shape[0]  # noqa: E741  (output channels)
    taps = linear(x, weight.permute(2, 3, 0, 1).flatten(0, 2))  # [..., h, w, 9 O]
    shifted = _shifts(pad(taps, (0, 0, 1, 1, 1, 1)), h, w)
    return torch.stack([one[..., n * O : (n + 1) * O] for n, one in enumerate(shifted)]).sum(0) + bias


class ConvolutionalDecoder(nn.Module):
    """Layers as the channels of a picture: Conv(N → channels), ReLU, Conv(channels → N), ReLU, Linear(N d → classes).

    Args:
        N: layers.
        shape: height and width of the picture that a layer's features make.
        channels: of the hidden pictures (paper: 512).
        classes: of the result.
    """

    def __init__(self, N: int, shape: tuple[int, int], channels: int, classes: int):
        super().__init__()
        self.shape = shape
        self.up = nn.Conv2d(N, channels, 3, padding=1)
        self.down = nn.Conv2d(channels, N, 3, padding=1)
        self.classifier = nn.Linear(N * shape[0] * shape[1], classes)
        for layer in (self.up, self.down, self.classifier):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, C: Tensor) -> Tensor:
        """C [..., N, d] to logits [..., classes].

        Raises:
            InputError: d is not height times width.
        """
        if C.shape[-1] != math.prod(self.shape):
            raise InputError(f"{C.shape[-1]} features make no picture of {self.shape[0]} x {self.shape[1]}.")
        assert self.up.bias is not None and self.down.bias is not None
        pictures = C.unflatten(-1, self.shape).movedim(-3, -1)  # channels last
        hidden = relu(convolution_up(pictures, self.up.weight, self.up.bias))
        out = relu(convolution_down(hidden, self.down.weight, self.down.bias))
        return self.classifier(out.movedim(-1, -3).flatten(-3))


class LinearDecoder(nn.Module):
    """One vector from the layers, and a linear layer on it.

    Args:
        N: layers.
        d: features.
        classes: of the result.
        pooling: "last" takes the last layer (its mean over time, as a usual classifier does), "average" the mean of all
            layers, "weighted" a learned convex combination (softmax of N scalars that start equal).
    """

    def __init__(self, N: int, d: int, classes: int, pooling: str):
        super().__init__()
        if pooling not in ("last", "average", "weighted"):
            raise InputError(f"pooling is {pooling!r}; it may be 'last', 'average' or 'weighted'.")
        self.pooling = pooling
        if pooling == "weighted":
            self.weights = nn.Parameter(torch.zeros(N))
        self.classifier = nn.Linear(d, classes)
        nn.init.xavier_uniform_(self.classifier.weight)

    def forward(self, X: Tensor) -> Tensor:
        """X [..., N, d] to logits [..., classes]."""
        if self.pooling == "last":
            return self.classifier(X[..., -1, :])
        if self.pooling == "average":
            return self.classifier(X.mean(-2))
        return self.classifier((torch.softmax(self.weights, 0)[:, None] * X).sum(-2))
