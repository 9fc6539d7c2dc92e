"""GRU-D (Che et al., 2018): a GRU whose inputs and state decay with the time since a variable was observed.

γ = exp(-max(0, W δ + b));  x̂ = m x + (1 - m) (γ_x x_last + (1 - γ_x) mean);  h <- γ_h h;  a GRU step on [x̂; m].
The data are normalised, so that the mean is 0; x, filled forward, is x_last where nothing was observed.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class GRUD(nn.Module):
    """GRU-D, then dropout and a dense layer on the last state.

    Args:
        variables: d.
        outputs: logits.
        hidden: of the state.
        dropout: before the dense layer.
    """

    def __init__(self, variables: int, outputs: int, hidden: int, dropout: float):
        super().__init__()
        self.hidden = hidden
        self.decay_x = nn.Parameter(torch.full((variables,), 0.1))  # W_γx is diagonal
        self.offset_x = nn.Parameter(torch.zeros(variables))
        self.decay_h = nn.Linear(variables, hidden)
        self.W, self.U = nn.Linear(2 * variables, 3 * hidden), nn.Linear(hidden, 3 * hidden)
        self.drop, self.dense = nn.Dropout(dropout), nn.Linear(hidden, outputs)

    def forward(self, X: Tensor, present: Tensor | None = None) -> Tensor:
        """X [B, T, 3 d]: values filled forward, 1 where observed, hours since observed -> logits [B, outputs]."""
        x, m, delta = X.chunk(3, dim=-1)
        gamma_x = torch.exp(-relu(self.decay_x * delta + self.offset_x))
        gamma_h = torch.exp(-relu(self.decay_h(delta)))
        inputs = self.W(torch.cat([m * x + (1 - m) * gamma_x * x, m], dim=-1))
        h = X.new_zeros(X.shape[0], self.hidden)
        for t in range(X.shape[1]):
            h = gamma_h[:, t] * h
            r_x, z_x, n_x = inputs[:, t].chunk(3, dim=-1)
            r_h, z_h, n_h = self.U(h).chunk(3, dim=-1)
            r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
            h = (1 - z) * (n_x + r * n_h).tanh() + z * h
        return self.dense(self.drop(h))
