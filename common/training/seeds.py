"""Seeds: many independent ones from one."""

import hashlib


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose: different purposes give independent seeds, the same ones the same seed on every machine.

    Args:
        seed: of the experiment.
        purpose: words and numbers that name what is drawn, for example "order", epoch.

    Returns:
        An integer in [0, 2^63), for `torch.Generator.manual_seed`.
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
