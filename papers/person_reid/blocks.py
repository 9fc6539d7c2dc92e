"""The attention blocks by name."""

from typing import Literal

from torch import nn

from papers.person_reid.cbam import CBAM
from papers.person_reid.channel_attention import ECA, SE, EffectiveSE
from papers.person_reid.global_context import GlobalContext
from papers.person_reid.little import Little
from papers.person_reid.non_local import NonLocal
from papers.person_reid.relation_aware import RGA

BlockName = Literal["se", "ese", "eca", "cbam", "gc", "nl", "nl1", "rga_sc", "little", "little_c", "little_s", "little_mult"]


def make_block(name: BlockName, C: int, positions: int, reduction: int) -> nn.Module:
    """A block for feature maps [B, C, H, W].

    Args:
        name: which.
        C: channels.
        positions: H W, which RGA-SC needs.
        reduction: of the spatial gate of `little` and its variants.

    Returns:
        The block with fresh parameters.
    """
    if name == "se":
        return SE(C)
    if name == "ese":
        return EffectiveSE(C)
    if name == "eca":
        return ECA(C)
    if name == "cbam":
        return CBAM(C)
    if name == "gc":
        return GlobalContext(C)
    if name == "nl":
        return NonLocal(C)
    if name == "nl1":
        return NonLocal(C, inner=1)
    if name == "rga_sc":
        return RGA(C, positions)
    if name == "little_c":
        return Little(C, parts="c", reduction=reduction)
    if name == "little_s":
        return Little(C, parts="s", reduction=reduction)
    if name == "little_mult":
        return Little(C, gate="mult", reduction=reduction)
    return Little(C, reduction=reduction)
