"""How the head joins the branches (Nie et al., 2023, Table VI): five ways, and the head of a single branch.

Every head takes a list of branch outputs [B, hours, d] and, where padding is hidden, which hours are present; it averages
over hours.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Fusion = Literal["concatenation_of_hours", "concatenation_of_variables", "addition", "bilinear", "maximum"]


def mean_over_hours(z: Tensor, present: Tensor | None) -> Tensor:
    """[B, hours, d] -> [B, d], over the hours present, bool [B, hours]; over all where none is."""
    if present is None:
        return z.mean(1)
    weight = present.to(z.dtype)
    weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, torch.ones_like(weight))
    return (z * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)


class Single(nn.Module):
    """Mean over hours, dropout, dense: the head of the one-branch files."""

    def __init__(self, variables: int, outputs: int, dropout: float):
        super().__init__()
        self.drop, self.dense = nn.Dropout(dropout), nn.Linear(variables, outputs)

    def forward(self, z: list[Tensor], present: Tensor | None) -> Tensor:
        """Logits [B, outputs]."""
        return self.dense(self.drop(mean_over_hours(z[0], present)))


class ConcatenationOfHours(Single):
    """Code: [z^t; z^s] along time, then the mean over all hours: the average of the two branch means."""

    def forward(self, z: list[Tensor], present: Tensor | None) -> Tensor:
        """Logits [B, outputs]."""
        both = None if present is None else torch.cat([present, present], dim=1)
        return self.dense(self.drop(mean_over_hours(torch.cat(z, dim=1), both)))


class ConcatenationOfVariables(nn.Module):
    """[mean z^t; mean z^s] of 2d columns: what "concatenation" usually means."""

    def __init__(self, variables: int, outputs: int, dropout: float):
        super().__init__()
        self.drop, self.dense = nn.Dropout(dropout), nn.Linear(2 * variables, outputs)

    def forward(self, z: list[Tensor], present: Tensor | None) -> Tensor:
        """Logits [B, outputs]."""
        return self.dense(self.drop(torch.cat([mean_over_hours(x, present) for x in z], dim=1)))


class Addition(Single):
    """z^t + z^s."""

    def forward(self, z: list[Tensor], present: Tensor | None) -> Tensor:
        """Logits [B, outputs]."""
        return self.dense(self.drop(mean_over_hours(z[0] + z[1], present)))


class Bilinear(nn.Module):
    """Mean over hours of the outer product z^t_h (z^s_h)^T, d x d columns."""

    def __init__(self, variables: int, outputs: int, dropout: float):
        super().__init__()
        self.drop, self.dense = nn.Dropout(dropout), nn.Linear(variables * variables, outputs)

    def forward(self, z: list[Tensor], present: Tensor | None) -> Tensor:
        """Logits [B, outputs]."""
        products = (z[0][..., :, None] * z[1][..., None, :]).flatten(2)
        return self.dense(self.drop(mean_over_hours(products, present)))


class Maximum(nn.Module):
    """Predict, then fuse: each branch has a dense layer of its own, and the greater logit is kept."""

    def __init__(self, variables: int, outputs: int, dropout: float):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.dense = nn.ModuleList(nn.Linear(variables, outputs) for _ in range(2))

    def forward(self, z: list[Tensor], present: Tensor | None) -> Tensor:
        """Logits [B, outputs]."""
        a, b = (dense(self.drop(mean_over_hours(x, present))) for x, dense in zip(z, self.dense, strict=True))
        return torch.maximum(a, b)


FUSIONS = {
    "single": Single,
    "concatenation_of_hours": ConcatenationOfHours,
    "concatenation_of_variables": ConcatenationOfVariables,
    "addition": Addition,
    "bilinear": Bilinear,
    "maximum": Maximum,
}
