"""Attention over listed key blocks, first keys and a window in plain PyTorch: what the kernel must compute."""

import torch
from torch import Tensor

# Bytes of gathered keys held at once, as far as one block of queries allows.
CHUNK_BYTES = 256 * 2**20


def key_list_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    counts: Tensor,
    indices: Tensor,
    window_starts: Tensor,
    *,
    block_q: int,
    block_k: int,
    sink: int,
    scale: float,
    chunk_bytes: int = CHUNK_BYTES,
) -> Tensor:
    """As `key_list_attention`, with the lists' counts and indices, for every floating-point dtype and head dimension.

    float64 is computed in float64, everything else in float32. The keys of each query block are gathered side by side.
    """
    B, H, N, D = q.shape
    T, rows = k.shape[2], counts.shape[2]
    dtype = torch.promote_types(q.dtype, torch.float32)
    keys, values = (x.to(dtype).repeat_interleave(H // k.shape[1], dim=1) for x in (k, v))
    device = q.device
    in_list = torch.arange(indices.shape[3], device=device) < counts[..., None]
    last_query = (T - N + torch.arange(1, rows + 1, device=device) * block_q).clamp_max(T) - 1
    longest_window = int((last_query - window_starts).max()) + 1
    o = torch.empty(q.shape, dtype=q.dtype, device=device)
    names = indices.shape[3] * block_k + sink + max(longest_window, 0)
    rows_at_once = max(1, chunk_bytes // (2 * B * H * names * D * dtype.itemsize))
    for i in torch.arange(rows, device=device).split(rows_at_once):
        listed = sink + indices[:, :, i, :, None].long() * block_k + torch.arange(block_k, device=device)
        listed = listed.masked_fill(~in_list[:, :, i, :, None], T).flatten(3)  # T: no key
        first = torch.arange(sink, device=device)
        window = window_starts[i, None] + torch.arange(max(longest_window, 0), device=device)
        always = torch.cat([first.expand(len(i), -1), window], dim=1).expand(B, H, -1, -1)
        names_of_keys = torch.cat([listed, always], dim=3)  # [B, H, R, names]
        places = names_of_keys.clamp(0, T - 1).flatten(2)[..., None].expand(-1, -1, -1, D)
        K, V = (x.gather(2, places).unflatten(2, (len(i), -1)) for x in (keys, values))
        row = i[:, None] * block_q + torch.arange(block_q, device=device)
        Q = q[:, :, row.clamp_max(N - 1)].to(dtype)  # [B, H, R, block_q, D]
        hidden = names_of_keys[:, :, :, None] > (T - N + row)[..., None]
        hidden |= names_of_keys[:, :, :, None] >= T
        p = (Q @ K.mT).mul_(scale).masked_fill_(hidden, float("-inf")).softmax(-1)
        p = p.masked_fill_(hidden.all(-1, keepdim=True), 0.0)
        result = (p @ V).flatten(2, 3).to(q.dtype)
        start, end = int(i[0]) * block_q, min((int(i[-1]) + 1) * block_q, N)
        o[:, :, start:end] = result[:, :, : end - start]
    return o
