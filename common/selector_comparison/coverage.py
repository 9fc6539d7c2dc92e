"""How much of the attention mass selectors cover, at equal density.

A selector has a threshold of its own that trades blocks for coverage, and 0.9 means something else in each. So every selector
is swept over its threshold, and compared where the curves have equal density: between two points of a sweep on a straight line,
and nowhere outside the sweep.
"""

from collections.abc import Mapping

import torch
from numpy import float64
from numpy.typing import NDArray
from torch import Tensor

from common.errors import InputError
from common.experiment import Context, Measurement
from common.selector_comparison.families import ORACLE, Family, check_known, value_at_density
from common.selector_comparison.subjects import SubjectSettings, load_subject, token_windows
from common.sparse_attention import (
    Selection,
    block_attention_masses,
    oracle_curve,
    selection_coverage,
    selection_density,
)
from common.sparse_attention.transformers_attention import recording

NATURAL = "natural"


class CoverageSettings(SubjectSettings):
    """Axes and parameters of a comparison, beyond those of the subject.

    Attributes:
        text: name of the text.
        length: tokens a window.
        windows: windows of the text; each is an item of the statistics.
        block_size: tokens per block.
        sweeps: selector -> values of its threshold.
        densities: at which the curves are compared.
        layers: only the first layers, or all (0).
    """

    text: str
    length: int
    windows: int
    block_size: int
    sweeps: dict[str, list[float]]
    densities: list[float]
    layers: int


class _Sweeps:
    """Density and coverage of every selector at every value of its sweep, gathered layer by layer: [heads] each."""

    def __init__(self, settings: CoverageSettings, families: Mapping[str, Family]):
        self.settings = settings
        self.families = families
        self.points: dict[tuple[str, float], list[tuple[Tensor, Tensor]]] = {}

    def on_attention(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Measure one layer from its queries [1, H, N, d] and keys [1, H_kv, N, d]."""
        s = self.settings
        if s.layers and layer >= s.layers:
            return
        selections = {
            (name, value): self.families[name](value).select(q, k) for name, values in s.sweeps.items() for value in values
        }
        orders: dict[str, Tensor | None] = {NATURAL: None}
        laid_out = {}  # the order of each selection by its name in `orders`; most sweeps have one
        for (name, value), selection in selections.items():
            order = selection.key_order if isinstance(selection, Selection) else None
            if order is None:
                laid_out[name, value] = NATURAL
                continue
            same = (known for known, other in orders.items() if other is not None and torch.equal(other, order))
            laid_out[name, value] = next(same, f"{name} {value}")
            orders[laid_out[name, value]] = order
        masses = block_attention_masses(q, k, s.block_size, key_orders=orders)
        for point, selection in selections.items():
            share = selection_density(selection, counted="causal")
            self._keep(point, share, selection_coverage(selection, q, k, masses[laid_out[point]]))
        curve = oracle_curve(masses[NATURAL], torch.tensor(s.densities), scope="row")
        for number, wanted in enumerate(s.densities):
            reached = curve.coverage[..., number]
            self._keep((ORACLE, wanted), curve.density[number].expand_as(reached), reached)

    def _keep(self, point: tuple[str, float], share: Tensor, covered: Tensor) -> None:
        self.points.setdefault(point, []).append((share[0].double(), covered[0].double()))

    def per_head(self, name: str, values: list[float]) -> tuple[NDArray[float64], NDArray[float64]]:
        """Density and coverage of a sweep: [values, layers, heads] each."""
        densities, coverages = (
            torch.stack([torch.stack([pair[place] for pair in self.points[name, value]]) for value in values]).cpu().numpy()
            for place in range(2)
        )
        return densities, coverages


@torch.inference_mode()
def compare_coverage(settings: CoverageSettings, families: Mapping[str, Family], context: Context) -> Measurement:
    """Sweep every selector over windows of a text, one forward pass of the model a window.

    Rows, means over layers and heads: `density` and `coverage` by `threshold`, and `coverage_at_density` by `density` where the
    sweep reaches it. The method `oracle` takes the blocks of largest true mass, the same share of every row. Arrays of the
    first window: `density_<selector>` and `coverage_<selector>`, float64 [thresholds, layers, heads].

    Args:
        settings: see `CoverageSettings`.
        families: every selector of the sweeps by its name.
        context: of the cell.

    Raises:
        InputError: a sweep names a selector that is not among the families, or `oracle`, or the text is too short.
    """
    if ORACLE in settings.sweeps:
        raise InputError(f"sweeps names {ORACLE!r}, which is measured at `densities` in any case; leave it out.")
    check_known(settings.sweeps, families)
    measurement = Measurement()
    subject = load_subject(settings, settings.length, context.device)
    windows = token_windows(subject, settings.text, settings.length, settings.windows)
    progress = context.progress(len(windows))
    for number, window in enumerate(windows):
        sweeps = _Sweeps(settings, families)
        with recording(subject.model, sweeps.on_attention):
            subject.model.base_model(window[None].to(context.device), use_cache=False)
        for name, values in {**settings.sweeps, ORACLE: settings.densities}.items():
            densities, coverages = sweeps.per_head(name, values)
            if number == 0:
                measurement.arrays |= {f"density_{name}": densities, f"coverage_{name}": coverages}
            densities, coverages = densities.mean((1, 2)), coverages.mean((1, 2))
            for value, one_density, one_coverage in zip(values, densities, coverages, strict=True):
                measurement.add("density", one_density, method=name, threshold=value, window=number)
                measurement.add("coverage", one_coverage, method=name, threshold=value, window=number)
            for wanted in settings.densities:
                covered = value_at_density(densities, coverages, wanted)
                if covered is not None:
                    measurement.add("coverage_at_density", covered, method=name, density=wanted, window=number)
        progress.step(f"window {number}")
    return measurement
