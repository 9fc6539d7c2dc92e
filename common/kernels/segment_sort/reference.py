"""Key importance, sorting and gathering in plain PyTorch: what the kernels must compute."""

import torch
from torch import Tensor


def key_importance_reference(q_last: Tensor, k: Tensor, scale: float) -> Tensor:
    """s_j = mean over the rows m of softmax_j(scale * q_m·k_j). As in `key_importance`; nothing is checked."""
    dtype = torch.float64 if q_last.dtype == torch.float64 else torch.float32
    group = q_last.shape[1] // k.shape[1]
    K = k.to(dtype).repeat_interleave(group, dim=1)  # [B, H, Nk, D]
    A = (scale * q_last.to(dtype) @ K.mT).softmax(-1)  # [B, H, M, Nk]
    return A.mean(-2)


def segment_argsort_reference(importance: Tensor, segment_size: int) -> Tensor:
    """A stable sort of every segment, descending. As in `segment_argsort`; nothing is checked."""
    B, H, Ns = importance.shape
    place = importance.reshape(B, H, -1, segment_size).sort(dim=-1, descending=True, stable=True).indices
    start = torch.arange(0, Ns, segment_size, device=importance.device)[:, None]
    return (place + start).int().view(B, H, Ns)


def gather_keys_values_reference(k: Tensor, v: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """k'[b, h, n] = k[b, h // group, order[b, h, n]], and v' likewise. As in `gather_keys_values`; nothing is checked."""
    group = order.shape[1] // k.shape[1]
    index = order.long()[..., None]  # [B, Ho, N, 1]
    return tuple(x.repeat_interleave(group, dim=1).take_along_dim(index, dim=2) for x in (k, v))  # pyright: ignore[reportReturnType]
