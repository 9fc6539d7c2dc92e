"""P_k where the units are words and not sentences, as Beeferman et al. (1999) define it and Choi (2000) measured."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.errors import InputError
from common.experiment import Measurement
from common.metrics.segmentation import Segments, pk
from papers.topic_segmentation.scoring import pk_by_part


def in_words(segments: Segments, sentences: Sequence[str]) -> tuple[int, ...]:
    """The lengths of segments in words.

    Args:
        segments: lengths in sentences.
        sentences: of the document; words stand between blanks, and a sentence counts as one at least.

    Raises:
        InputError: the segments are not those of so many sentences.
    """
    if sum(segments) != len(sentences):
        raise InputError(
            f"The segments have {sum(segments)} sentences and the document {len(sentences)}; give both of one document."
        )
    words = [max(len(sentence.split()), 1) for sentence in sentences]
    ends = np.cumsum(segments)
    return tuple(sum(words[end - length : end]) for end, length in zip(ends, segments, strict=True))


def add_scores_in_words(
    measurement: Measurement,
    references: Sequence[Segments],
    hypotheses: Sequence[Segments],
    texts: Sequence[Sequence[str]],
    *,
    method: str,
    parts: int,
    **setting: Any,
) -> None:
    """Add `pk_in_words` and `pk_in_words_of_part` of one segmenter on one data set, in the standard convention.

    Args:
        measurement: to add to.
        references: one segmentation a document, in sentences.
        hypotheses: as many, of the same documents.
        texts: the sentences of each document.
        method: the segmenter.
        parts: see `pk_by_part`.
        setting: coordinates of the rows.

    Raises:
        InputError: segmentations and texts do not fit.
    """
    true, found = ([in_words(s, t) for s, t in zip(side, texts, strict=True)] for side in (references, hypotheses))
    measurement.add("pk_in_words", 100 * pk(true, found), "%", method=method, **setting)
    for part, value in enumerate(pk_by_part(true, found, parts)):
        measurement.add("pk_in_words_of_part", value, "%", method=method, part=part, **setting)
