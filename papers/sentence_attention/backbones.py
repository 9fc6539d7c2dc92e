"""Backbones of timm whose maps are tapped, with ImageNet weights from Python packages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from common.data.fetch import fetch
from common.errors import ConfigError, DataError

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Source:
    """Weights of a backbone in the registry, in the order of timm's own state.

    Attributes:
        dataset: in the registry; one file.
        mean: of a pixel in 0..255, three channels, in the original training.
        deviation: likewise.
    """

    dataset: str
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


_LITE = {"mean": (127.5, 127.5, 127.5), "deviation": (127.5, 127.5, 127.5)}
SOURCES = {
    "tf_efficientnet_lite0": Source("efficientnet-lite0", **_LITE),
    "tf_efficientnet_lite1": Source("efficientnet-lite1", **_LITE),
    "mobilenetv2_100": Source("mobilenetv2", mean=(123.675, 116.28, 103.53), deviation=(58.395, 57.12, 57.375)),
}


def read_weights(path: Path, expected: dict[str, Tensor]) -> Weights:
    """Tensors of a checkpoint under timm's names. Matched by order, and checked by shape and by the last part of the name.

    Args:
        path: a `.pth` file with tensors alone.
        expected: names and tensors of timm's network; the file may lack its last ones, those of the classifier.

    Raises:
        DataError: the file is no checkpoint, or a tensor differs from the one expected.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(f"{path} is no checkpoint of tensors ({error}). Fetch it again.") from error
    missing = list(expected)[len(state) :]
    if any(not name.startswith("classifier.") for name in missing) or len(state) > len(expected):
        raise DataError(f"{path} has {len(state)} tensors; the network has {len(expected)}. It belongs to another network.")
    for (theirs, tensor), (name, ours) in zip(state.items(), expected.items(), strict=False):
        if tensor.shape != ours.shape or theirs.rpartition(".")[2] != name.rpartition(".")[2]:
            raise DataError(
                f"{path}: {theirs} {tuple(tensor.shape)} stands where the network has {name} {tuple(ours.shape)}. "
                "It belongs to another network."
            )
    return dict(zip(expected, state.values(), strict=False))


def make_backbone(name: str, *, pretrained: bool, weights: Path | None = None) -> Any:
    """A network that returns the maps f_0..f_4, taken just before strides 4, 8, 16, 32 and after the last block.

    Args:
        name: of timm.
        pretrained: with ImageNet weights from the registry, or from `weights`.
        weights: a safetensors file with timm's own names, for backbones that the registry does not hold.

    Raises:
        ConfigError: timm knows no such network, or there are no weights for it.
        DataError: weights cannot be had or belong to another network.
    """
    if name not in timm.list_models(name):
        raise ConfigError(f"backbone = {name!r}: timm has no such network; see timm.list_models().")
    network = timm.create_model(name, features_only=True)
    if not pretrained:
        return network
    if weights is not None:
        return _taken_over(network, read_named_weights(weights, name), str(weights))
    if name not in SOURCES:
        raise ConfigError(f"There are no registered weights of {name!r}, only of {', '.join(SOURCES)}; give `weights`.")
    whole = timm.create_model(name)
    return _taken_over(network, read_weights(fetch(SOURCES[name].dataset), whole.state_dict()), name)


def read_named_weights(path: Path, name: str) -> Weights:
    """Tensors under timm's own names. Raises DataError where the file is missing or no safetensors file."""
    if path.suffix != ".safetensors" or not path.is_file():
        raise DataError(f"{path} is no safetensors file: bring timm's weights of {name}, model.safetensors of its hub page.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path} is damaged ({error}). Bring it again.") from error


def _taken_over(network: nn.Module, state: Weights, origin: str) -> nn.Module:
    own = network.state_dict()
    wrong = [key for key, tensor in own.items() if key not in state or state[key].shape != tensor.shape]
    if wrong:
        raise DataError(f"The weights of {origin} lack {len(wrong)} tensors, {wrong[0]} among them, or have other shapes.")
    network.load_state_dict({key: state[key] for key in own})
    return network
