"""Linear attention with decay over the length, at one number of tokens: ours, flash-linear-attention, and softmax attention."""

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.registry import Row, benchmark
from benchmarks.timing import check_and_time, copy_rate
from common.errors import InputError
from common.kernels.lightning_attention import lightning_attention, lightning_attention_quadratic

TOLERANCE = 1e-2  # bfloat16 in and out
PIECE = 512  # tokens of the float64 reference at a time
LAST = 256  # queries of a sequence on which softmax attention is checked


@dataclass(frozen=True)
class Problem:
    """bfloat16 q, k, v and the output's gradient do [B, H, N, D], and slopes float32 [H]."""

    q: Tensor
    k: Tensor
    v: Tensor
    do: Tensor
    slopes: Tensor

    @classmethod
    def draw(cls, batch: int, length: int, heads: int, head_dim: int, seed: int) -> "Problem":
        """Normal tensors; the slopes 2^(-8 (h + 1) / H) of the released TransNormerLLM code, first layer."""
        g = torch.Generator("cuda").manual_seed(seed)
        shape = (batch, heads, length, head_dim)
        tensors = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, generator=g) for _ in range(4))
        return cls(*tensors, slopes=2.0 ** (-8 * (torch.arange(heads, device="cuda") + 1) / heads))

    def bytes(self, backward: bool) -> int:
        """The least to move: forward reads q, k, v and writes o; backward reads q, k, v and do and writes three gradients."""
        return (4 + 7 * backward) * self.q.numel() * self.q.element_size()

    @cached_property
    def sample(self) -> list[tuple[int, int]]:
        """The (batch entry, head) pairs that are checked: extremes of both, so that an index that runs over is seen."""
        B, H = self.q.shape[:2]
        return sorted({(b, h) for b in (0, B - 1) for h in (0, H - 1)})

    @cached_property
    def linear(self) -> list[tuple[Tensor, ...]]:
        """o, dq, dk, dv in float64 of every sampled head: the quadratic form on pieces that hand their state on."""
        results = []
        for b, h in self.sample:
            leaves = [x[b, h].double()[None, None].requires_grad_() for x in (self.q, self.k, self.v)]
            S, o = None, []
            for t in range(0, leaves[0].shape[2], PIECE):
                q, k, v = (x[:, :, t : t + PIECE] for x in leaves)
                piece, S = lightning_attention_quadratic(q, k, v, self.slopes[h : h + 1], initial_state=S)
                o.append(piece)
            o = torch.cat(o, dim=2)
            gradients = torch.autograd.grad(o, leaves, self.do[b, h].double()[None, None])
            results.append(tuple(x[0, 0].detach() for x in (o, *gradients)))
        return results

    def linear_error(self, outputs: tuple[Tensor, ...]) -> float:
        """Largest relative RMS error of o (and dq, dk, dv where given) against float64, over the sampled heads."""
        return max(
            relative_error(x[b, h], wanted)
            for (b, h), references in zip(self.sample, self.linear, strict=True)
            for x, wanted in zip(outputs, references, strict=False)  # forward alone gives o only
        )

    @cached_property
    def softmax(self) -> list[tuple[Tensor, ...]]:
        """Outputs and dq of softmax attention in float64, for the last queries of every sampled head."""
        N, D = self.q.shape[2:]
        hidden = torch.ones(min(LAST, N), N, dtype=torch.bool, device="cuda").triu(N - min(LAST, N) + 1)
        results = []
        for b, h in self.sample:
            q, k, v, do = (x[b, h].double() for x in (self.q, self.k, self.v, self.do))
            q = q[-LAST:].requires_grad_()
            o = (q @ k.T * D**-0.5).masked_fill(hidden, float("-inf")).softmax(-1) @ v
            results.append((o.detach(), *torch.autograd.grad(o, q, do[-LAST:])))
        return results

    def softmax_error(self, outputs: tuple[Tensor, ...]) -> float:
        """As `linear_error` for softmax attention: o, and dq where given, on the last queries of the sampled heads."""
        return max(
            relative_error(x[b, h, -LAST:], wanted)
            for (b, h), references in zip(self.sample, self.softmax, strict=True)
            for x, wanted in zip(outputs[:2], references, strict=False)
        )


def relative_error(out: Tensor, expected: Tensor) -> float:
    """RMS(out - expected) / RMS(expected), in float64."""
    return ((out.double() - expected).norm() / expected.norm()).item()


Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Kernel:
    """A way to compute attention.

    Attributes:
        prepare: binds it to a problem.
        length_first: whether it takes and returns [B, N, H, D].
        softmax: whether it computes softmax attention, another function of the same shapes and quadratic.
    """

    prepare: Callable[[Problem], Attention]
    length_first: bool = False
    softmax: bool = False

    def call(self, problem: Problem, backward: bool) -> Callable[[], tuple[Tensor, ...]]:
        """A call that gives o, or o, dq, dk, dv, all [B, H, N, D]; the inputs are laid out for the kernel beforehand."""
        attention = self.prepare(problem)
        q, k, v, do = (problem.q, problem.k, problem.v, problem.do)
        if self.length_first:
            q, k, v, do = (x.transpose(1, 2).contiguous() for x in (q, k, v, do))
        leaves = [x.detach().requires_grad_(backward) for x in (q, k, v)]

        def run() -> tuple[Tensor, ...]:
            o = attention(*leaves)
            results = (o, *torch.autograd.grad(o, leaves, do)) if backward else (o,)
            return tuple(x.transpose(1, 2) for x in results) if self.length_first else results

        return run


def ours(problem: Problem) -> Attention:
    """Our kernels."""
    return lambda q, k, v: lightning_attention(q, k, v, problem.slopes)[0]


def simple_gla(problem: Problem) -> Attention:
    """flash-linear-attention's chunked simple GLA, with a constant decay per head."""
    from fla.ops.simple_gla import chunk_simple_gla  # pyright: ignore[reportMissingImports]

    log_decay = -problem.slopes
    return lambda q, k, v: chunk_simple_gla(q, k, v, g_gamma=log_decay, scale=1.0)[0]


def sdpa(backend: SDPBackend) -> Callable[[Problem], Attention]:
    """PyTorch's softmax attention, one backend and no fall-back."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, is_causal=True)

    return lambda problem: attention


SIMPLE_GLA = "flash-linear-attention, simple GLA"
KERNELS = {
    "ours": Kernel(ours),
    SIMPLE_GLA: Kernel(simple_gla, length_first=True),
    "SDPA flash": Kernel(sdpa(SDPBackend.FLASH_ATTENTION), softmax=True),
    "SDPA cuDNN": Kernel(sdpa(SDPBackend.CUDNN_ATTENTION), softmax=True),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192, 32768, 131072], help="tokens per sequence")
    parser.add_argument("--tokens", type=int, default=131072, help="tokens in all, a multiple of every length")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)


@benchmark("lightning_attention", add_arguments)
def run(args: argparse.Namespace) -> list[Row]:
    """Linear attention with decay beside softmax attention, bfloat16, over the length at a fixed number of tokens."""
    if bad := [n for n in args.lengths if n < 1 or args.tokens % n]:
        raise InputError(f"--lengths {bad} do not divide --tokens {args.tokens}.")
    kernels = dict(KERNELS)
    if not importlib.util.find_spec("fla"):
        del kernels[SIMPLE_GLA]
    bandwidth = copy_rate()
    rows: list[Row] = []
    for length in args.lengths:
        problem = Problem.draw(args.tokens // length, length, args.heads, args.head_dim, args.seed)
        for backward in (False, True):
            rows += compare(problem, backward, kernels, bandwidth)
            torch.cuda.empty_cache()
    return rows


def compare(problem: Problem, backward: bool, kernels: dict[str, Kernel], bandwidth: float) -> list[Row]:
    """Check and time the kernels on one problem.

    `times_ours` is a kernel's time over ours, which comes first; `floor_share` the time that moving every tensor once would
    take at the copy's bandwidth, over the kernel's time.
    """
    rows: list[Row] = []
    ours_ms = None
    for name, kernel in kernels.items():
        ms, error, failed = check_and_time(
            lambda k=kernel: k.call(problem, backward),
            problem.softmax_error if kernel.softmax else problem.linear_error,
            TOLERANCE,
        )
        if name == "ours":
            ours_ms = ms
        rows.append(
            {
                "kernel": name,
                "pass": "forward + backward" if backward else "forward",
                "length": problem.q.shape[2],
                "batch": problem.q.shape[0],
                "ms": ms,
                "floor_share": problem.bytes(backward) / bandwidth * 1e3 / ms if ms else None,
                "times_ours": ms / ours_ms if ms and ours_ms else None,
                "copy_tb_per_s": bandwidth / 1e12,
                "error": error,
                "failed": failed,
            }
        )
    return rows
