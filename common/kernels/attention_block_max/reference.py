"""Block maxima of the attention map in plain PyTorch: what the kernel must compute."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

# Bytes of logits held at once, as far as one block of queries allows.
CHUNK_BYTES = 256 * 2**20


def attention_block_max_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor | None = None,
    *,
    block_size: int = 64,
    causal: bool = True,
    scale: float | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[Tensor, Tensor | None]:
    """A_ij = max of softmax(scale * q k^T) over the rows of block i and the keys of block j, and o = softmax(scale * q k^T) v.

    Arguments and results as in `attention_block_max`, but for every floating-point dtype and head dimension; float64 is
    computed in float64, everything else in float32. o is None without v. Nothing is checked here.

    A whole number of query blocks at a time, all batches and heads: the logits are [B, H, rows, N], `rows` as many as fit
    chunk_bytes and never less than block_size.
    """
    B, H, N, D = q.shape
    Hk, T = k.shape[1], -(-N // block_size)
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    scale = 1 / math.sqrt(D) if scale is None else scale
    rows = max(1, chunk_bytes // (B * H * N * block_size * dtype.itemsize)) * block_size

    places = torch.arange(N, device=q.device)
    K = k.to(dtype).mT
    V = None if v is None else v.to(dtype)
    maxima = torch.zeros(B, H, T, T, dtype=dtype, device=q.device)
    o = None if v is None else torch.empty(q.shape, dtype=q.dtype, device=q.device)
    for start in range(0, N, rows):
        end = min(start + rows, N)
        last = end if causal else N  # keys after the chunk's last query are invisible to all of it
        queries = q[:, :, start:end].to(dtype).reshape(B, Hk, -1, D)  # the query heads of a key head side by side
        p = (queries @ K[..., :last]).mul_(scale).view(B, H, end - start, last)
        future = places[:last] > places[start:end, None] if causal else None
        if future is not None:
            p.masked_fill_(future, float("-inf"))
        p = p.softmax(-1)
        if future is not None:
            p.masked_fill_(future, 0.0)  # a row that holds NaN is NaN where it sees, not above the diagonal
        if o is not None and V is not None:
            o[:, :, start:end] = (p.view(B, Hk, -1, last) @ V[:, :, :last]).view(B, H, -1, D).to(q.dtype)
        for n, block in enumerate(p.split(block_size, dim=2), start // block_size):
            columns = -(-last // block_size)
            by_key = pad(block.amax(2), (0, columns * block_size - last))  # probabilities are not negative
            maxima[:, :, n, :columns] = by_key.unflatten(2, (columns, block_size)).amax(3)
    return maxima, o
