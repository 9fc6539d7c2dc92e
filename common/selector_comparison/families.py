"""The selectors that are compared: a family is one selector for each value of its threshold."""

from collections.abc import Callable, Iterable, Mapping

from common.errors import InputError
from common.selector_comparison.curves import DENSE, ORACLE, value_at_density
from common.sparse_attention import FlexPrefill, MeanPooling, Oracle, Selector, StreamingLLM, VerticalSlash, XAttention

__all__ = ["DENSE", "ORACLE", "Family", "baseline_families", "check_known", "value_at_density", "with_oracle"]

Family = Callable[[float], Selector]
"""A selector for each value of its threshold."""


def baseline_families(block_size: int) -> dict[str, Family]:
    """The selectors that every paper is compared with, and what is swept of each.

    `mean_pooling` and `xattention` (tau), `flexprefill` (gamma), `vertical_slash` (tokens of its budget: an eighth columns, the
    rest offsets, counted in blocks), `streaming_llm` (tokens of the window).
    """

    def vertical_slash(tokens: float) -> Selector:
        columns = max(block_size, 30, round(tokens / 8))
        return VerticalSlash(
            block_size=block_size, vertical_size=columns, slash_size=max(block_size, 50, round(tokens) - columns), unit="blocks"
        )

    return {
        "mean_pooling": lambda tau: MeanPooling(block_size=block_size, tau=tau),
        "xattention": lambda tau: XAttention(block_size=block_size, tau=tau),
        "flexprefill": lambda gamma: FlexPrefill(block_size=block_size, gamma=gamma),
        "vertical_slash": vertical_slash,
        "streaming_llm": lambda window: StreamingLLM(
            block_size=block_size, sink_tokens=block_size, window_tokens=max(1, round(window))
        ),
    }


def with_oracle(families: Mapping[str, Family], block_size: int) -> dict[str, Family]:
    """The families and `oracle`: the blocks of largest true mass, by density, the same share of every row.

    Raises:
        InputError: there is a family of that name already.
    """
    if ORACLE in families:
        raise InputError(f"families has {ORACLE!r}, which is built in; choose another name.")
    return {**families, ORACLE: lambda density: Oracle(block_size=block_size, coverage=None, density=density)}


def check_known(named: Iterable[str], families: Iterable[str], field: str = "sweeps") -> None:
    """Check that a setting names selectors that there are.

    Raises:
        InputError: with those that there are not.
    """
    known = list(families)
    if unknown := set(named) - set(known):
        raise InputError(f"{field} names {sorted(unknown)}; known selectors are {', '.join(known)}.")
