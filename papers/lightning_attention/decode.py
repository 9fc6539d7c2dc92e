"""Claim on decoding: a step of linear attention costs the same after any number of tokens; softmax attention reads them all.

One layer of a batch of sequences, as in generation: the newest token's key and value are taken in, and its query is answered.
On a CUDA device both are replayed from a CUDA graph, so that launching does not hide the work.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.kernels.lightning_attention import lightning_attention_recurrent
from common.sparse_attention.dense_kernels import BACKENDS
from common.timing import median_milliseconds
from papers.lightning_attention.transnormer_llm import decay_slopes


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        lengths: tokens read so far.
        batch: sequences.
        heads: H.
        head_dim: size of keys and values.
        dtype: of queries, keys, values and the cache; the state is float32.
        softmax: backends of PyTorch's attention over the cache, see `BACKENDS`.
        compile: whether the step of linear attention is compiled into one kernel.
        repeat_milliseconds: time spent on repeating each measurement.
        seed: of the inputs.
    """

    lengths: list[int]
    batch: int
    heads: int
    head_dim: int
    dtype: str
    softmax: list[str]
    compile: bool
    repeat_milliseconds: int
    seed: int


class LinearStep:
    """A step of linear attention that replaces its state: the state after n tokens is as large as after one."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, *, compiled: bool):
        self.inputs = (q, k, v, slopes)
        B, H, _, D = q.shape
        self.state = torch.zeros(B, H, D, v.shape[-1], dtype=torch.float32, device=q.device)
        self.attend = (
            torch.compile(lightning_attention_recurrent, fullgraph=True) if compiled else lightning_attention_recurrent
        )

    def __call__(self) -> Tensor:
        """The output [B, H, 1, E] of the newest token."""
        o, state = self.attend(*self.inputs, initial_state=self.state)
        self.state.copy_(state)
        return o


class SoftmaxStep:
    """A step of softmax attention over a cache of keys and values [B, H, n, d]; the newest token is written to its end."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, length: int, backend: str, generator: torch.Generator):
        self.inputs, self.backend = (q, k, v), BACKENDS[backend]
        shape = (*q.shape[:2], length, q.shape[-1])
        self.keys, self.values = (torch.randn(shape, generator=generator, device=q.device, dtype=q.dtype) for _ in range(2))

    def __call__(self) -> Tensor:
        """The output [B, H, 1, d] of the newest token."""
        q, k, v = self.inputs
        self.keys[:, :, -1:].copy_(k)
        self.values[:, :, -1:].copy_(v)
        with sdpa_kernel(self.backend):
            return scaled_dot_product_attention(q, self.keys, self.values)


def replayed(step: Callable[[], Tensor], device: str) -> Callable[[], object]:
    """The step as it is timed: on a CUDA device a graph of it."""
    if device != "cuda":
        return step
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Time of a step and bytes kept, after every length, by both attentions.

    `failed` marks a backend that has no kernel for a step.
    """
    measurement = Measurement()
    s, device = settings, context.device
    generator = torch.Generator(device).manual_seed(s.seed)
    shape = (s.batch, s.heads, 1, s.head_dim)
    q, k, v = (torch.randn(shape, generator=generator, device=device, dtype=getattr(torch, s.dtype)) for _ in range(3))
    slopes = decay_slopes(s.heads, 0, 1).to(device)
    progress = context.progress(len(s.lengths) * (1 + len(s.softmax)))

    def add(name: str, length: int, step: Callable[[], Tensor], size: int) -> None:
        time = median_milliseconds(replayed(step, device), device, s.repeat_milliseconds)
        measurement.add("decode_time", 1000 * time, "us", method=name, timing=True, length=length)
        measurement.add("kept_bytes", size, "byte", method=name, length=length)
        progress.step(f"{name} after {length} tokens: {1000 * time:.1f} us")

    for length in s.lengths:
        linear = LinearStep(q, k, v, slopes, compiled=s.compile)
        add("lightning_attention", length, linear, linear.state.numel() * linear.state.element_size())
        for name in s.softmax:
            dense = SoftmaxStep(q, k, v, length, name, generator)
            try:
                add(name, length, dense, 2 * dense.keys.numel() * dense.keys.element_size())
            except RuntimeError as error:
                measurement.add("failed", 1, method=name, length=length)
                progress.step(f"{name} after {length} tokens: no kernel")
                print(f"{name}, {length} tokens: {str(error)[:200]}", file=sys.stderr, flush=True)
            del dense
    return measurement


if __name__ == "__main__":
    main(run, Settings)
