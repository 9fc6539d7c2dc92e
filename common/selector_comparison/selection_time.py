"""How long selecting and attending take, beside dense kernels on the same inputs in the same run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.configuration import Parameters
from common.errors import InputError
from common.experiment import Context, Measurement
from common.selector_comparison.families import Family, check_known
from common.sparse_attention import (
    KeySelection,
    Selection,
    Selector,
    block_attention_masses,
    selection_coverage,
    selection_density,
    sparse_attention,
    structured_inputs,
)
from common.sparse_attention.dense_kernels import dense_attention
from common.timing import median_milliseconds


class SelectionTimeSettings(Parameters):
    """Axes and parameters of a comparison.

    Attributes:
        length: tokens.
        seed: of the inputs.
        heads: query heads.
        key_heads: key heads.
        head_dim: dimensions of a head.
        dtype: of queries, keys and values.
        topic_logits: of the structured inputs: first and last key head.
        locality_logit: of the structured inputs.
        structure: length -> factor of both logits.
        block_size: tokens per block.
        thresholds: selector -> threshold, or candidates in the order of growing coverage: the first of them whose coverage
            reaches `target_coverage` is timed, and where none does, the last.
        target_coverage: attention mass to cover where there are candidates.
        dense: dense kernels to time: `flash`, `cudnn`, `flex`, `math`.
        repeat_milliseconds: time spent on repeating each measurement.
    """

    length: int
    seed: int
    heads: int
    key_heads: int
    head_dim: int
    dtype: str
    topic_logits: tuple[float, float]
    locality_logit: float
    structure: dict[int, float]
    block_size: int
    thresholds: dict[str, float | list[float]]
    target_coverage: float = 0.9
    dense: list[str]
    repeat_milliseconds: int


@dataclass(frozen=True)
class _Inputs:
    """One prefill, and what is needed to measure selections of it.

    Attributes:
        q: [1, H, N, D].
        k: [1, H_kv, N, D].
        v: [1, H_kv, N, D].
        natural: exact block mass in natural key order, [1, H, T, T].
    """

    q: Tensor
    k: Tensor
    v: Tensor
    natural: Tensor

    def density_and_coverage(self, selection: Selection | KeySelection) -> tuple[float, float]:
        """Executed density and coverage, means over heads."""
        permuted = isinstance(selection, Selection) and selection.key_order is not None
        mass = None if permuted else self.natural
        covered = selection_coverage(selection, self.q, self.k, mass)
        return float(selection_density(selection).mean()), float(covered.mean())


def ready_to_read(selector: Selector, q: Tensor, k: Tensor) -> Selection | KeySelection:
    """Select, and bring the selection into the form that the kernel reads: blocks as lists."""
    selection = selector.select(q, k)
    if isinstance(selection, Selection):
        _ = selection.blocks  # kept by the selection
    return selection


def first_reaching(candidates: Sequence[float], reached: Callable[[float], bool]) -> float:
    """The first candidate that reaches, by bisection; the last where none does.

    Raises:
        InputError: there are no candidates.
    """
    if not candidates:
        raise InputError("thresholds: a list of candidates must not be empty.")
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(candidates[middle]) else (middle + 1, high)
    return candidates[low]


@torch.inference_mode()
def compare_selection_time(settings: SelectionTimeSettings, families: Mapping[str, Family], context: Context) -> Measurement:
    """Time every selector alone, its attention alone, and both in one; and dense attention by each kernel.

    Rows, by method: `threshold`, `density` (executed) and `coverage`, means over heads; `selection_time` (lists of blocks
    included), `attention_time` (gathering permuted keys and values included) and `total_time` in ms; `selection_share`, in
    percent, and `speed_up` of the whole, `over` each dense kernel. Dense kernels are methods with a `total_time`.

    Args:
        settings: see `SelectionTimeSettings`.
        families: every selector of `thresholds` by its name.
        context: of the cell.

    Raises:
        InputError: `thresholds` names an unknown selector, `dense` an unknown kernel, or `structure` lacks the length.
    """
    s = settings
    check_known(s.thresholds, families, "thresholds")
    if s.length not in s.structure:
        raise InputError(f"structure has no factor for length {s.length}; it has {', '.join(map(str, s.structure))}.")
    measurement = Measurement()
    progress = context.progress(1 + len(s.dense) + len(s.thresholds))
    factor = s.structure[s.length]
    q, k, v = structured_inputs(
        s.length,
        heads=s.heads,
        key_heads=s.key_heads,
        head_dim=s.head_dim,
        topic_logits=(s.topic_logits[0] * factor, s.topic_logits[1] * factor),
        locality_logit=s.locality_logit * factor,
        seed=s.seed,
        device=context.device,
        dtype=getattr(torch, s.dtype),
    )
    inputs = _Inputs(q, k, v, block_attention_masses(q, k, s.block_size, key_orders={"natural": None})["natural"])
    progress.step("inputs and their attention")

    dense = {}
    for name in s.dense:
        dense[name] = median_milliseconds(dense_attention(name, q, k, v), context.device, s.repeat_milliseconds)
        measurement.add("total_time", dense[name], "ms", method=name, timing=True)
        progress.step(f"{name}: {dense[name]:.3f} ms")

    for name, given in s.thresholds.items():
        family = families[name]

        def reached(threshold: float, family: Family = family) -> bool:
            return inputs.density_and_coverage(family(threshold).select(q, k))[1] >= s.target_coverage

        threshold = first_reaching(given, reached) if isinstance(given, list) else given
        selector = family(threshold)
        selection = ready_to_read(selector, q, k)
        density, covered = inputs.density_and_coverage(selection)
        measurement.add("threshold", threshold, method=name)
        measurement.add("density", density, method=name)
        measurement.add("coverage", covered, method=name)

        def select(selector: Selector = selector) -> Selection | KeySelection:
            return ready_to_read(selector, q, k)

        def attend(selection: Selection | KeySelection = selection) -> Tensor:
            return sparse_attention(q, k, v, selection, check=False)

        def both(selector: Selector = selector) -> Tensor:
            return sparse_attention(q, k, v, ready_to_read(selector, q, k), check=False)

        times = {
            stage: median_milliseconds(function, context.device, s.repeat_milliseconds)
            for stage, function in (("selection", select), ("attention", attend), ("total", both))
        }
        for stage, time in times.items():
            measurement.add(f"{stage}_time", time, "ms", method=name, timing=True)
        for kernel, time in dense.items():
            share = 100 * times["selection"] / time
            measurement.add("selection_share", share, "%", method=name, timing=True, over=kernel)
            measurement.add("speed_up", time / times["total"], "x", method=name, timing=True, over=kernel)
        progress.step(f"{name}: {times['total']:.3f} ms, of which selection {times['selection']:.3f}")
        del selection, attend
    return measurement
