"""Segmenters that do not read the text: whoever does not beat them has found nothing."""

import numpy as np

from common.metrics.segmentation import Segments, segments_of


def no_boundary(reference: Segments) -> tuple[int, ...]:
    """One segment."""
    return (sum(reference),)


def every_boundary(reference: Segments) -> tuple[int, ...]:
    """Every unit a segment."""
    return (1,) * sum(reference)


def even(reference: Segments) -> tuple[int, ...]:
    """The right number m of segments of nearly equal length: cuts after unit floor(i n / m)."""
    n, m = sum(reference), len(reference)
    return tuple((i + 1) * n // m - i * n // m for i in range(m))


def random_boundaries(reference: Segments, generator: np.random.Generator) -> tuple[int, ...]:
    """Each gap a boundary with probability m / n, the rate of the reference."""
    n = sum(reference)
    return segments_of(generator.random(n - 1) < len(reference) / n)
