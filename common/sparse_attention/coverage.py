"""How good a selection is: coverage (attention mass kept) against density (blocks read).

Both are per head; `.mean()` gives the mean over heads and rows, since all heads have the same rows.

**Denominator of density.** T(T+1)/2, the number of causal blocks, always. **Numerator**: when keys are permuted inside
segments, blocks of the own segment above the diagonal may hold visible keys and are read too; `counted="executed"` counts them,
as a kernel executes them, so that reading everything gives a density above 1; `counted="causal"` leaves them out.

**Oracle.** Blocks in descending order of their true mass. Blocks that a method always reads (own segment, sink) are *not*
forced on the oracle unless `forced` is given; forced blocks are then taken first and count in density and coverage like all
others.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from common.errors import InputError
from common.kernels.block_selection.top_p import check_share
from common.sparse_attention.block_mass import block_attention_mass
from common.sparse_attention.blocks import causal_blocks, check_sizes, readable_blocks
from common.sparse_attention.selection import KeySelection, Selection

Scope = Literal["matrix", "row"]


def _check_mass(mass: Tensor) -> None:
    if mass.ndim != 4 or mass.shape[2] != mass.shape[3] or not mass.is_floating_point():
        raise InputError(f"mass is {mass.dtype} {tuple(mass.shape)}; expected a floating-point tensor [batch, heads, T, T].")


def _check_mask(name: str, mask: Tensor) -> None:
    if mask.ndim != 4 or mask.shape[2] != mask.shape[3] or mask.dtype != torch.bool:
        raise InputError(f"{name} is {mask.dtype} {tuple(mask.shape)}; expected bool [batch, heads, T, T].")


def _check_scope(scope: str) -> None:
    if scope not in ("matrix", "row"):
        raise InputError(f"scope is {scope!r}; choose 'matrix' or 'row'.")


def coverage(mask: Tensor, mass: Tensor) -> Tensor:
    """Share of the true attention mass in the selected blocks, mean over query blocks.

    Args:
        mask: bool [B, H, T, T], the selected blocks.
        mass: [B, H, T, T], exact block mass in the same key order (`block_attention_mass`); rows sum to 1.

    Returns:
        float64 [B, H], in [0, 1] but for rounding.

    Raises:
        InputError: a shape or dtype does not fit.
    """
    _check_mass(mass)
    _check_mask("mask", mask)
    if mask.shape != mass.shape:
        raise InputError(f"mask has shape {tuple(mask.shape)} and mass {tuple(mass.shape)}; they must be equal.")
    return mass.double().masked_fill(~mask, 0.0).sum((-1, -2)) / mass.shape[-1]


def density(mask: Tensor, segment_size: int, block_size: int, counted: Literal["executed", "causal"] = "executed") -> Tensor:
    """Selected blocks divided by the number of causal blocks, T(T+1)/2.

    Args:
        mask: bool [B, H, T, T], the selected blocks.
        segment_size: tokens per segment of the key order; block_size when nothing is permuted.
        block_size: tokens per block.
        counted: "executed": every selected block, also those of the own segment above the diagonal (can exceed 1); "causal":
            only blocks at or below the diagonal.

    Returns:
        float64 [B, H].

    Raises:
        InputError: a shape, dtype or size does not fit, or a block of a later segment is selected.
    """
    _check_mask("mask", mask)
    check_sizes(block_size, segment_size)
    if counted not in ("executed", "causal"):
        raise InputError(f"counted is {counted!r}; choose 'executed' or 'causal'.")
    T = mask.shape[-1]
    if bool((mask & ~readable_blocks(T, block_size, segment_size, mask.device)).any()):
        raise InputError(
            f"mask selects a block of a later segment (segment_size {segment_size}, block_size {block_size}); it is not causal."
        )
    selected = mask if counted == "executed" else mask & causal_blocks(T, mask.device)
    return selected.sum((-1, -2)).double() / (T * (T + 1) / 2)


def selection_density(selection: Selection | KeySelection, counted: Literal["executed", "causal"] = "executed") -> Tensor:
    """Density of what a selector returned: blocks as `density` counts them, pairs of query and key for a `KeySelection`.

    Returns:
        float64 [B, H].

    Raises:
        InputError: as `density`.
    """
    if isinstance(selection, Selection):
        return density(selection.mask, selection.segment_size, selection.block_size, counted)
    return selection.density().double()


def selection_coverage(selection: Selection | KeySelection, q: Tensor, k: Tensor, mass: Tensor | None = None) -> Tensor:
    """Coverage of what a selector returned for q [B, H, N, D] and k [B, Hkv, N, D].

    Args:
        selection: of q and k.
        q: queries.
        k: keys.
        mass: exact block mass in the selection's key order, where it is at hand; a `KeySelection` needs none.

    Returns:
        float64 [B, H].

    Raises:
        InputError: as `coverage` and `block_attention_mass`.
    """
    if not isinstance(selection, Selection):
        return selection.coverage(q, k).double()
    if mass is None:
        mass = block_attention_mass(q, k, selection.block_size, key_order=selection.key_order)
    return coverage(selection.mask, mass)


class OracleCurve(NamedTuple):
    """Coverage of the oracle at given densities.

    Attributes:
        density: float64 [P], the densities really used: counts of whole blocks divided by T(T+1)/2.
        coverage: float64 [B, H, P].
    """

    density: Tensor
    coverage: Tensor


def _oracle_order(mass: Tensor, scope: Scope, forced: Tensor | None) -> Tensor:
    """Mass in the order in which the oracle takes blocks: float64 [B, H, 1, T * T] over the matrix, [B, H, T, T] per row."""
    rank = mass.double()
    if forced is not None:
        rank = rank + 2.0 * forced  # A block's mass is at most 1, so forced blocks come first.
    values = mass.double()
    if scope == "matrix":
        rank, values = rank.flatten(2)[:, :, None], values.flatten(2)[:, :, None]
    return values.gather(-1, rank.argsort(dim=-1, descending=True, stable=True))


def _check_forced(forced: Tensor | None, mass: Tensor) -> None:
    if forced is None:
        return
    _check_mask("forced", forced)
    if forced.shape != mass.shape:
        raise InputError(f"forced has shape {tuple(forced.shape)} and mass {tuple(mass.shape)}; they must be equal.")


def oracle_curve(mass: Tensor, densities: Tensor, *, scope: Scope = "matrix") -> OracleCurve:
    """Coverage as a function of density when blocks are taken in order of true mass.

    Args:
        mass: [B, H, T, T], exact block mass; rows sum to 1.
        densities: [P], wanted densities in [0, 1].
        scope: "matrix": the floor(density * T(T+1)/2) largest blocks of the whole matrix, the largest coverage any selection of
            that size can have. "row": the ceil(density * (i + 1)) largest blocks of every row i.

    Returns:
        the densities really used and the coverage at each; coverage never falls where the wanted density grows.

    Raises:
        InputError: a shape does not fit or a density is outside [0, 1].
    """
    _check_mass(mass)
    _check_scope(scope)
    densities = torch.as_tensor(densities, dtype=torch.float64, device=mass.device)
    if densities.ndim != 1 or not bool(((densities >= 0) & (densities <= 1)).all()):
        raise InputError(f"densities are {densities.tolist()}; expected a list of numbers between 0 and 1.")
    T = mass.shape[-1]
    causal = T * (T + 1) // 2
    # Entry n: mass of the first n blocks.
    reached = pad(_oracle_order(mass, scope, None).cumsum(-1), (1, 0))
    # 1e-9 keeps n / causal * causal from falling to the next lower (higher) whole number.
    if scope == "matrix":
        counts = (densities * causal + 1e-9).floor().long()[None]
    else:
        allowed = torch.arange(1, T + 1, device=mass.device, dtype=torch.float64)
        counts = (allowed[:, None] * densities - 1e-9).ceil().long().clamp(min=0)
    picked = reached.gather(-1, counts.expand(*reached.shape[:2], *counts.shape))
    return OracleCurve(counts.sum(0).double() / causal, picked.sum(2) / T)


def density_at_coverage(mass: Tensor, target: float, *, scope: Scope = "matrix", forced: Tensor | None = None) -> Tensor:
    """Smallest density at which oracle selection reaches a coverage, per head (PBS-Attn, Tables 4 and 6 at 0.975).

    Args:
        mass: [B, H, T, T], exact block mass; rows sum to 1.
        target: coverage to reach, in (0, 1].
        scope: "matrix": mean coverage of the head reaches the target; "row": every row does.
        forced: bool [B, H, T, T], blocks taken first whatever their mass; None forces nothing, as a pure oracle.

    Returns:
        float64 [B, H]: blocks taken (all counted, also those above the diagonal) divided by T(T+1)/2.

    Raises:
        InputError: a shape or dtype does not fit, or target is not in (0, 1].
    """
    _check_mass(mass)
    _check_scope(scope)
    _check_forced(forced, mass)
    check_share("target", target)
    T = mass.shape[-1]
    reached = _oracle_order(mass, scope, forced).cumsum(-1)
    total = reached[..., -1:]
    taken = (reached < total * (target - 1e-12)).sum(-1) + 1
    if forced is not None:
        taken = taken.maximum(forced.flatten(2).sum(-1, keepdim=True) if scope == "matrix" else forced.sum(-1))
    return taken.sum(-1).double() / (T * (T + 1) / 2)
