"""Linear attention with per-head decay in plain PyTorch: what the kernels must compute, twice."""

import itertools

import torch
from torch import Tensor


def _working_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def lightning_attention_recurrent(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, *, scale: float = 1.0, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, token by token: S_t = exp(-decay) S_{t-1} + k_t v_t^T, o_t = scale * S_t^T q_t.

    Args:
        q: [B, H, N, D], any floating-point dtype; float64 is computed in float64, everything else in float32.
        k: [B, H, N, D].
        v: [B, H, N, E].
        decay: [H], slopes >= 0.
        scale: factor of the output.
        initial_state: S_0, [B, H, D, E]; None is zero.

    Returns:
        o [B, H, N, E] in the dtype of q and S_N [B, H, D, E]. Differentiable. Nothing is checked here.
    """
    dtype = _working_dtype(q)
    lam = torch.exp(-decay.to(dtype))[:, None, None]
    Q, K, V = (x.to(dtype) for x in (q, k, v))
    S = torch.zeros(*K[:, :, 0].shape, V.shape[-1], dtype=dtype, device=q.device)
    S = S if initial_state is None else S + initial_state
    o = []
    for t in range(q.shape[2]):
        S = lam * S + K[:, :, t, :, None] * V[:, :, t, None, :]
        o.append(scale * (Q[:, :, t, None, :] @ S).squeeze(-2))
    return torch.stack(o, dim=2).to(q.dtype), S


def lightning_attention_quadratic(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, *, scale: float = 1.0, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same with one N x N matrix: O = scale * [(Q K^T) ⊙ M] V, M_ts = exp(-decay (t - s)) for t >= s, else 0.

    Arguments and result as in `lightning_attention_recurrent`.
    """
    dtype = _working_dtype(q)
    slope = decay.to(dtype)[:, None]
    Q, K, V = (x.to(dtype) for x in (q, k, v))
    t = torch.arange(q.shape[2], device=q.device)
    steps = t[:, None] - t[None, :]
    M = torch.where(steps >= 0, torch.exp(-slope[..., None] * steps.clamp(min=0)), 0.0)  # [H, N, N]
    O = ((Q @ K.mT) * M) @ V  # noqa: E741
    last = torch.exp(-slope * (len(t) - 1 - t))[..., None]  # [H, N, 1]: from every key to the end
    S = (K * last).mT @ V
    if initial_state is not None:
        S_0 = initial_state.to(dtype)
        O = O + torch.exp(-slope * (t + 1))[..., None] * (Q @ S_0)  # noqa: E741
        S = S + torch.exp(-slope * len(t))[..., None] * S_0
    return (scale * O).to(q.dtype), S


def lightning_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    *,
    scale: float = 1.0,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `lightning_attention` with output_final_state, for every floating-point dtype, D and E: the quadratic form.

    Packed sequences are computed one by one. The state is float64 for float64 input and float32 otherwise.
    """
    if cu_seqlens is None:
        return lightning_attention_quadratic(q, k, v, decay, scale=scale, initial_state=initial_state)
    dtype = _working_dtype(q)
    o, final = [], []
    places = cu_seqlens.tolist()
    for s, (begin, end) in enumerate(itertools.pairwise(places)):
        S_0 = None if initial_state is None else initial_state[s : s + 1]
        q_s, k_s, v_s = (x[:, :, begin:end] for x in (q, k, v))
        o_s, S = lightning_attention_quadratic(q_s, k_s, v_s, decay, scale=scale, initial_state=S_0)
        o.append(o_s)
        final.append(S.to(dtype))
    return torch.cat(o, dim=2), torch.cat(final)
