"""The data sets against their published sizes, and trivial segmenters under four conventions against independent figures.

Needs the data in the mirror folder; a data set that is not there is skipped.
"""

from itertools import pairwise

import pytest

from common.data.fetch import status
from common.data.segmentation import load_documents
from common.errors import DataError
from common.metrics.segmentation import CONVENTIONS, Convention, pk

NEEDS = {
    "choi": "choi", "choi-700": "choi", "wiki300": "wiki300", "wiki50": "wiki50", "wiki50-every-heading": "wiki50",
    "en-city": "wikisection-en-city-subset", "en-city-label-changes": "wikisection-en-city-subset",
    "en-city-reduced": "wikisection-en-city-subset", "qmsum": "qmsum", "csabstruct": "csabstruct",
}  # fmt: skip


def documents_of(name, splits):
    if any(file.state != "ready" for file in status(NEEDS[name])):
        pytest.skip(f"{NEEDS[name]} is not on this machine")
    return [document for split in splits for document in load_documents(name, split)]


ALL = ("train", "validation", "test")


@pytest.mark.parametrize(
    ("name", "splits", "documents", "sentences", "segments"),
    [
        ("choi", ("test",), 920, 68106, 9186),
        ("choi-700", ("test",), 700, 49105, 7000),
        ("wiki300", ALL, 300, 58578, 2265),
        ("wiki50", ("test",), 50, 2776, 177),
        ("wiki50-every-heading", ("test",), 50, 2776, 337),
        ("en-city", ALL, 309, 24541, 2631),
        ("en-city-label-changes", ALL, 309, 24541, 2141),
        ("en-city-reduced", ("train",), 658, 25214, 2632),
        ("qmsum", ("test",), 35, 20718, 247),
        ("csabstruct", ("test",), 226, 1349, None),
    ],
)
def test_sizes(name, splits, documents, sentences, segments):
    found = documents_of(name, splits)
    assert len(found) == documents
    assert sum(len(document.sentences) for document in found) == sentences
    if segments is not None:
        assert sum(len(document.segments) for document in found) == segments


def even(document):
    """The right number of segments, cut after sentence floor(i n / m)."""
    n, m = sum(document.segments), len(document.segments)
    cuts = [0, *(i * n // m for i in range(1, m)), n]
    return tuple(b - a for a, b in pairwise(cuts))


SEGMENTERS = {
    "none": lambda document: (sum(document.segments),),
    "all": lambda document: (1,) * sum(document.segments),
    "even": even,
}


@pytest.mark.parametrize(
    ("name", "splits", "segmenter", "percents"),
    [
        ("choi", ("test",), "none", (47.4, 47.4, 96.3, 47.2)),
        ("choi", ("test",), "all", (52.6, 52.6, 3.7, 47.4)),
        ("choi", ("test",), "even", (38.9, 37.2, 3.4, 32.4)),
        ("wiki300", ALL, "none", (36.7, 38.3, 31.1, 35.9)),
        ("wiki300", ALL, "all", (63.3, 61.7, 68.9, 57.4)),
        ("wiki300", ALL, "even", (50.7, 50.2, 45.8, 44.7)),
        ("wiki50", ("test",), "none", (33.3, 30.6, 54.9, 24.8)),
        ("wiki50", ("test",), "all", (66.7, 69.4, 45.1, 61.2)),
        ("wiki50", ("test",), "even", (45.0, 51.3, 33.1, 31.6)),
        ("wiki50-every-heading", ("test",), "none", (40.1, 41.0, 73.4, 36.6)),
        ("wiki50-every-heading", ("test",), "all", (59.9, 59.0, 26.6, 56.3)),
        ("wiki50-every-heading", ("test",), "even", (42.8, 47.3, 25.4, 37.7)),
        ("en-city", ALL, "none", (37.3, 38.6, 65.7, 36.6)),
        ("en-city", ALL, "all", (62.7, 61.4, 34.3, 57.1)),
        ("en-city", ALL, "even", (49.6, 50.0, 33.8, 44.0)),
        ("en-city-label-changes", ALL, "none", (36.0, 36.8, 59.1, 33.3)),
        ("en-city-label-changes", ALL, "all", (64.0, 63.2, 40.9, 59.1)),
        ("en-city-label-changes", ALL, "even", (49.8, 50.2, 39.2, 42.5)),
        ("qmsum", ("test",), "none", (34.4, 34.7, 14.0, 26.4)),
        ("qmsum", ("test",), "all", (65.6, 65.3, 86.0, 66.7)),
        ("qmsum", ("test",), "even", (48.5, 48.2, 20.8, 33.9)),
    ],
)
def test_pk_of_trivial_segmenters_under_four_conventions(name, splits, segmenter, percents):
    documents = documents_of(name, splits)
    references = [document.segments for document in documents]
    hypotheses = [SEGMENTERS[segmenter](document) for document in documents]
    conventions = [Convention(), CONVENTIONS["pooled"], CONVENTIONS["fixed_10"], CONVENTIONS["concatenated"]]
    found = [100 * pk(references, hypotheses, convention) for convention in conventions]
    assert found == pytest.approx(percents, abs=0.0501)


def test_a_meeting_is_read_as_turns_with_speakers():
    document = documents_of("qmsum", ("test",))[0]
    assert document.name == "Bed003"
    assert document.sentences[:2] == ("Grad C: Nice .", "Grad D: OK .")


def test_choi_refuses_training():
    with pytest.raises(DataError, match="no split"):
        load_documents("choi", "train")
