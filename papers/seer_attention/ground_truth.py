"""Claims on the ground truth: is the kernel that pools the attention map exact, and what does it cost beside flash?"""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.kernels.attention_block_max import attention_block_max
from common.sparse_attention.blocks import number_of_blocks
from common.sparse_attention.dense_kernels import dense_attention
from common.timing import median_milliseconds


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        length: tokens.
        heads: query heads.
        key_heads: key heads.
        head_dim: d.
        dtype: of queries, keys and values.
        block_size: B.
        exact_lengths: lengths at which the maxima are compared with a naive computation.
        exact_heads: query heads of that comparison, as many key heads.
        dense: dense kernels that are timed.
        repeat_milliseconds: time spent on repeating each measurement.
        seed: of the inputs.
    """

    length: int
    heads: int
    key_heads: int
    head_dim: int
    dtype: str
    block_size: int
    exact_lengths: list[int]
    exact_heads: int
    dense: list[str]
    repeat_milliseconds: int
    seed: int


def random_inputs(
    length: int, heads: int, key_heads: int, head_dim: int, *, dtype: str, seed: int, device: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Normal q [1, heads, length, head_dim], k and v [1, key_heads, length, head_dim]; logits have standard deviation 3.

    As large as that, because the probabilities of smaller ones are all alike, and no error would show.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def normal(number: int) -> Tensor:
        return torch.randn(1, number, length, head_dim, generator=generator, device=device)

    q, k, v = normal(heads), normal(key_heads), normal(key_heads)
    return tuple(x.to(getattr(torch, dtype)) for x in (3 * q, k, v))  # pyright: ignore[reportReturnType]


def naive_block_maxima(q: Tensor, k: Tensor, block_size: int) -> Tensor:
    """Max-pooled softmax of the whole causal map, float64: [1, H, N, d] and [1, H, N, d] to [1, H, T, T]."""
    N = q.shape[2]
    logits = q.double() @ k.double().mT * q.shape[3] ** -0.5
    causal = torch.ones(N, N, dtype=torch.bool, device=q.device).tril()
    attention = logits.masked_fill(~causal, float("-inf")).softmax(-1)
    missing = number_of_blocks(N, block_size) * block_size - N
    return max_pool2d(pad(attention, (0, missing, 0, missing)), block_size)


def extra_bytes(q: Tensor, k: Tensor, v: Tensor, block_size: int) -> int:
    """Device memory that a call takes beyond its inputs, at its peak, results included."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = attention_block_max(q, k, v, block_size=block_size)
    torch.cuda.synchronize()
    del results
    return torch.cuda.max_memory_allocated() - before


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Errors against the naive map; time beside dense kernels; memory beside that of the paper's kernel."""
    measurement = Measurement()
    s = settings
    progress = context.progress(len(s.exact_lengths) + 1 + len(s.dense))
    for length in s.exact_lengths:
        q, k, v = random_inputs(
            length, s.exact_heads, s.exact_heads, s.head_dim, dtype=s.dtype, seed=s.seed, device=context.device
        )
        error = (attention_block_max(q, k, block_size=s.block_size) - naive_block_maxima(q, k, s.block_size)).abs().max()
        measurement.add("absolute_error", error, tokens=length)
        progress.step(f"{length} tokens compared")

    inputs = random_inputs(s.length, s.heads, s.key_heads, s.head_dim, dtype=s.dtype, seed=s.seed, device=context.device)
    if context.device == "cuda":
        extra = extra_bytes(*inputs, s.block_size)
        # The paper's kernel: the attention output, and a row maximum in two bytes for every query and key block.
        rows = s.heads * s.length
        allowed = rows * s.head_dim * inputs[0].element_size() + 2 * rows * number_of_blocks(s.length, s.block_size)
        measurement.add("extra_memory", extra, "byte")
        measurement.add("extra_memory_share", extra / allowed)
    q, k, v = inputs
    ours = median_milliseconds(
        lambda: attention_block_max(q, k, v, block_size=s.block_size), context.device, s.repeat_milliseconds
    )
    measurement.add("time", ours, "ms", method="attention_block_max", timing=True)
    progress.step(f"{s.length} tokens: {ours:.3f} ms")
    for name in s.dense:
        dense = median_milliseconds(dense_attention(name, q, k, v), context.device, s.repeat_milliseconds)
        measurement.add("time", dense, "ms", method=name, timing=True)
        measurement.add("time_ratio", ours / dense, method="attention_block_max", timing=True, over=name)
        progress.step(f"{name}: {dense:.3f} ms")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
