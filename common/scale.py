"""Which scale to run: asked for, or chosen by what this machine has."""

import ctypes
from typing import NamedTuple

from common.errors import ConfigError
from common.records import Scale


class Choice(NamedTuple):
    """A scale and, in words, why."""

    scale: Scale
    reason: str


def cuda_devices() -> int:
    """How many CUDA devices the driver shows; 0 without a driver. Quick: PyTorch is not imported."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def choose_scale(asked: str) -> Choice:
    """Turn `auto` into `standard` where a CUDA device is present, else `smoke`; keep an explicit scale.

    Raises:
        ConfigError: `asked` is no scale.
    """
    if asked == "auto":
        devices = cuda_devices()
        if devices:
            return Choice("standard", f"{devices} CUDA device{'s' if devices > 1 else ''} found")
        return Choice("smoke", "no CUDA device found; it proves that everything runs on a CPU, and is never judged")
    if asked in ("smoke", "standard", "paper"):
        return Choice(asked, "asked for")
    raise ConfigError(f"scale = {asked!r}: it must be one of auto, smoke, standard, paper.")
