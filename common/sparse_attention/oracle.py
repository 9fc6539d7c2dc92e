"""The mass oracle: blocks by their exact attention mass. An upper bound for selectors, quadratic in the length."""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import InputError
from common.kernels.block_selection.top_p import check_share, shortest_prefix
from common.sparse_attention.block_mass import block_attention_mass
from common.sparse_attention.blocks import check_queries_and_keys, check_sizes, readable_blocks
from common.sparse_attention.coverage import Scope
from common.sparse_attention.selection import Selection


def oracle_mask(
    mass: Tensor,
    block_size: int,
    segment_size: int,
    *,
    coverage: float | None = None,
    density: float | None = None,
    scope: Scope = "row",
) -> Tensor:
    """Blocks with the largest exact mass, either up to a coverage or up to a density.

    Args:
        mass: float [B, H, T, T], exact block mass (`block_attention_mass`); rows sum to 1.
        block_size: tokens per block.
        segment_size: tokens per segment of the key order; block_size when nothing is permuted.
        coverage: share of the mass to keep, in (0, 1]: the shortest prefix that reaches it. 1 keeps every readable block.
        density: share of the T(T+1)/2 causal blocks to read, in (0, 1].
        scope: "row": coverage in every row, or ceil(density * (i + 1)) blocks in row i. "matrix": mean coverage of the head, or
            floor(density * T(T+1)/2) blocks anywhere.

    Returns:
        bool [B, H, T, T].

    Raises:
        InputError: a size or share does not fit, or not exactly one of coverage and density is given.
    """
    check_sizes(block_size, segment_size)
    if mass.ndim != 4 or mass.shape[2] != mass.shape[3]:
        raise InputError(f"mass has shape {tuple(mass.shape)}; expected [batch, heads, T, T].")
    if scope not in ("matrix", "row"):
        raise InputError(f"scope is {scope!r}; choose 'matrix' or 'row'.")
    B, H, T, _ = mass.shape
    readable = readable_blocks(T, block_size, segment_size, mass.device).expand(B, H, T, T)
    shares, allowed = (mass, readable) if scope == "row" else (mass.double().flatten(2) / T, readable.flatten(2))
    if coverage is not None and density is None:
        check_share("coverage", coverage)
        return shortest_prefix(shares, coverage, allowed).view(B, H, T, T)
    if density is None or coverage is not None:
        raise InputError(f"coverage is {coverage} and density {density}; give exactly one of them.")
    check_share("density", density)
    if scope == "row":
        counts = (torch.arange(1, T + 1, device=mass.device).double() * density - 1e-9).ceil()[:, None]
    else:
        counts = torch.tensor([int(T * (T + 1) / 2 * density + 1e-9)], device=mass.device)
    columns = shares.masked_fill(~allowed, -1.0).argsort(dim=-1, descending=True, stable=True)
    taken = torch.arange(columns.shape[-1], device=mass.device) < counts
    return (torch.zeros_like(allowed).scatter(-1, columns, taken.expand_as(columns)) & allowed).view(B, H, T, T)


@dataclass(frozen=True)
class Oracle:
    """Select the blocks with the largest exact mass, keys in natural order.

    Attributes:
        block_size: tokens per block.
        coverage: share of the mass to keep, in (0, 1]; None when density is given.
        density: share of the causal blocks to read, in (0, 1]; None when coverage is given.
        scope: over each "row" or over the whole "matrix" (`oracle_mask`).
    """

    block_size: int = 128
    coverage: float | None = 0.9
    density: float | None = None
    scope: Scope = "row"

    def __post_init__(self):
        check_sizes(self.block_size, self.block_size)
        if (self.coverage is None) == (self.density is None):
            raise InputError(f"coverage is {self.coverage} and density {self.density}; give exactly one of them.")
        if self.coverage is not None:
            check_share("coverage", self.coverage)
        if self.density is not None:
            check_share("density", self.density)

    @property
    def name(self) -> str:
        """Short name, used in tables."""
        return "oracle"

    def select(self, q: Tensor, k: Tensor) -> Selection:
        """Select blocks for q [B, H, N, D], k [B, Hkv, N, D]. Takes O(N^2 D) time."""
        check_queries_and_keys(q, k)
        mass = block_attention_mass(q, k, self.block_size)
        mask = oracle_mask(
            mass, self.block_size, self.block_size, coverage=self.coverage, density=self.density, scope=self.scope
        )
        return Selection(mask, block_size=self.block_size, segment_size=self.block_size)
