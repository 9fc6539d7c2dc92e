"""Block-sparse causal prefill: ours, FlexAttention and FlashAttention-4 at one block mask; dense SDPA as the yardstick."""

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.registry import Row, benchmark
from benchmarks.timing import check_and_time, matrix_product_rate
from common.errors import InputError
from common.kernels.block_sparse_attention import BlockLists, block_sparse_attention

BLOCK = 128
TOLERANCE = 1e-2  # bfloat16 in and out


@dataclass(frozen=True)
class Problem:
    """One prefill: bfloat16 q [1, H, N, D], k and v [1, Hk, N, D], and a causal block mask [1, H, T, T]."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor

    @classmethod
    def draw(cls, length: int, density: float, heads: int, key_heads: int, head_dim: int, seed: int) -> "Problem":
        """Normal tensors; every query block reads its own block and each earlier one with equal probability."""
        g = torch.Generator("cuda").manual_seed(seed)
        q, k, v = (
            torch.randn(1, h, length, head_dim, device="cuda", dtype=torch.bfloat16, generator=g)
            for h in (heads, key_heads, key_heads)
        )
        T = length // BLOCK
        wanted = density * T * (T + 1) / 2
        probability = max(0.0, (wanted - T) / (T * (T - 1) / 2)) if T > 1 else 0.0
        earlier = (torch.rand(1, heads, T, T, device="cuda", generator=g) < probability).tril(-1)
        return cls(q, k, v, earlier | torch.eye(T, dtype=torch.bool, device="cuda"))

    @property
    def density(self) -> float:
        """Selected share of the causal blocks."""
        T, heads = self.mask.shape[-1], self.mask.shape[1]
        return int(self.mask.sum()) / (heads * T * (T + 1) / 2)

    def flops(self, density: float) -> float:
        """Floating-point operations of the selected blocks, diagonal blocks counted whole."""
        T = self.mask.shape[-1]
        return density * self.q.shape[1] * T * (T + 1) / 2 * 4 * BLOCK * BLOCK * self.q.shape[-1]

    def error(self, out: Tensor, *, dense: bool) -> float:
        """Relative RMS error against float64 softmax, on 16 query blocks drawn with a fixed seed, the last one always."""
        g = torch.Generator().manual_seed(0)
        _, heads, T, _ = self.mask.shape
        squared_error = squared_size = 0.0
        for n in range(16):
            h = int(torch.randint(heads, (1,), generator=g))
            i = T - 1 if n == 0 else int(torch.randint(T, (1,), generator=g))
            rows = torch.arange(i * BLOCK, (i + 1) * BLOCK, device="cuda")
            keys = torch.arange((i + 1) * BLOCK, device="cuda")
            key_head = h // (heads // self.k.shape[1])
            visible = keys[None, :] <= rows[:, None]
            if not dense:
                visible = visible & self.mask[0, h, i, : i + 1].repeat_interleave(BLOCK)
            logits = self.q[0, h, rows].double() @ self.k[0, key_head, keys].double().T * self.q.shape[-1] ** -0.5
            expected = logits.masked_fill(~visible, float("-inf")).softmax(-1) @ self.v[0, key_head, keys].double()
            squared_error += (out[0, h, rows].double() - expected).square().sum().item()
            squared_size += expected.square().sum().item()
        return (squared_error / squared_size) ** 0.5


def ours(problem: Problem) -> Callable[[], Tensor]:
    """Our kernel, lists made beforehand as the peers' are."""
    lists = BlockLists.from_mask(problem.mask)
    return lambda: block_sparse_attention(problem.q, problem.k, problem.v, lists, block_size=BLOCK)


_compiled_flex = torch.compile(flex_attention, dynamic=False)


def _causal(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return q >= k


def flex(problem: Problem) -> Callable[[], Tensor]:
    """FlexAttention, compiled; the diagonal blocks are masked elementwise, the earlier ones are full blocks."""
    T = problem.mask.shape[-1]
    diagonal = torch.eye(T, dtype=torch.bool, device="cuda").expand_as(problem.mask)
    partial, full = BlockLists.from_mask(diagonal), BlockLists.from_mask(problem.mask & ~diagonal)
    block_mask = BlockMask.from_kv_blocks(
        partial.counts, partial.indices, full.counts, full.indices, BLOCK_SIZE=BLOCK, mask_mod=_causal,
        seq_lengths=(problem.q.shape[2], problem.q.shape[2]),
    )  # fmt: skip
    return lambda: cast(Tensor, _compiled_flex(problem.q, problem.k, problem.v, block_mask=block_mask, enable_gqa=True))


def flash_attention_4(problem: Problem) -> Callable[[], Tensor]:
    """FlashAttention-4's block-sparse path on the same lists."""
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch  # pyright: ignore[reportMissingImports]
    from flash_attn.cute.interface import flash_attn_func  # pyright: ignore[reportMissingImports]

    diagonal = torch.eye(problem.mask.shape[-1], dtype=torch.bool, device="cuda").expand_as(problem.mask)
    partial, full = BlockLists.from_mask(diagonal), BlockLists.from_mask(problem.mask & ~diagonal)
    lists = BlockSparseTensorsTorch(partial.counts, partial.indices, full.counts, full.indices, block_size=(BLOCK, BLOCK))
    q, k, v = (x.transpose(1, 2) for x in (problem.q, problem.k, problem.v))
    return lambda: flash_attn_func(q, k, v, causal=True, block_sparse_tensors=lists)[0].transpose(1, 2)


def sdpa(backend: SDPBackend) -> Callable[[Problem], Callable[[], Tensor]]:
    """PyTorch's dense causal attention, one backend and no fall-back."""

    def prepare(problem: Problem) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(problem.q, problem.k, problem.v, is_causal=True, enable_gqa=True)

        return run

    return prepare


SPARSE = {"ours": ours, "FlexAttention": flex}
DENSE = {"SDPA flash": sdpa(SDPBackend.FLASH_ATTENTION), "SDPA cuDNN": sdpa(SDPBackend.CUDNN_ATTENTION)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 32768, 131072], help="tokens, multiples of 128")
    parser.add_argument("--densities", type=float, nargs="+", default=[0.5, 0.25, 0.1, 0.05], help="share of causal blocks")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--key-heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)


@benchmark("block_sparse_attention", add_arguments)
def run(args: argparse.Namespace) -> list[Row]:
    """Causal prefill over selected blocks of 128 keys, bfloat16."""
    if bad := [n for n in args.lengths if n < BLOCK or n % BLOCK]:
        raise InputError(f"--lengths {bad} are not positive multiples of {BLOCK}.")
    if bad := [d for d in args.densities if not 0 < d <= 1]:
        raise InputError(f"--densities {bad} do not lie in (0, 1].")
    sparse = dict(SPARSE)
    if importlib.util.find_spec("flash_attn") and importlib.util.find_spec("flash_attn.cute"):
        sparse["FlashAttention-4"] = flash_attention_4
    limit = matrix_product_rate()
    rows: list[Row] = []
    for length in args.lengths:
        for density in (1.0, *args.densities):
            problem = Problem.draw(length, density, args.heads, args.key_heads, args.head_dim, args.seed)
            rows += compare(problem, {**sparse, **DENSE} if density == 1.0 else sparse, limit)
            torch.cuda.empty_cache()
    return rows


def compare(problem: Problem, kernels: dict[str, Callable[[Problem], Callable[[], Tensor]]], limit: float) -> list[Row]:
    """Check and time the kernels on one problem.

    `times_ours` is a kernel's time over ours, which comes first; `limit_share` its rate over `limit`, that of a large matrix
    product in FLOP/s.
    """
    rows: list[Row] = []
    ours_ms = None
    for name, prepare in kernels.items():
        ms, error, failed = check_and_time(
            lambda p=prepare: p(problem), lambda out, dense=name in DENSE: problem.error(out, dense=dense), TOLERANCE
        )
        if name == "ours":
            ours_ms = ms
        rows.append(
            {
                "kernel": name,
                "length": problem.q.shape[2],
                "density": round(problem.density, 4),
                "ms": ms,
                "tflops": problem.flops(problem.density) / ms / 1e9 if ms else None,
                "limit_share": problem.flops(problem.density) / (ms / 1e3) / limit if ms else None,
                "times_ours": ms / ours_ms if ms and ours_ms else None,
                "error": error,
                "failed": failed,
            }
        )
    return rows
