"""From the words of `config.yaml` to a model."""

from typing import Literal

from pydantic import Field

from common.configuration import Parameters
from papers.acmil.abmil import ABMIL
from papers.acmil.acmil import ACMIL
from papers.acmil.bag_model import BagModel
from papers.acmil.clam import CLAM
from papers.acmil.dsmil import DSMIL
from papers.acmil.dtfd import DTFD
from papers.acmil.multi_head import MultiHeadACMIL
from papers.acmil.pooling import Pooling
from papers.acmil.transmil import TransMIL

ModelName = Literal["mean", "max", "abmil", "clam", "dsmil", "transmil", "dtfd", "acmil", "acmil_mha"]


class Method(Parameters):
    """A model and what ACMIL leaves open; the other models ignore everything but `model`.

    Attributes:
        model: which.
        M: branches.
        K: instances that STKIM may mask; 0 masks none.
        p: of STKIM.
        share: with one, K is at most that share of a bag, rounded up.
        bernoulli: mask each of the K with probability p, in place of exactly floor(K p) of them.
        shared_trunk: one V1 and V2 for all branches.
        diversity: weight of L_d.
        optimiser: "adamw" with decoupled weight decay (official code), "adam" with an L2 term (the paper's text).
        weight_decay: of either.
        epochs: passes over the training bags; None is the experiment's.
    """

    model: ModelName
    M: int = Field(default=5, ge=1)
    K: int = Field(default=10, ge=0)
    p: float = Field(default=0.6, ge=0, le=1)
    share: float | None = Field(default=None, gt=0, le=1)
    bernoulli: bool = False
    shared_trunk: bool = True
    diversity: float = Field(default=1.0, ge=0)
    optimiser: Literal["adamw", "adam"] = "adamw"
    weight_decay: float = Field(default=1e-5, ge=0)
    epochs: int | None = Field(default=None, ge=1)


class Sizes(Parameters):
    """Widths that all methods of an experiment share.

    Attributes:
        L: of reduced features.
        D: hidden size of attention.
        pseudo_bags: of DTFD.
        clustered: instances on each side that CLAM clusters.
        heads: of TransMIL and of multi-head attention; they divide L.
    """

    L: int = Field(ge=1)
    D: int = Field(ge=1)
    pseudo_bags: int = Field(default=4, ge=1)
    clustered: int = Field(default=8, ge=1)
    heads: int = Field(default=8, ge=1)


def make_model(method: Method, sizes: Sizes, D_feat: int, classes: int) -> BagModel:
    """A model with PyTorch's default initialisation, drawn from the global generator of the CPU."""
    L, D = sizes.L, sizes.D
    if method.model in ("mean", "max"):
        return Pooling(D_feat, L, classes, maximum=method.model == "max")
    if method.model == "abmil":
        return ABMIL(D_feat, L, D, classes)
    if method.model == "clam":
        return CLAM(D_feat, L, D, classes, k=sizes.clustered)
    if method.model == "dsmil":
        return DSMIL(D_feat, L, D, classes)
    if method.model == "transmil":
        return TransMIL(D_feat, L, classes, heads=sizes.heads)
    if method.model == "dtfd":
        return DTFD(D_feat, L, D, classes, G=sizes.pseudo_bags)
    masking = {"M": method.M, "K": method.K, "p": method.p, "share": method.share, "bernoulli": method.bernoulli}
    if method.model == "acmil_mha":
        return MultiHeadACMIL(D_feat, L, classes, heads=sizes.heads, diversity=method.diversity, **masking)
    return ACMIL(D_feat, L, D, classes, shared_trunk=method.shared_trunk, diversity=method.diversity, **masking)
