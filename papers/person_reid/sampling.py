"""Batches of P identities with K images each."""

import numpy as np

from common.errors import InputError
from common.training import derived_seed


def identity_batches(identities: np.ndarray, P: int, K: int, steps: int, seed: int) -> np.ndarray:
    """Which images each step takes.

    Identities come in a random order that is renewed when fewer than P are left; K images of an identity are drawn without
    replacement, or with it where it has fewer.

    Args:
        identities: int64 [images].
        P: identities of a batch.
        K: images of each.
        steps: batches.
        seed: the same seed gives the same batches.

    Returns:
        int64 [steps, P K], numbers of images; images of an identity stand together.

    Raises:
        InputError: there are fewer than P identities, or a number is not positive.
    """
    rows_of = {identity: np.flatnonzero(identities == identity) for identity in np.unique(identities)}
    if min(P, K, steps) < 1 or len(rows_of) < P:
        raise InputError(f"P = {P}, K = {K}, steps = {steps} with {len(rows_of)} identities; a batch takes P different ones.")
    rng = np.random.default_rng(derived_seed(seed, "batches"))
    found = np.empty((steps, P, K), dtype=np.int64)
    order: list[int] = []
    for step in range(steps):
        if len(order) < P:
            order = list(rng.permutation(list(rows_of)))
        for place in range(P):
            rows = rows_of[order.pop()]
            found[step, place] = rng.choice(rows, K, replace=len(rows) < K)
    return found.reshape(steps, P * K)
