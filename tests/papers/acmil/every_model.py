"""All models, small, in float64, with bags for them."""

from typing import Any

import torch

from papers.acmil.models import Method, Sizes, make_model

D_FEAT, L, D, CLASSES = 5, 8, 6, 3
SIZES = Sizes(L=L, D=D, pseudo_bags=3, clustered=2, heads=2)
METHODS = {
    "mean": Method(model="mean"),
    "max": Method(model="max"),
    "abmil": Method(model="abmil"),
    "clam": Method(model="clam"),
    "dsmil": Method(model="dsmil"),
    "transmil": Method(model="transmil"),
    "dtfd": Method(model="dtfd"),
    "mba": Method(model="acmil", M=3, K=0),
    "stkim": Method(model="acmil", M=1, K=3, p=0.6),
    "acmil": Method(model="acmil", M=3, K=3, p=0.6),
    "acmil_separate_trunks": Method(model="acmil", M=3, K=3, p=0.6, shared_trunk=False),
    "acmil_bernoulli": Method(model="acmil", M=3, K=3, p=0.6, bernoulli=True),
    "acmil_all_masked": Method(model="acmil", M=3, K=50, p=1.0),
    "mha": Method(model="acmil_mha", M=1, K=0),
    "mha_acmil": Method(model="acmil_mha", M=3, K=3, p=0.6),
}


def model_of(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = make_model(METHODS[name], SIZES, D_FEAT, CLASSES).double()
    if hasattr(model, "q"):  # learned queries begin near 0, where every instance counts alike
        torch.nn.init.normal_(model.q)  # pyright: ignore[reportArgumentType]
    return model


def bags_of(*sizes, padding=0, seed=1):
    """Bags X [B, N, D_feat] of the given sizes and their mask; padded places hold large numbers that nobody may read."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(sizes) + padding
    X = torch.full((len(sizes), longest, D_FEAT), 1e3, dtype=torch.float64)
    mask = torch.zeros(len(sizes), longest, dtype=torch.bool)
    for number, size in enumerate(sizes):
        X[number, :size] = torch.randn(size, D_FEAT, generator=generator, dtype=torch.float64)
        mask[number, :size] = True
    return X, mask
