"""Timing of device work."""

import statistics
import time
from collections.abc import Callable

import torch


def _event_milliseconds(function: Callable[[], object]) -> float:
    """One call between CUDA events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def median_milliseconds(function: Callable[[], object], device: str, repeat_milliseconds: int = 200) -> float:
    """Median wall time of a call, after a warm-up that leaves compilation and allocation out.

    On a CUDA device events are used, and the L2 cache is cleared between short calls (`triton.testing.do_bench`); on the CPU a
    clock.

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
        first = _event_milliseconds(function)
        if 3 * first >= repeat_milliseconds:  # long calls: do_bench would make more of them than it times
            return statistics.median([first, _event_milliseconds(function), _event_milliseconds(function)])
        median = do_bench(function, warmup=max(repeat_milliseconds // 4, 1), rep=repeat_milliseconds, return_mode="median")
        assert isinstance(median, float)
        return median
    function()
    times: list[float] = []
    while len(times) < 3 or sum(times) < repeat_milliseconds:
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)
