"""How long a forward pass takes: eager and as a CUDA graph, on a GPU and on a CPU; all networks in turn, in the same run."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common.configuration import Parameters
from common.errors import InputError

Mode = Literal["eager", "graph"]
Precision = Literal["float32", "bfloat16", "float16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Repeats(Parameters):
    """How often a pass is timed.

    Attributes:
        warm_up: passes before, of each network.
        timed: passes of each network.
    """

    warm_up: int
    timed: int


@dataclass(frozen=True)
class Times:
    """Milliseconds of the timed passes: median and quartiles."""

    median: float
    lower: float
    upper: float


def multiply_adds(network: nn.Module, x: Tensor) -> int:
    """Multiply-adds of a forward pass: half of the floating-point operations that PyTorch counts."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(x)
    return counter.get_total_flops() // 2


def _passes(network: nn.Module, x: Tensor, mode: Mode) -> Callable[[], object]:
    """One forward pass as a function."""
    if mode == "eager":
        return lambda: network(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            network(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        network(x)
    return graph.replay


def _timed(run: Callable[[], object], device: str) -> float:
    """Milliseconds of one call."""
    if device == "cpu":
        start = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - start)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def forward_times(
    networks: Mapping[str, nn.Module],
    images: Tensor,
    *,
    device: str,
    mode: Mode,
    precision: Precision,
    repeats: Repeats,
) -> dict[str, Times]:
    """Time the forward pass of every network on the same images.

    Networks take turns: a round times each once, so that a change of the machine's clock meets all of them.

    Args:
        networks: name -> network, on the CPU, float32; moved to the device and to the precision, and back.
        images: normalised, float32 [B, 3, H, W].
        device: `cpu` or `cuda`.
        mode: `eager`, or a CUDA `graph`, which leaves out the launches of kernels.
        precision: of parameters and images.
        repeats: of each network.

    Returns:
        Name -> times.

    Raises:
        InputError: a graph is asked for on the CPU.
    """
    if mode == "graph" and device == "cpu":
        raise InputError("mode is 'graph' on the CPU; only a CUDA device has graphs. Take 'eager'.")
    x = images.to(device, DTYPES[precision]).contiguous(memory_format=torch.channels_last)
    for network in networks.values():
        network.eval().to(device, DTYPES[precision])
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    with torch.inference_mode():
        passes = {name: _passes(network, x, mode) for name, network in networks.items()}
        for run in passes.values():
            for _ in range(repeats.warm_up):
                run()
        found: dict[str, list[float]] = {name: [] for name in networks}
        for _ in range(repeats.timed):
            for name, run in passes.items():
                found[name].append(_timed(run, device))
    for network in networks.values():
        network.to("cpu", torch.float32)
    return {name: Times(*(float(np.quantile(times, q)) for q in (0.5, 0.25, 0.75))) for name, times in found.items()}
