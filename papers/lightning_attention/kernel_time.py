"""Claims on the kernel: time and memory over the length, beside softmax attention and flash-linear-attention.

At one number of tokens the work of linear attention is the same at every length, and that of softmax attention grows with it.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from common.configuration import Parameters
from common.errors import InputError
from common.experiment import Context, Measurement, main
from common.kernels.lightning_attention import lightning_attention
from common.sparse_attention.dense_kernels import BACKENDS
from common.timing import median_milliseconds
from papers.lightning_attention.transnormer_llm import decay_slopes

Pass = Literal["forward", "forward_backward"]
PASSES: tuple[Pass, ...] = ("forward", "forward_backward")
OURS, SIMPLE_GLA = "lightning_attention", "simple_gla"


class Problem(Parameters):
    """Lengths at which kernels are timed, in one shape.

    Attributes:
        lengths: ascending numbers of tokens in a sequence.
        tokens: in all, so that the batch has tokens / length sequences, and one where a sequence is longer; None for `batch`.
        batch: sequences, the same at every length; None for `tokens`.
        heads: H.
        head_dim: size of keys and values.
        longest_softmax: pass -> the longest sequence that softmax kernels get, which are quadratic.
    """

    lengths: list[int]
    tokens: int | None = None
    batch: int | None = None
    heads: int
    head_dim: int
    longest_softmax: dict[Pass, int]

    def sequences(self, length: int) -> int:
        """The batch at a length. Raises InputError where `tokens` and `batch` are not one or the other."""
        if (self.tokens is None) == (self.batch is None):
            raise InputError(f"tokens = {self.tokens}, batch = {self.batch}: a problem has one of them.")
        return self.batch if self.batch is not None else max(1, (self.tokens or 0) // length)


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        problem: a key of `problems`.
        problems: see `Problem`.
        dtype: of the inputs.
        softmax: backends of PyTorch's softmax attention, see `BACKENDS`.
        repeat_milliseconds: time spent on repeating each measurement.
        seed: of the inputs.
    """

    problem: str
    problems: dict[str, Problem]
    dtype: str
    softmax: list[str]
    repeat_milliseconds: int
    seed: int


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Call = Callable[[], tuple[Tensor, ...]]


def ours(slopes: Tensor) -> Attend:
    """The suite's kernels, [B, H, N, d]."""
    return lambda q, k, v: lightning_attention(q, k, v, slopes)[0]


def simple_gla(slopes: Tensor) -> Attend:
    """flash-linear-attention's chunked simple GLA with a constant decay a head: the same function of [B, N, H, d]."""
    from fla.ops.simple_gla import chunk_simple_gla  # pyright: ignore[reportMissingImports]

    log_decay = -slopes
    return lambda q, k, v: chunk_simple_gla(q, k, v, g_gamma=log_decay, scale=1.0)[0]


def softmax(name: str) -> Attend:
    """A backend of PyTorch's causal softmax attention, [B, H, N, d]; no other takes its place."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(BACKENDS[name]):
            return scaled_dot_product_attention(q, k, v, is_causal=True)

    return attend


def call_of(attend: Attend, inputs: Sequence[Tensor], which: Pass) -> Call:
    """A call without arguments that gives o, or o, dq, dk, dv; inputs are q, k, v and the gradient of o."""
    leaves = [x.detach().requires_grad_(which == "forward_backward") for x in inputs[:3]]

    def run() -> tuple[Tensor, ...]:
        o = attend(leaves[0], leaves[1], leaves[2])
        return (o,) if which == "forward" else (o, *torch.autograd.grad(o, leaves, inputs[3]))

    return run


def extra_bytes(call: Call) -> int:
    """Greatest memory of the device during a call, beyond what was allocated before it; outputs count."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated() - before


def crossover(lengths: Sequence[int], faster: Sequence[bool]) -> int | None:
    """The first length from which on every length is faster; None where the last one is not."""
    found = None
    for length, wins in zip(lengths, faster, strict=True):
        found = (found or length) if wins else None
    return found


def run(settings: Settings, context: Context) -> Measurement:
    """Time, and on a CUDA device memory, of every kernel at every length; the crossovers; which peers are installed.

    `failed` marks a peer that has no kernel for a length, or not the memory; its time is then missing.
    """
    measurement = Measurement()
    s, problem = settings, settings.problems[settings.problem]
    if any(a >= b for a, b in pairwise(problem.lengths)):
        raise InputError(f"lengths = {problem.lengths} of {s.problem}: they must ascend.")
    installed = bool(importlib.util.find_spec("fla")) and context.device == "cuda"
    measurement.add("installed", installed, method=SIMPLE_GLA)
    slopes = decay_slopes(problem.heads, 0, 1).to(context.device)
    kernels: dict[str, Attend] = {OURS: ours(slopes), **{name: softmax(name) for name in s.softmax}}
    if installed:
        kernels[SIMPLE_GLA] = simple_gla(slopes)
    times: dict[tuple[str, Pass, int], float] = {}
    progress = context.progress(len(problem.lengths) * len(PASSES) * len(kernels))
    for length in problem.lengths:
        shape = (problem.sequences(length), problem.heads, length, problem.head_dim)
        generator = torch.Generator(context.device).manual_seed(s.seed)
        inputs = [
            torch.randn(shape, generator=generator, device=context.device, dtype=getattr(torch, s.dtype)) for _ in range(4)
        ]
        for which in PASSES:
            for name, attend in kernels.items():
                place = {"pass": which, "length": length, "batch": shape[0]}
                if name in s.softmax and length > problem.longest_softmax[which]:
                    progress.step(f"{name}, {which}, {length} tokens: too long to be timed")
                    continue
                given = [x.transpose(1, 2).contiguous() for x in inputs] if name == SIMPLE_GLA else inputs
                call = call_of(attend, given, which)
                try:
                    measure(measurement, call, name, place, s.repeat_milliseconds, context.device)
                except RuntimeError as error:  # also torch.OutOfMemoryError
                    if name == OURS:
                        raise
                    measurement.add("failed", 1, method=name, **place)
                    print(f"{name}, {place}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr, flush=True)
                else:
                    times[name, which, length] = measurement.rows[-1].value
                del given, call
                progress.step(f"{name}, {which}, {length} tokens")
        del inputs
    summarise(measurement, problem, times, [name for name in kernels if name != OURS])
    return measurement


def measure(
    measurement: Measurement, call: Call, name: str, place: dict[str, Any], repeat_milliseconds: int, device: str
) -> None:
    """Add `peak_memory` on a CUDA device, `time_per_token`, and last `time` of one call."""
    call()  # compiles, so that its memory is that of the second call
    if device == "cuda":
        measurement.add("peak_memory", extra_bytes(call) / 2**20, "MiB", method=name, **place)
    time = median_milliseconds(call, device, repeat_milliseconds)
    tokens = place["batch"] * place["length"]
    measurement.add("time_per_token", 1e6 * time / tokens, "ns", method=name, timing=True, **place)
    measurement.add("time", time, "ms", method=name, timing=True, **place)


def summarise(
    measurement: Measurement, problem: Problem, times: dict[tuple[str, Pass, int], float], peers: Sequence[str]
) -> None:
    """Add `backward_time` (both passes minus forward: the authors time backward alone), `speed_up` and `crossover_length`."""
    for (name, which, length), time in times.items():
        if which == "forward_backward":
            place = {"length": length, "batch": problem.sequences(length)}
            backward = time - times[name, "forward", length]
            measurement.add("backward_time", backward, "ms", method=name, timing=True, **place)
    for peer in peers:
        for which in PASSES:
            lengths = [length for length in problem.lengths if (peer, which, length) in times]
            ratios = [times[peer, which, length] / times[OURS, which, length] for length in lengths]
            for length, ratio in zip(lengths, ratios, strict=True):
                place = {"pass": which, "length": length, "over": peer}
                measurement.add("speed_up", ratio, "x", method=OURS, timing=True, **place)
            found = crossover(lengths, [ratio > 1 for ratio in ratios])
            if found is not None:
                place = {"pass": which, "over": peer}
                measurement.add("crossover_length", found, "tokens", method=OURS, timing=True, **place)


if __name__ == "__main__":
    main(run, Settings)
