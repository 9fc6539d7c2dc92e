"""Products of queries and keys, as exact as in float32 and on tensor cores where there are some."""

import torch
from torch import Tensor


def query_key_products(queries: Tensor, keys: Tensor) -> Tensor:
    """Queries [B, H, R, C] times keys [B, Hkv, M, C]: [B, H, R, M], float32 (float64 for float64 input).

    Query head h meets key head h // (H / Hkv). On a GPU, half-precision input is multiplied as it is, summed in float32.
    """
    B, H, R, C = queries.shape
    queries, keys = queries.reshape(B * keys.shape[1], -1, C), keys.flatten(0, 1)
    if queries.is_cuda and queries.dtype in (torch.float16, torch.bfloat16):
        products = torch.bmm(queries, keys.mT, out_dtype=torch.float32)
    else:
        dtype = torch.float64 if queries.dtype == torch.float64 else torch.float32
        products = queries.to(dtype) @ keys.to(dtype).mT
    return products.reshape(B, H, R, -1)
