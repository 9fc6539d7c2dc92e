"""A method's whole work, reading blocks at a given density: for timing on inputs without structure to select by."""

from dataclasses import replace

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.block_selection import check_share
from common.kernels.block_sparse_attention import BlockLists
from common.sparse_attention.blocks import earlier_segment_blocks, number_of_blocks, own_segment_blocks
from common.sparse_attention.selection import KeySelection, Selection, Selector


def blocks_at_density(
    length: int,
    heads: int,
    density: float,
    *,
    block_size: int,
    segment_size: int,
    device: torch.device | str,
    seed: int,
) -> BlockLists:
    """Row i reads ceil(density * (i + 1)) blocks: its own segment, and of the earlier blocks the first and a random draw.

    Args:
        length: tokens, N.
        heads: query heads, H.
        density: share of the causal blocks, in (0, 1].
        block_size: B.
        segment_size: S.
        device: where to draw.
        seed: of the draw.

    Returns:
        lists [1, H, T, T].

    Raises:
        InputError: the density is out of range.
    """
    check_share("density", density)
    T = number_of_blocks(length, block_size)
    earlier = earlier_segment_blocks(T, block_size, segment_size, device)
    wanted = (density * torch.arange(1, T + 1, device=device)).ceil().long() - segment_size // block_size
    generator = torch.Generator(device).manual_seed(seed)
    draw = torch.rand(1, heads, T, T, generator=generator, device=device)
    draw[..., 0] = 2.0  # the sink comes first
    rank = draw.masked_fill(~earlier, -1.0).argsort(dim=-1, descending=True).argsort(dim=-1)
    return BlockLists.from_mask((rank < wanted[:, None]) & earlier | own_segment_blocks(T, block_size, segment_size, device))


class AtDensity:
    """A selector with its whole cost, but reading given blocks: those that a model without structure cannot choose.

    A `KeySelection` is read as it is: its own settings say how much.
    """

    def __init__(self, selector: Selector, density: float, seed: int = 0):
        """At a density.

        Args:
            selector: works as always.
            density: of the blocks read in place of its selection, in (0, 1] (`blocks_at_density`).
            seed: of their draw, which is made once for each shape.

        Raises:
            InputError: the density is out of range.
        """
        check_share("density", density)
        self.selector, self.density, self.seed = selector, density, seed
        self._drawn: dict[tuple[int, int, int, int], BlockLists] = {}

    @property
    def name(self) -> str:
        """Short name."""
        return f"{self.selector.name} at a given density"

    def select(self, q: Tensor, k: Tensor) -> Selection | KeySelection:
        """As the selector's `select` for q [1, H, N, D] and k [1, Hkv, N, D], then other blocks."""
        selection = self.selector.select(q, k)
        if not isinstance(selection, Selection):
            return selection
        _, H, N, _ = q.shape
        shape = (H, N, selection.block_size, selection.segment_size)
        if shape not in self._drawn:
            self._drawn[shape] = blocks_at_density(
                N, H, self.density, block_size=shape[2], segment_size=shape[3], device=q.device, seed=self.seed
            )
        drawn = self._drawn[shape]
        if selection.blocks.counts.shape != drawn.counts.shape:  # as lists, whose making is part of the work
            raise InputError(f"q has shape {tuple(q.shape)}; blocks at a density are drawn for one sequence at a time.")
        return replace(selection, selected=drawn)
