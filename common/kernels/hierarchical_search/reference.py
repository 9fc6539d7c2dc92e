"""HiP's mask search in plain PyTorch: what the kernel must compute."""

import torch
from torch import Tensor

from common.kernels.block_sparse_attention.block_lists import BlockLists

# Bytes of representative keys that are gathered at a time, as far as one query block allows.
CHUNK_BYTES = 2**28


def searched_blocks(
    queries: int, keys: int, *, block_q: int, block_k: int, window: int, sink: int, device: torch.device | str | None = None
) -> Tensor:
    """M: how many key blocks each query block searches, of those from the sink on.

    Args:
        queries: N; they are the last of the positions.
        keys: T, positions.
        block_q: queries of a block.
        block_k: keys of a block.
        window: keys before a query block that are not searched. What division by block_k leaves over belongs to it.
        sink: first keys that are not searched.
        device: of the result.

    Returns:
        int32 [ceil(N / block_q)].
    """
    first_query = torch.arange(keys - queries, keys, block_q, dtype=torch.int32, device=device)
    return (first_query - window - sink).clamp_min(0) // block_k


def hierarchical_search_reference(
    q: Tensor,
    k: Tensor,
    *,
    nodes: int,
    block_q: int,
    block_k: int,
    window: int,
    sink: int,
    stride_q: int,
    stride_k: int,
    representative: str,
    chunk_bytes: int = CHUNK_BYTES,
) -> BlockLists:
    """As `hierarchical_search`, for every floating-point dtype and head dimension; nothing is checked."""
    B, H, N, D = q.shape
    T = k.shape[2]
    M = searched_blocks(N, T, block_q=block_q, block_k=block_k, window=window, sink=sink, device=q.device).long()
    number = torch.arange(nodes, device=q.device)
    everything = number.masked_fill(number >= M[:, None], 0)
    indices = everything.int().expand(B, H, -1, -1).contiguous()
    beams = (nodes < M).nonzero()[:, 0]
    sampled = -(-block_k // stride_k)
    dtype = torch.promote_types(k.dtype, torch.float32)
    keys = k.to(dtype).repeat_interleave(H // k.shape[1], dim=1)
    rows_at_once = max(1, chunk_bytes // (B * H * 2 * nodes * sampled * D * dtype.itemsize))
    for rows in beams.split(rows_at_once):
        offsets = torch.arange(stride_q - 1, block_q, stride_q, device=q.device)
        places = (rows[:, None] * block_q + offsets).clamp_max(N - 1)
        queries = q[:, :, places].to(dtype)  # [B, H, R, sampled queries, D]

        def score(blocks: Tensor, queries: Tensor = queries) -> Tensor:
            """Of key blocks [B, H, R, m]."""
            tokens = sink + blocks[..., None] * block_k + torch.arange(0, block_k, stride_k, device=k.device)
            tokens = tokens.clamp_max(T - 1)
            gathered = keys.gather(2, tokens.flatten(2)[..., None].expand(-1, -1, -1, D))
            products = queries @ gathered.unflatten(2, (blocks.shape[2], -1)).mT
            return products.amax(3).unflatten(3, (blocks.shape[3], -1)).amax(4)

        f = (number * M[rows, None] // nodes).expand(B, H, -1, -1)
        e = ((number + 1) * M[rows, None] // nodes).expand(B, H, -1, -1)  # halves are [f, e): e is the paper's l + 1
        while bool((e - f > 1).any()):
            m = (f + e + 1) // 2
            f, e = torch.stack([f, m], dim=4).flatten(3), torch.stack([m, e], dim=4).flatten(3)
            scores = score(_representatives(f, e, representative)).clamp_min(torch.finfo(dtype).min)
            scores = scores.masked_fill(e <= f, float("-inf"))  # an empty half comes after everything
            kept = scores.sort(dim=3, descending=True, stable=True).indices[..., :nodes].sort(dim=3).values
            f, e = f.gather(3, kept), e.gather(3, kept)
        indices[:, :, rows] = f.int()
    return BlockLists(M.clamp_max(nodes).int().expand(B, H, -1).contiguous(), indices)


def _representatives(f: Tensor, e: Tensor, which: str) -> Tensor:
    """The block that stands for each half [f, e); of an empty one some block."""
    if which == "first":
        return f
    return (e - 1).clamp_min(0) if which == "last" else (f + (e - 1).maximum(f)) // 2
