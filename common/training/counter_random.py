"""Random numbers from a counter: the same on the CPU and on a GPU, without a state, so that a captured step may draw them."""

import torch
from torch import Tensor

# The finaliser and the increment of splitmix64 (Steele, Lea and Flood, 2014), as signed 64-bit integers, whose products wrap.
_INCREMENT = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)
_BITS = 24  # of a float32 in [0, 1)


def _shifted(x: Tensor, places: int) -> Tensor:
    """A logical shift to the right; torch's own keeps the sign."""
    return (x >> places) & ((1 << (64 - places)) - 1)


def _signed(number: int) -> int:
    """A Python integer wrapped to 64 bits, as products of tensors wrap."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def mixed_seed(seed: Tensor, *numbers: Tensor | int) -> Tensor:
    """A seed for a purpose, such as a step: int64, of the shape of `seed`."""
    for number in numbers:
        step = _INCREMENT * (number + 1)
        seed = _mixed(seed + (step if isinstance(step, Tensor) else _signed(step)))
    return seed


def uniform(seed: Tensor, *shape: int) -> Tensor:
    """Independent numbers, uniform on [0, 1): the same seed gives the same numbers, on every device.

    Args:
        seed: int64 without dimensions; may be one of many under `torch.vmap`.
        shape: of the result.

    Returns:
        float32 [*shape] on the seed's device.
    """
    count = torch.Size(shape).numel()
    counter = torch.arange(1, count + 1, device=seed.device)
    bits = _shifted(_mixed(seed + _INCREMENT * counter), 64 - _BITS)
    return (bits.to(torch.float32) / (1 << _BITS)).reshape(shape)
