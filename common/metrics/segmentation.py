"""Linear segmentation: P_k, WindowDiff, boundary similarity and boundary F1, in every convention that published work uses.

A segmentation of n units (sentences, paragraphs, turns) is the sequence of its segments' lengths, which sum to n. Gap g, of
n - 1, lies between unit g and unit g + 1; a boundary is a gap where one segment ends and the next begins. The ends of a
document are no boundaries.

P_k (Beeferman, Berger and Lafferty, 1999) slides a window over the document and counts an error where reference and hypothesis
disagree whether the two units k apart lie in one segment:

    P_k = 1 / (n - k) · Σ_{i=0}^{n-k-1} [ (b_r(i, i+k) > 0) ≠ (b_h(i, i+k) > 0) ]

with b(i, j) the number of boundaries between units i and j. WindowDiff (Pevzner and Hearst, 2002) counts an error where the
numbers differ, b_r ≠ b_h. Both are shares of errors: lower is better.

Published numbers differ in k, in what happens at the ends, and in how documents are put together: `Convention` says which, and
`CONVENTIONS` names those found in published code and papers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from common.errors import InputError

Segments = Sequence[int]
"""Lengths of the segments of a document, in units."""

WindowMetric = Literal["pk", "window_diff"]


@dataclass(frozen=True)
class Convention:
    """How windows are laid and how documents are put together.

    Attributes:
        window: k itself, or half of what is meant by a mean segment of each `document` or of the whole `corpus`.
        mean: the mean whose half is k: units in a `segment`, or `inner_gaps`, the gaps in a segment, one less.
        rounding: of that half: `half_up`, as Python 2 did, or `half_even`, as Python 3 does.
        least: k is at least this.
        ends: `inside`, windows within the document, n - k of them; `final_boundary`, the end of the document counts as one more
            boundary, n - k + 1 windows; `padded`, k units are added before and behind, n + k windows (Lamprier et al., 2007).
        aggregate: mean over `documents`; over all `windows` of all documents; or all documents `concatenated` to one, in which
            the ends of documents are boundaries that everyone finds.
    """

    window: Literal["document", "corpus"] | int = "document"
    mean: Literal["segment", "inner_gaps"] = "segment"
    rounding: Literal["half_up", "half_even"] = "half_up"
    least: int = 2
    ends: Literal["inside", "final_boundary", "padded"] = "inside"
    aggregate: Literal["documents", "windows", "concatenated"] = "documents"

    def __post_init__(self) -> None:
        if isinstance(self.window, int) and self.window < 1:
            raise InputError(f"window is {self.window}; a fixed k is at least 1.")
        if self.least < 1:
            raise InputError(f"least is {self.least}; k is at least 1.")


STANDARD = Convention()
CONVENTIONS = MappingProxyType(
    {
        "standard": STANDARD,  # k by document, mean over documents: SpokenNLP, Aumiller et al., segeval on Python 2
        "half_even": Convention(rounding="half_even"),  # segeval on Python 3: a mean of 5 gives 2 instead of 3
        "pooled": Convention(aggregate="windows"),  # Koshorek et al.
        "corpus_window": Convention(window="corpus"),  # Glavaš and Somasundaran; GraphSeg
        "fixed_10": Convention(window=10, least=1),  # Lo et al. (Transformer²)
        "concatenated": Convention(window="corpus", aggregate="concatenated"),
        "concatenated_inner_gaps": Convention(  # attributed to Lee et al.
            window="corpus", mean="inner_gaps", rounding="half_even", aggregate="concatenated", least=1
        ),
        "final_boundary": Convention(ends="final_boundary", rounding="half_even", least=1),  # NLTK on one label a sentence
        "padded": Convention(ends="padded"),  # Lamprier et al.
    }
)


def check_segments(segments: Segments) -> None:
    """Raise InputError unless `segments` has at least one length and all are positive whole numbers."""
    if len(segments) == 0:
        raise InputError("A segmentation has no segments; leave empty documents out.")
    for length in segments:
        if isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 1:
            raise InputError(f"A segment has the length {length!r}; lengths are whole numbers of at least 1.")


def boundaries_of(segments: Segments) -> np.ndarray:
    """Which gaps are boundaries.

    Args:
        segments: lengths with sum n.

    Returns:
        bool [n - 1].

    Raises:
        InputError: no segments, or a length below 1.
    """
    check_segments(segments)
    boundaries = np.zeros(sum(segments) - 1, dtype=bool)
    boundaries[np.cumsum(segments)[:-1] - 1] = True
    return boundaries


def segments_of(boundaries: Sequence[bool] | np.ndarray) -> tuple[int, ...]:
    """The lengths of segments from their boundaries: the inverse of `boundaries_of`.

    Args:
        boundaries: bool [n - 1].
    """
    ends = [*(np.flatnonzero(np.asarray(boundaries, dtype=bool)) + 1).tolist(), len(boundaries) + 1]
    return tuple(int(length) for length in np.diff([0, *ends]))


def segments_of_labels(labels: Sequence[object]) -> tuple[int, ...]:
    """The lengths of the maximal runs of equal labels. Raises InputError when there are none."""
    if len(labels) == 0:
        raise InputError("There are no labels; leave empty documents out.")
    return segments_of([left != right for left, right in pairwise(labels)])


def window_length(references: Sequence[Segments], convention: Convention = STANDARD) -> int:
    """The k of a convention for documents taken together: one document, or a whole corpus.

    Args:
        references: reference segmentations.
        convention: which.

    Raises:
        InputError: there are no documents, or a segmentation is not valid.
    """
    if isinstance(convention.window, int):
        return convention.window
    if len(references) == 0:
        raise InputError("There are no reference segmentations to take k from; give at least one document.")
    for reference in references:
        check_segments(reference)
    units, segments = sum(map(sum, references)), sum(map(len, references))
    half = (units - (segments if convention.mean == "inner_gaps" else 0)) / (2 * segments)
    return max(convention.least, math.floor(half + 0.5) if convention.rounding == "half_up" else round(half))


def window_errors(
    reference: Segments,
    hypothesis: Segments,
    k: int,
    *,
    metric: WindowMetric = "pk",
    ends: Literal["inside", "final_boundary", "padded"] = "inside",
) -> tuple[int, int]:
    """Windows of a document that are errors, and all windows; (0, 0) where the document is too short for one.

    Args:
        reference: lengths with sum n.
        hypothesis: lengths with the same sum.
        k: distance of the two units that a window compares, at least 1.
        metric: which disagreement is an error.
        ends: see `Convention`.

    Raises:
        InputError: the sums differ, a segmentation is not valid, or k is below 1.
    """
    if k < 1:
        raise InputError(f"k is {k}; it is at least 1.")
    gaps = _gaps(reference, hypothesis)
    if ends == "final_boundary":
        gaps = np.pad(gaps, ((0, 0), (0, 1)), constant_values=True)
    elif ends == "padded":
        gaps = np.pad(np.pad(gaps, ((0, 0), (1, 1)), constant_values=True), ((0, 0), (k - 1, k - 1)))
    if gaps.shape[1] < k:
        return 0, 0
    sums = np.pad(np.cumsum(gaps, axis=1), ((0, 0), (1, 0)))
    counts = sums[:, k:] - sums[:, :-k]
    if metric == "pk":
        counts = counts > 0
    return int((counts[0] != counts[1]).sum()), counts.shape[1]


def window_errors_by_document(
    references: Sequence[Segments],
    hypotheses: Sequence[Segments],
    *,
    metric: WindowMetric = "pk",
    convention: Convention = STANDARD,
) -> np.ndarray:
    """Errors and windows of each document; where a convention concatenates, of the one long document.

    Args:
        references: one segmentation a document.
        hypotheses: as many, of the same documents in the same order.
        metric: P_k or WindowDiff.
        convention: see `Convention`.

    Returns:
        int64 [documents, 2]; a line of zeros is a document too short for a window, which has no part in a mean.

    Raises:
        InputError: numbers of documents differ or are zero, or a pair of segmentations does not fit.
    """
    _check_documents(references, hypotheses)
    if convention.aggregate == "concatenated":
        references, hypotheses = ([[n for document in side for n in document]] for side in (references, hypotheses))
    whole = window_length(references, convention) if convention.window == "corpus" else None
    found = []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        k = window_length([reference], convention) if whole is None else whole
        found.append(window_errors(reference, hypothesis, k, metric=metric, ends=convention.ends))
    return np.array(found, dtype=np.int64)


def window_error(
    references: Sequence[Segments],
    hypotheses: Sequence[Segments],
    *,
    metric: WindowMetric = "pk",
    convention: Convention = STANDARD,
) -> float:
    """P_k or WindowDiff of a corpus under a convention, in 0..1; lower is better.

    Documents too short for a window are left out, not counted as free of errors.

    Args:
        references: one segmentation a document.
        hypotheses: as many, of the same documents in the same order.
        metric: P_k or WindowDiff.
        convention: see `Convention`.

    Raises:
        InputError: as `window_errors_by_document`, or no document is long enough for a window.
    """
    errors, windows = window_errors_by_document(references, hypotheses, metric=metric, convention=convention).T
    if not windows.any():
        raise InputError("No document is long enough for a window of k units; give longer documents or a smaller k.")
    if convention.aggregate == "documents":
        return float((errors[windows > 0] / windows[windows > 0]).mean())
    return float(errors.sum() / windows.sum())


def pk(references: Sequence[Segments], hypotheses: Sequence[Segments], convention: Convention = STANDARD) -> float:
    """P_k of a corpus: `window_error` with metric `pk`."""
    return window_error(references, hypotheses, metric="pk", convention=convention)


def window_diff(references: Sequence[Segments], hypotheses: Sequence[Segments], convention: Convention = STANDARD) -> float:
    """WindowDiff of a corpus: `window_error` with metric `window_diff`."""
    return window_error(references, hypotheses, metric="window_diff", convention=convention)


class BoundaryEdits(NamedTuple):
    """Boundary edit distance of two segmentations (Fournier, 2013).

    Attributes:
        matches: boundaries in both.
        misses: boundaries in one only, and near no other.
        near: pairs of boundaries that are off by a little.
        near_distance: sum of the distances of these pairs, in gaps.
    """

    matches: int
    misses: int
    near: int
    near_distance: int


def boundary_edits(reference: Segments, hypothesis: Segments, *, span: int = 2) -> BoundaryEdits:
    """Match boundaries exactly, then closest first within `span`, from the left.

    Args:
        reference: lengths with sum n.
        hypothesis: lengths with the same sum.
        span: gaps that a near pair may cover, Fournier's n_t: 2 is a boundary off by one unit; 1 allows no near pair.

    Raises:
        InputError: the sums differ, a segmentation is not valid, or span is below 1.
    """
    if span < 1:
        raise InputError(f"span is {span}; it is at least 1.")
    a, b = _gaps(reference, hypothesis)
    differ, used = a != b, np.zeros(a.size, dtype=bool)
    near = near_distance = 0
    for distance in range(1, span):
        # A pair is a boundary of one side at i and of the other at i + distance.
        for i in np.flatnonzero(differ[:-distance] & differ[distance:] & (a[:-distance] != a[distance:])):
            if not used[i] and not used[i + distance]:
                used[[i, i + distance]] = True
                near += 1
                near_distance += distance
    return BoundaryEdits(int((a & b).sum()), int(differ.sum()) - 2 * near, near, near_distance)


def boundary_similarity(
    references: Sequence[Segments],
    hypotheses: Sequence[Segments],
    *,
    span: int = 2,
    aggregate: Literal["documents", "boundaries"] = "documents",
) -> float:
    """Boundary similarity B (Fournier, 2013, Equation 10), in 0..1; higher is better.

        B = 1 - (misses + Σ_near distance / span) / (matches + misses + near)

    Args:
        references: one segmentation a document.
        hypotheses: as many, of the same documents in the same order.
        span: see `boundary_edits`.
        aggregate: mean over `documents`, where one without any boundary on either side counts 1; or one fraction of all
            `boundaries`.

    Raises:
        InputError: numbers of documents differ or are zero, or a pair of segmentations does not fit.
    """
    _check_documents(references, hypotheses)
    parts = []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        edits = boundary_edits(reference, hypothesis, span=span)
        parts.append((edits.misses + edits.near_distance / span, edits.matches + edits.misses + edits.near))
    errors, total = np.array(parts, dtype=np.float64).T
    if aggregate == "boundaries":
        return float(1 - errors.sum() / total.sum()) if total.any() else 1.0
    return float(np.mean(1 - errors / np.maximum(total, 1)))


class BoundaryScores(NamedTuple):
    """Precision, recall and F1 of boundaries, in 0..1."""

    precision: float
    recall: float
    f1: float


def boundary_scores(references: Sequence[Segments], hypotheses: Sequence[Segments]) -> BoundaryScores:
    """Precision, recall and F1 of the boundaries of all documents together; ends of documents do not count.

    Args:
        references: one segmentation a document.
        hypotheses: as many, of the same documents in the same order.

    Returns:
        Scores; 0 where a denominator is 0, as scikit-learn does.

    Raises:
        InputError: numbers of documents differ or are zero, or a pair of segmentations does not fit.
    """
    _check_documents(references, hypotheses)
    hits = found = wanted = 0
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        a, b = _gaps(reference, hypothesis)
        hits, wanted, found = hits + int((a & b).sum()), wanted + int(a.sum()), found + int(b.sum())
    f1 = 2 * hits / (found + wanted) if hits else 0.0
    return BoundaryScores(hits / found if found else 0.0, hits / wanted if wanted else 0.0, f1)


def _gaps(reference: Segments, hypothesis: Segments) -> np.ndarray:
    """Boundaries of both, bool [2, n - 1]; raises InputError unless both have n units."""
    a, b = boundaries_of(reference), boundaries_of(hypothesis)
    if a.size != b.size:
        raise InputError(
            f"The reference has {a.size + 1} units and the hypothesis {b.size + 1}; both must segment the same document."
        )
    return np.stack([a, b])


def _check_documents(references: Sequence[Segments], hypotheses: Sequence[Segments]) -> None:
    if len(references) != len(hypotheses) or len(references) == 0:
        raise InputError(
            f"There are {len(references)} references and {len(hypotheses)} hypotheses; give one of each for every document."
        )
