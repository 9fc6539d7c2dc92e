"""Timing of device work."""

import statistics
import time
from collections.abc import Callable

import torch


def median_milliseconds(function: Callable[[], object], device: str, repeat_milliseconds: int = 200) -> float:
    """Median wall time of a call, after a warm-up that leaves compilation and allocation out.

    On a CUDA device events are used and the L2 cache is cleared between calls (`triton.testing.do_bench`); on the CPU a clock.

    Args:
        function: takes no arguments; its result is dropped.
        device: `cpu` or `cuda`.
        repeat_milliseconds: about how long to repeat; at least three calls are timed.

    Returns:
        Milliseconds.
    """
    if device == "cuda":
        from triton.testing import do_bench

        function()
        torch.cuda.synchronize()
        time_ms = do_bench(function, warmup=max(repeat_milliseconds // 4, 1), rep=repeat_milliseconds, return_mode="median")
        assert isinstance(time_ms, float)
        return time_ms
    function()
    times: list[float] = []
    while len(times) < 3 or sum(times) < repeat_milliseconds:
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)
