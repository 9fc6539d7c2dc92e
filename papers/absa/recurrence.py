"""The recurrence of an LSTM with hard-sigmoid gates, for many replicas at once: few kernels a step, forwards and backwards.

    o, i, f = σ(u_o, u_i, u_f),   g = tanh(u_g),   u_t = x_t W_x + b + h_{t−1} W_h
    c_t = f ⊙ c_{t−1} + i ⊙ g,    h_t = o ⊙ tanh(c_t)

A loop over words is bound by the number of kernels, not by their work. What does not depend on the step before is computed for
all steps together, and the gradient of W_h is one product at the end. Equal to PyTorch's own differentiation (tested).
"""

from typing import Any

import torch
from torch import Tensor

SLOPE, MIDDLE = 0.2, 0.5
"""σ(x) = min(max(0.2 x + 0.5, 0), 1)."""


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, steps: Tensor, W_h: Tensor) -> Tensor:
        n, replicas, count, four = steps.shape
        width = four // 4
        # 0.2 u + 0.5 is had from the start, so that one kernel computes all three gates of a step.
        scale = torch.ones(four, device=steps.device, dtype=steps.dtype)
        shift = torch.zeros_like(scale)
        scale[: 3 * width], shift[: 3 * width] = SLOPE, MIDDLE
        inputs, W = steps * scale + shift, W_h * scale
        gates = torch.empty_like(inputs)
        cells = steps.new_zeros(n + 1, replicas, count, width)
        bent = steps.new_empty(n, replicas, count, width)
        states = steps.new_zeros(n + 1, replicas, count, width)
        for t in range(n):
            u = torch.baddbmm(inputs[t], states[t], W)
            torch.clamp(u[..., : 3 * width], 0, 1, out=gates[t, ..., : 3 * width])
            torch.tanh(u[..., 3 * width :], out=gates[t, ..., 3 * width :])
            o, i, f, g = gates[t].chunk(4, dim=-1)
            torch.addcmul(f * cells[t], i, g, out=cells[t + 1])
            torch.tanh(cells[t + 1], out=bent[t])
            torch.mul(o, bent[t], out=states[t + 1])
        ctx.save_for_backward(gates, cells, bent, states, W_h)
        return states[1:].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (d_states,) = gradients
        gates, cells, bent, states, W_h = ctx.saved_tensors
        n = len(gates)
        o, i, f, g = gates.chunk(4, dim=-1)
        width = o.shape[-1]
        # ∂u of every gate is ∂h or ∂c times a factor that is known for all steps at once.
        flat = (gates[..., : 3 * width] > 0) & (gates[..., : 3 * width] < 1)
        slope_o, slope_i, slope_f = (SLOPE * flat).chunk(3, dim=-1)
        by_h = bent * slope_o
        by_c = torch.cat([g * slope_i, cells[:-1] * slope_f, i * (1 - g * g)], dim=-1)
        h_to_c = o * (1 - bent * bent)
        d_u = torch.empty_like(gates)
        W_T = W_h.transpose(1, 2)
        d_h, d_c = torch.zeros_like(d_states[0]), torch.zeros_like(d_states[0])
        for t in range(n - 1, -1, -1):
            d_h = d_h + d_states[t]
            d_c = torch.addcmul(d_c, d_h, h_to_c[t])
            torch.mul(d_h, by_h[t], out=d_u[t, ..., :width])
            parts = by_c[t].unflatten(-1, (3, width))
            torch.mul(d_c[..., None, :], parts, out=d_u[t, ..., width:].unflatten(-1, (3, width)))
            d_c = d_c * f[t]
            d_h = torch.bmm(d_u[t], W_T)
        before = states[:-1].transpose(0, 1).flatten(1, 2)
        d_W = torch.bmm(before.transpose(1, 2), d_u.transpose(0, 1).flatten(1, 2))
        return d_u, d_W


def lstm_states(steps: Tensor, W_h: Tensor) -> Tensor:
    """The states h_1..h_n from h_0 = c_0 = 0.

    Args:
        steps: x_t W_x + b of the gates o, i, f and the candidate g, floating point [n, R, B, 4 h].
        W_h: [R, h, 4 h], the same dtype.

    Returns:
        [n, R, B, h].
    """
    found = _Recurrence.apply(steps, W_h)
    assert isinstance(found, Tensor)
    return found
