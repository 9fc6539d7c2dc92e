"""The classic sets of multiple-instance learning: MUSK1, MUSK2, Elephant, UCSB breast, Protein, Birds (brown creeper)."""

import difflib

import numpy as np

from common.data.bags import Bags
from common.data.fetch import fetch
from common.errors import DataError

MIL_CLASSIC = "mil-classic"
NAMES = ("musk1", "musk2", "elephant", "ucsb_breast", "protein", "birds_brown_creeper")


def load_mil_classic(name: str) -> Bags:
    """One of `NAMES`, as published: features are not standardised, some columns are constant, classes are 0 and 1.

    Raises:
        DataError: unknown name, or the file cannot be had.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        raise DataError(
            f"There is no classic multiple-instance set {name!r}; {f'did you mean {near[0]!r}?' if near else ', '.join(NAMES)}"
        )
    with np.load(fetch(MIL_CLASSIC, f"{name}.npz"), allow_pickle=False) as content:
        return Bags(
            content["X"].astype(np.float32), content["offsets"].astype(np.int64), content["y"].astype(np.int64),
            names=tuple(str(number) for number in content["bag_id"]),
        )  # fmt: skip
