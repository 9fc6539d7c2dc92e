"""Additive attention scores in plain PyTorch: what the kernels must compute."""

import torch
from torch import Tensor


def additive_attention_reference(q: Tensor, k: Tensor, weight: Tensor) -> Tensor:
    """u_ij = sum_d weight_d tanh(q_id + k_jd), at least in float32. As in `additive_attention`; nothing is checked."""
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    q, k, weight = (x.to(dtype) for x in (q, k, weight))
    with torch.autocast(q.device.type, enabled=False):
        return torch.tanh(q[:, :, None] + k[:, None]) @ weight
