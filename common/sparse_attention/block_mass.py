"""Exact attention mass of every block: the ground truth that selections are measured against.

A*[i, j] = 1 / |rows of i| * sum over queries r in block i and keys c in block j of softmax(q_r K^T / sqrt(D))[c], causal.
Every row of A* sums to 1.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad

from common.errors import InputError
from common.sparse_attention.blocks import check_queries_and_keys, check_sizes, number_of_blocks

# float32 logits held at once when row_chunk is not given.
DEFAULT_CHUNK_BYTES = 512 * 2**20


def block_attention_mass(
    q: Tensor,
    k: Tensor,
    block_size: int,
    *,
    key_order: Tensor | None = None,
    row_chunk: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """Exact block mass of causal attention, streamed over query rows.

    Args:
        q: queries [B, H, N, D] after rotary embedding.
        k: keys [B, Hkv, N, D] in natural order; Hkv divides H.
        block_size: tokens per block.
        key_order: integer [B, H or Hkv, N], the original position of the key at each place: columns are then the blocks of the
            permuted keys. Visibility is by original position. None: natural order.
        row_chunk: query rows at a time, a multiple of block_size; by default as many as fit 512 MiB of float32 logits.
        scale: factor of the logits, 1 / sqrt(D) by default.

    Returns:
        float32 [B, H, T, T]; rows sum to 1.

    Raises:
        InputError: shapes or sizes do not fit, key_order is not a permutation, or q or k hold NaN or infinity.
    """
    return block_attention_masses(q, k, block_size, key_orders={"": key_order}, row_chunk=row_chunk, scale=scale)[""]


def block_attention_masses(
    q: Tensor,
    k: Tensor,
    block_size: int,
    *,
    key_orders: Mapping[str, Tensor | None],
    row_chunk: int | None = None,
    scale: float | None = None,
) -> dict[str, Tensor]:
    """Exact block mass under several key orders from one pass over the attention matrix.

    Args:
        key_orders: name -> key order, as in `block_attention_mass`, which also explains the other arguments.
        q: queries [B, H, N, D].
        k: keys [B, Hkv, N, D].
        block_size: tokens per block.
        row_chunk: query rows at a time.
        scale: factor of the logits.

    Returns:
        name -> float32 [B, H, T, T].

    Raises:
        InputError: as `block_attention_mass`.
    """
    check_queries_and_keys(q, k)
    check_sizes(block_size, block_size)
    B, H, N, D = q.shape
    Hk, T = k.shape[1], number_of_blocks(N, block_size)
    if row_chunk is None:
        row_chunk = max(1, DEFAULT_CHUNK_BYTES // (4 * B * H * N * block_size)) * block_size
    if row_chunk < 1 or row_chunk % block_size:
        raise InputError(f"row_chunk is {row_chunk}; it must be a positive multiple of block_size {block_size}.")
    factor = D**-0.5 if scale is None else scale
    orders = {name: _checked_order(order, B, H, N, q.device) for name, order in key_orders.items()}
    masses = {name: q.new_zeros(B, H, T, T, dtype=torch.float32) for name in key_orders}

    keys = k.float().mT
    for start in range(0, N, row_chunk):
        end = min(start + row_chunk, N)
        # Keys after the chunk's last query are invisible to all of it.
        queries = q[:, :, start:end].float().reshape(B, Hk, -1, D)
        logits = (queries @ keys[..., :end]).reshape(B, H, end - start, end).mul_(factor)
        visible = torch.arange(end, device=q.device) <= torch.arange(start, end, device=q.device)[:, None]
        attention = logits.masked_fill_(~visible, float("-inf")).softmax(-1)
        # [B, H, blocks of the chunk, keys]: mean over the rows of each query block, the last of which may be short.
        by_key = torch.stack([rows.mean(2) for rows in attention.split(block_size, dim=2)], dim=2)
        by_key = pad(by_key, (0, N - end))
        first = start // block_size
        for name, mass in masses.items():
            # Gathered and summed in place order rather than scattered, so that the sums are the same in every run on a GPU.
            order = orders[name]
            by_place = by_key if order is None else by_key.gather(3, order[:, :, None].expand(*by_key.shape))
            by_block = pad(by_place, (0, T * block_size - N)).unflatten(3, (T, block_size)).sum(4)
            mass[:, :, first : first + by_key.shape[2]] = by_block
    if any(not bool(mass.isfinite().all()) for mass in masses.values()):
        raise InputError(
            "q or k hold NaN or infinity, so the attention mass is not defined; check the tensors before this call."
        )
    return masses


def _checked_order(order: Tensor | None, B: int, H: int, N: int, device: torch.device) -> Tensor | None:
    """The key order for every query head, checked: int64 [B, H, N]; None for the natural order."""
    if order is None:
        return None
    if order.ndim != 3 or order.shape[0] != B or order.shape[2] != N or H % order.shape[1]:
        raise InputError(f"key_order has shape {tuple(order.shape)}; expected [{B}, {H} or a divisor of it, {N}].")
    if order.device != device:
        raise InputError(f"key_order is on {order.device} and q on {device}; they must agree.")
    order = order.long()
    if not torch.equal(order.sort(-1).values, torch.arange(N, device=device).expand_as(order)):
        raise InputError(f"key_order is not a permutation of 0 .. {N - 1} in every head.")
    return order.repeat_interleave(H // order.shape[1], dim=1)
