"""Claim on the tiling: is it exact? Outputs and gradients beside the definition in float64 (A, Algorithms 1 and 2)."""

from typing import Literal

import torch
from torch import Tensor
from torch.linalg import vector_norm

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.kernels.lightning_attention import lightning_attention, lightning_attention_quadratic


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        dtype: of queries, keys, values and the gradient of the output.
        lengths: tokens: fewer than a block, no multiple of one, several blocks.
        sizes: pairs of the sizes of keys and of values.
        slopes: slope of each head.
        deviation: standard deviation of the inputs.
        batch: sequences.
        seed: of the inputs.
    """

    dtype: Literal["float32", "bfloat16", "float16"]
    lengths: list[int]
    sizes: list[tuple[int, int]]
    slopes: list[float]
    deviation: float
    batch: int
    seed: int


def with_gradients(inputs: tuple[Tensor, ...], slopes: Tensor, do: Tensor, *, exact: bool) -> tuple[Tensor, ...]:
    """Output o and gradients dq, dk, dv for inputs q, k, v; `exact` by the quadratic form in float64."""
    leaves = [x.detach().to(torch.float64 if exact else x.dtype).requires_grad_() for x in inputs]
    q, k, v = leaves
    o = lightning_attention_quadratic(q, k, v, slopes)[0] if exact else lightning_attention(q, k, v, slopes)[0]
    return (o.detach(), *torch.autograd.grad(o, leaves, do.to(o.dtype)))


def run(settings: Settings, context: Context) -> Measurement:
    """Relative L2 errors of o, dq, dk and dv, the worst of all heads, for every length and pair of sizes."""
    measurement = Measurement()
    s, device = settings, context.device
    generator = torch.Generator().manual_seed(s.seed)
    slopes = torch.tensor(s.slopes, device=device)
    progress = context.progress(len(s.lengths) * len(s.sizes))
    for length in s.lengths:
        for D, E in s.sizes:
            shapes = [(s.batch, len(s.slopes), length, size) for size in (D, D, E, E)]
            q, k, v, do = (
                (s.deviation * torch.randn(shape, generator=generator)).to(device, getattr(torch, s.dtype)) for shape in shapes
            )
            found = with_gradients((q, k, v), slopes, do, exact=False)
            expected = with_gradients((q, k, v), slopes, do, exact=True)
            for name, x, wanted in zip(("o", "dq", "dk", "dv"), found, expected, strict=True):
                errors = vector_norm(x.double() - wanted, dim=(0, 2, 3)) / vector_norm(wanted, dim=(0, 2, 3))
                place = {"tensor": name, "length": length, "key_size": D, "value_size": E}
                measurement.add("relative_error", errors.max(), method="lightning_attention", **place)
            progress.step(f"{length} tokens, sizes {D} and {E}")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
