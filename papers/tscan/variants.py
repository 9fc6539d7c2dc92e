"""The variants of the ablations: the paper's and the code's TSCAN, each with one thing changed."""

from dataclasses import replace
from typing import get_args

from common.errors import InputError
from papers.tscan.fusion import Fusion
from papers.tscan.temporal_spatial import CODE, PAPER, Variant

BASES = {"paper": PAPER, "code": CODE}
UNMASKED = replace(CODE, causal_hours=False, causal_variables=False)


def _all_variants() -> dict[str, Variant]:
    found = {**BASES}
    for base, variant in BASES.items():
        for branch in ("temporal", "spatial"):
            found[f"{base}_{branch}"] = replace(variant, branches=branch)
        for fusion in get_args(Fusion):
            found[f"{base}_{fusion}"] = replace(variant, fusion=fusion)
        for n in (1, 2, 8):
            found[f"{base}_n{n}"] = replace(variant, segments=n)
        found[f"{base}_no_carry"] = replace(variant, carry=False)
    found["paper_state"] = replace(PAPER, value="state")
    found["code_mlp"] = replace(CODE, value="mlp")
    found["code_unmasked"] = UNMASKED
    for n in (2, 8):
        found[f"code_unmasked_n{n}"] = replace(UNMASKED, segments=n)
    found["code_spatial_unmasked"] = replace(CODE, branches="spatial", causal_variables=False)
    found["code_observations"] = CODE  # reads the observation masks, too
    found["code_batch_8"] = CODE  # the code's batch
    return found


VARIANTS = _all_variants()


def variant_named(name: str) -> Variant:
    """A variant by its name. Raises InputError for an unknown one."""
    if name not in VARIANTS:
        raise InputError(f"There is no variant {name!r}; there are {', '.join(VARIANTS)}.")
    return VARIANTS[name]
