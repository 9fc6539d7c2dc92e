"""Timing on a CUDA device, and what every benchmark does with a kernel: run, check, and only then time."""

import math
import platform
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
import triton

from common.errors import MissingHardwareError


def require_cuda() -> None:
    """Raise MissingHardwareError without a CUDA device: a speed measured elsewhere would mean nothing."""
    if not torch.cuda.is_available():
        raise MissingHardwareError(
            "Benchmarks time kernels on a CUDA device, and none is visible; run them on a machine with a GPU."
        )


def machine() -> dict[str, str]:
    """Device and versions, for the head of a record."""
    return {
        "device": torch.cuda.get_device_name(),
        "compute_capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": torch.version.cuda or "",
        "python": platform.python_version(),
    }


def milliseconds(run: Callable[[], object]) -> float:
    """Median time of `run` between CUDA events, after a warm-up, the L2 cache emptied before each repetition."""
    time = triton.testing.do_bench(run, warmup=50, rep=200, return_mode="median")
    assert isinstance(time, float)
    return time


def copy_rate() -> float:
    """Bytes per second that a copy of 1 GiB reads and writes: the limit of what moves data."""
    source = torch.zeros(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / (milliseconds(lambda: target.copy_(source)) / 1e3)


def matrix_product_rate(size: int = 8192) -> float:
    """Floating-point operations per second of a square bfloat16 product of random matrices: the limit of what multiplies."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / (milliseconds(lambda: a @ b) / 1e3)


Output = TypeVar("Output")


class Timed(NamedTuple):
    """What became of one kernel: a time, or why there is none."""

    ms: float | None
    error: float | None
    failed: str | None


def check_and_time(prepare: Callable[[], Callable[[], Output]], error: Callable[[Output], float], tolerance: float) -> Timed:
    """Check what a kernel returns, then time it.

    Args:
        prepare: gives the call to time; what it does itself is not timed.
        error: relative error of its output.
        tolerance: largest error that counts as correct.

    Returns:
        The median time in ms, None for a kernel that failed; the error; why there is no time, or None.
    """
    try:
        run = prepare()
        size = error(run())
    except Exception as exception:  # whatever a peer raises that has no kernel for these inputs
        lines = str(exception).splitlines() or [""]
        return Timed(None, None, f"{type(exception).__name__}: {lines[0][:200]}")
    if not math.isfinite(size) or size > tolerance:
        return Timed(None, size, f"wrong result: relative error {size:.3g} > {tolerance:.3g}")
    return Timed(milliseconds(run), size, None)
