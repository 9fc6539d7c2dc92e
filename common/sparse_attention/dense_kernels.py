"""Dense causal attention by named kernels: what sparse attention is timed against."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from common.errors import InputError
from common.kernels.block_sparse_attention import BlockLists
from common.sparse_attention.blocks import causal_blocks, number_of_blocks

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "math": SDPBackend.MATH}
DENSE_KERNELS = (*BACKENDS, "flex")


def flex_attention(q: Tensor, k: Tensor, v: Tensor, block_size: int = 128) -> Callable[[], Tensor]:
    """FlexAttention, compiled and causal: blocks below the diagonal are whole, those on it masked element by element."""
    from torch.nn.attention import flex_attention as flex

    N, T = q.shape[2], number_of_blocks(q.shape[2], block_size)
    causal = causal_blocks(T, q.device)[None, None]
    diagonal = torch.eye(T, dtype=torch.bool, device=q.device)[None, None]
    partial, whole = BlockLists.from_mask(diagonal), BlockLists.from_mask(causal & ~diagonal)
    mask = flex.BlockMask.from_kv_blocks(
        partial.counts, partial.indices, whole.counts, whole.indices, BLOCK_SIZE=block_size,
        mask_mod=lambda b, h, i, j: i >= j, seq_lengths=(N, N),
    )  # fmt: skip
    compiled = torch.compile(flex.flex_attention, dynamic=False)
    return lambda: cast(Tensor, compiled(q, k, v, block_mask=mask, enable_gqa=True))


def dense_attention(name: str, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    """Causal dense attention by a named kernel, as a function without arguments to be timed.

    Args:
        name: `flash` and `cudnn` (backends of PyTorch's scaled_dot_product_attention), `flex` (compiled FlexAttention), `math`.
        q: queries [1, H, N, d].
        k: keys [1, H_kv, N, d].
        v: values [1, H_kv, N, d].

    Raises:
        InputError: the name is not known.
    """
    if name not in DENSE_KERNELS:
        raise InputError(f"dense kernel {name!r} is not known; there are: {', '.join(DENSE_KERNELS)}.")
    if name == "flex":
        return flex_attention(q, k, v)

    def attend() -> Tensor:
        with sdpa_kernel(BACKENDS[name]):
            return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    return attend
