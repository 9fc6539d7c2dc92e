"""The LSTM baseline of the MIMIC-III benchmark (Harutyunyan et al., 2019): one layer, the last state, dropout, dense.

Written out, not `torch.nn.LSTM`: several networks of different seeds are computed side by side.
"""

import torch
from torch import Tensor, nn


class LSTMDirection(nn.Module):
    """[i; f; g; o] = W x_t + U h + b;  c = σ(f) c + σ(i) tanh(g);  h = σ(o) tanh(c)."""

    def __init__(self, variables: int, hidden: int):
        super().__init__()
        self.W, self.U = nn.Linear(variables, 4 * hidden), nn.Linear(hidden, 4 * hidden, bias=False)
        self.hidden = hidden
        nn.init.orthogonal_(self.U.weight)

    def forward(self, X: Tensor) -> Tensor:
        """X [B, T, d] -> the last h [B, hidden]."""
        inputs = self.W(X)
        h = c = X.new_zeros(X.shape[0], self.hidden)
        for t in range(X.shape[1]):
            i, f, g, o = (inputs[:, t] + self.U(h)).chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h


class LSTM(nn.Module):
    """One direction, or two whose last states are concatenated. Padded hours stand in front and are read as zeros."""

    def __init__(self, variables: int, outputs: int, hidden: int, dropout: float, *, both_directions: bool):
        super().__init__()
        self.directions = nn.ModuleList(LSTMDirection(variables, hidden) for _ in range(2 if both_directions else 1))
        self.drop, self.dense = nn.Dropout(dropout), nn.Linear(hidden * len(self.directions), outputs)

    def forward(self, X: Tensor, present: Tensor | None = None) -> Tensor:
        """X [B, T, d] -> logits [B, outputs]."""
        states = [direction(X.flip(1) if number else X) for number, direction in enumerate(self.directions)]
        return self.dense(self.drop(torch.cat(states, dim=-1)))
