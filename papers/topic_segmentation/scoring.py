"""From segmentations to rows: every metric in every convention, in percent, and P_k by part of the documents."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.errors import InputError
from common.experiment import Measurement
from common.metrics.segmentation import (
    CONVENTIONS,
    Segments,
    boundary_scores,
    boundary_similarity,
    window_error,
    window_errors_by_document,
)


def pk_by_part(references: Sequence[Segments], hypotheses: Sequence[Segments], parts: int) -> list[float]:
    """Mean P_k in percent, standard convention, of consecutive parts of the documents: the items of paired comparisons.

    Args:
        references: one segmentation a document.
        hypotheses: as many.
        parts: at most so many, of nearly equal size; documents too short for a window are left out first.

    Raises:
        InputError: parts is below 1, or segmentations do not fit.
    """
    if parts < 1:
        raise InputError(f"parts is {parts}; it is at least 1.")
    counted = window_errors_by_document(references, hypotheses)
    counted = counted[counted[:, 1] > 0]
    shares = 100 * counted[:, 0] / counted[:, 1]
    return [float(part.mean()) for part in np.array_split(shares, min(parts, len(shares)))] if len(shares) else []


def add_scores(
    measurement: Measurement,
    references: Sequence[Segments],
    hypotheses: Sequence[Segments],
    *,
    method: str,
    parts: int,
    **setting: Any,
) -> None:
    """Add the rows of one segmenter on one data set.

    A convention under which no document has a window gets no row.

    Args:
        measurement: to add to.
        references: one segmentation a document.
        hypotheses: as many, of the same documents.
        method: the segmenter.
        parts: see `pk_by_part`.
        setting: coordinates of the rows.
    """
    for name, convention in CONVENTIONS.items():
        if window_errors_by_document(references, hypotheses, convention=convention)[:, 1].any():
            for metric in ("pk", "window_diff"):
                value = 100 * window_error(references, hypotheses, metric=metric, convention=convention)
                measurement.add(metric, value, "%", method=method, convention=name, **setting)
    for aggregate in ("documents", "boundaries"):
        value = 100 * boundary_similarity(references, hypotheses, aggregate=aggregate)
        measurement.add("boundary_similarity", value, "%", method=method, aggregate=aggregate, **setting)
    for name, value in boundary_scores(references, hypotheses)._asdict().items():
        measurement.add(f"boundary_{name}", 100 * value, "%", method=method, **setting)
    segments = np.mean([len(hypothesis) for hypothesis in hypotheses])
    measurement.add("segments_per_document", segments, "segments", method=method, **setting)
    for part, value in enumerate(pk_by_part(references, hypotheses, parts)):
        measurement.add("pk_of_part", value, "%", method=method, part=part, **setting)
