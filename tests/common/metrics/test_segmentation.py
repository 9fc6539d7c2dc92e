"""Segmentation metrics against NLTK and segeval where conventions agree, and by hand where they do not."""

import importlib
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.metrics import segmentation as nltk_segmentation
from sklearn.metrics import precision_recall_fscore_support

from common.errors import InputError
from common.metrics.segmentation import (
    CONVENTIONS,
    STANDARD,
    Convention,
    boundaries_of,
    boundary_edits,
    boundary_scores,
    boundary_similarity,
    check_segments,
    pk,
    segments_of,
    segments_of_labels,
    window_diff,
    window_error,
    window_errors,
    window_errors_by_document,
    window_length,
)

segeval: Any = importlib.import_module("segeval")  # untyped


@st.composite
def pairs(draw, least=1, most=40):
    n = draw(st.integers(least, most))
    gaps = st.lists(st.booleans(), min_size=n - 1, max_size=n - 1)
    return segments_of(draw(gaps)), segments_of(draw(gaps))


corpora = st.lists(pairs(), min_size=1, max_size=6).map(lambda found: tuple(zip(*found, strict=True)))
metrics = st.sampled_from(["pk", "window_diff"])
ends = st.sampled_from(["inside", "final_boundary", "padded"])


def as_text(segments):
    """NLTK's form without the end of the document: one character a gap."""
    return "".join("1" if boundary else "0" for boundary in boundaries_of(segments))


def naive_pk(reference, hypothesis, k):
    """The definition, unit by unit."""
    r, h = ([number for number, length in enumerate(side) for _ in range(length)] for side in (reference, hypothesis))
    wrong = [(r[i] == r[i + k]) != (h[i] == h[i + k]) for i in range(len(r) - k)]
    return sum(wrong), len(wrong)


def test_example_of_segeval_by_hand():
    # 15 units, k = 2; reference boundaries after units 4 and 9, hypothesis after 3 and 9: windows 2 and 4 of 13 disagree.
    assert window_errors((5, 5, 5), (4, 6, 5), 2) == (2, 13)
    assert pk([(5, 5, 5)], [(4, 6, 5)], CONVENTIONS["half_even"]) == pytest.approx(2 / 13)
    # Half up, k = 3: again two windows, of 12.
    assert pk([(5, 5, 5)], [(4, 6, 5)]) == pytest.approx(2 / 12)


def test_pk_does_not_see_what_window_diff_sees():
    # Boundaries one apart: every window of 4 that holds one holds another too, except at the ends of their reach.
    reference, hypothesis = (6, 6), (5, 1, 6)
    assert window_errors(reference, hypothesis, 4) == (1, 8)
    assert window_errors(reference, hypothesis, 4, metric="window_diff") == (4, 8)


@given(pairs(), st.integers(1, 12))
def test_pk_is_its_definition(pair, k):
    assert window_errors(pair[0], pair[1], k) == naive_pk(pair[0], pair[1], k)


@given(pairs(least=2), st.integers(1, 12), metrics)
def test_against_nltk_on_gaps(pair, k, metric):
    texts = [as_text(segments) for segments in pair]
    errors, windows = window_errors(pair[0], pair[1], k, metric=metric)
    if k > len(texts[0]):
        assert windows == 0
    else:
        theirs = nltk_segmentation.pk if metric == "pk" else nltk_segmentation.windowdiff
        assert errors / windows == pytest.approx(theirs(*texts, k=k))


@given(pairs())
def test_final_boundary_is_nltk_with_one_label_a_unit(pair):
    texts = [f"{as_text(segments)}1" for segments in pair]
    k = round(len(texts[0]) / (2 * texts[0].count("1")))
    if k >= 1:  # NLTK's own k; it divides by windows of no unit where that is 0
        assert pk([pair[0]], [pair[1]], CONVENTIONS["final_boundary"]) == pytest.approx(nltk_segmentation.pk(*texts))
        expected = nltk_segmentation.windowdiff(*texts, k=k)
        assert window_diff([pair[0]], [pair[1]], CONVENTIONS["final_boundary"]) == pytest.approx(expected)


def half_up(value):
    return Decimal(value).quantize(Decimal(1), ROUND_HALF_UP)


@pytest.mark.parametrize(("name", "rounding"), [("half_even", round), ("standard", half_up)])
@given(pair=pairs(least=3))
def test_window_and_scores_against_segeval(pair, name, rounding):
    reference, hypothesis = pair
    convention = CONVENTIONS[name]
    k = window_length([reference], convention)
    assert k == segeval.compute_window_size(reference, fnc_round=rounding, boundary_format=segeval.BoundaryFormat.mass)
    if k < sum(reference):
        assert pk([reference], [hypothesis], convention) == pytest.approx(
            float(segeval.pk(hypothesis, reference, window_size=k))
        )
        assert window_diff([reference], [hypothesis], convention) == pytest.approx(
            float(segeval.window_diff(hypothesis, reference, window_size=k))
        )


@given(pairs(), st.integers(1, 8))
def test_padded_window_diff_has_segevals_errors_over_its_own_number_of_windows(pair, k):
    errors, windows = window_errors(pair[0], pair[1], k, metric="window_diff", ends="padded")
    theirs, denominator = segeval.window_diff(pair[1], pair[0], window_size=k, lamprier_et_al_2007_fix=True, return_parts=True)
    assert (errors, windows) == (theirs, sum(pair[0]) + k)
    assert denominator == windows + 1  # segeval divides by one more than it counts


def test_padding_counts_ends_as_often_as_the_middle():
    # A boundary missed after the first unit is seen by k windows if padded, by 1 without.
    for position, inside in ((1, 1), (10, 3)):
        assert window_errors((position, 20 - position), (20,), 3, metric="window_diff")[0] == inside
        assert window_errors((position, 20 - position), (20,), 3, metric="window_diff", ends="padded")[0] == 3


@given(pairs(), st.integers(1, 10), metrics, ends)
def test_symmetry_bounds_and_perfection(pair, k, metric, at_ends):
    errors, windows = window_errors(pair[0], pair[1], k, metric=metric, ends=at_ends)
    assert window_errors(pair[1], pair[0], k, metric=metric, ends=at_ends) == (errors, windows)
    assert 0 <= errors <= windows
    assert window_errors(pair[0], pair[0], k, metric=metric, ends=at_ends)[0] == 0
    assert window_errors(pair[0][::-1], pair[1][::-1], k, metric=metric) == window_errors(pair[0], pair[1], k, metric=metric)


@given(pairs(), st.integers(1, 10), ends)
def test_pk_never_exceeds_window_diff(pair, k, at_ends):
    errors, windows = window_errors(pair[0], pair[1], k, ends=at_ends)
    stricter, same = window_errors(pair[0], pair[1], k, metric="window_diff", ends=at_ends)
    assert windows == same
    assert errors <= stricter


@given(corpora)
def test_every_convention_finds_a_perfect_segmentation_perfect(corpus):
    references, _ = corpus
    for convention in CONVENTIONS.values():
        counted = window_errors_by_document(references, references, convention=convention)
        if counted[:, 1].any():
            assert window_error(references, references, convention=convention) == 0


@given(corpora, metrics)
def test_aggregates_are_means_of_what_they_say(corpus, metric):
    references, hypotheses = corpus
    counted = window_errors_by_document(references, hypotheses, metric=metric)
    long = counted[counted[:, 1] > 0]
    if len(long):
        assert window_error(references, hypotheses, metric=metric) == pytest.approx(np.mean(long[:, 0] / long[:, 1]))
        pooled = window_error(references, hypotheses, metric=metric, convention=CONVENTIONS["pooled"])
        assert pooled == pytest.approx(long[:, 0].sum() / long[:, 1].sum())


@given(corpora)
def test_concatenation_is_one_document(corpus):
    references, hypotheses = ([sum(side, ())] for side in corpus)
    convention = CONVENTIONS["concatenated"]
    if window_errors_by_document(*corpus, convention=convention)[0, 1]:
        assert pk(corpus[0], corpus[1], convention) == pk(references, hypotheses, Convention())


def test_conventions_by_hand():
    # Two documents: 4 + 4 units, no boundary found; 2 units, no boundary, none found.
    references, hypotheses = [(4, 4), (2,)], [(8,), (2,)]
    # k = 2 and 2: 6 windows, 2 wrong; the second document is too short.
    assert pk(references, hypotheses) == pytest.approx(2 / 6)
    assert window_errors_by_document(references, hypotheses).tolist() == [[2, 6], [0, 0]]
    # Concatenated: 10 units of 3 segments, k = round(10 / 6) = 2; 8 windows, 2 wrong.
    assert pk(references, hypotheses, CONVENTIONS["concatenated"]) == pytest.approx(2 / 8)
    # Gaps inside segments: (10 - 3) / 6 = 1.17, k = 1: 9 windows, 1 wrong.
    assert pk(references, hypotheses, CONVENTIONS["concatenated_inner_gaps"]) == pytest.approx(1 / 9)
    # k = 2 and 1 (half of 2), and the end of each document: 2 of 7 and 0 of 2.
    assert pk(references, hypotheses, CONVENTIONS["final_boundary"]) == pytest.approx((2 / 7 + 0) / 2)
    with pytest.raises(InputError, match="long enough for a window"):
        pk(references, hypotheses, CONVENTIONS["fixed_10"])


def test_cutting_everywhere_wins_where_k_is_longer_than_segments():
    references = [(5, 5, 5, 5, 5, 5)]
    everywhere, nowhere = [(1,) * 30], [(30,)]
    assert pk(references, everywhere, CONVENTIONS["fixed_10"]) == 0
    assert pk(references, nowhere, CONVENTIONS["fixed_10"]) == 1
    assert pk(references, everywhere) > pk(references, nowhere) / 2


def test_rounding_of_half_a_mean_segment():
    for mean, half_up_k, half_even_k in ((5, 3, 2), (7, 4, 4), (4, 2, 2), (9, 5, 4), (1, 2, 2)):
        assert window_length([(mean, mean)]) == half_up_k
        assert window_length([(mean, mean)], CONVENTIONS["half_even"]) == half_even_k
    assert window_length([(4, 4), (40,)], CONVENTIONS["corpus_window"]) == 8


@given(pairs(least=2, most=25), st.integers(1, 5))
def test_boundary_similarity_against_segeval(pair, span):
    ours = boundary_similarity([pair[0]], [pair[1]], span=span)
    if len(pair[0]) == len(pair[1]) == 1:  # segeval fails where neither side has a boundary
        assert ours == 1
        return
    assert ours == pytest.approx(float(segeval.boundary_similarity(*pair, n_t=span)))
    counted = segeval.boundary_statistics(*pair, n_t=span)
    edits = boundary_edits(pair[0], pair[1], span=span)
    assert (edits.matches, edits.misses, edits.near) == (
        len(counted["matches"]), len(counted["additions"]), len(counted["transpositions"])
    )  # fmt: skip


def test_boundary_similarity_by_hand():
    # Boundaries 3, 9 against 4, 9: one match, one near pair at distance 1 of span 2: 1 - 0.5 / 2.
    assert boundary_similarity([(4, 6, 5)], [(5, 5, 5)]) == pytest.approx(0.75)
    assert boundary_similarity([(4, 6, 5)], [(5, 5, 5)], span=1) == pytest.approx(1 - 2 / 3)
    assert boundary_similarity([(3,)], [(3,)]) == 1
    several = ([(4, 6, 5), (3, 3)], [(5, 5, 5), (6,)])
    assert boundary_similarity(*several) == pytest.approx((0.75 + 0) / 2)
    assert boundary_similarity(*several, aggregate="boundaries") == pytest.approx(1 - 1.5 / 3)


@given(corpora)
def test_boundary_scores_against_scikit_learn(corpus):
    no_division: Any = 0
    truth, found = (np.concatenate([boundaries_of(document) for document in side]) for side in corpus)
    expected = (
        precision_recall_fscore_support(truth, found, average="binary", zero_division=no_division) if truth.size else (0, 0, 0)
    )
    assert boundary_scores(*corpus) == pytest.approx(expected[:3])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_boundaries_and_segments_are_inverse(segments):
    assert segments_of(boundaries_of(segments)) == tuple(segments)
    labels = [number % 2 for number, length in enumerate(segments) for _ in range(length)]
    assert segments_of_labels(labels) == tuple(segments)


def test_one_unit_has_no_window_and_no_boundary():
    assert boundaries_of((1,)).size == 0
    assert segments_of([]) == (1,)
    assert window_errors((1,), (1,), 2) == (0, 0)
    assert boundary_scores([(1,)], [(1,)]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pk([], []), "0 references and 0 hypotheses"),
        (lambda: pk([(2, 2)], []), "1 references and 0 hypotheses"),
        (lambda: pk([()], [()]), "no segments"),
        (lambda: pk([(2, 2)], [(2, 3)]), "reference has 4 units and the hypothesis 5"),
        (lambda: pk([(2, 0)], [(2,)]), "length 0"),
        (lambda: check_segments(cast(Any, (2.5, 1))), "length 2.5"),
        (lambda: pk([(1,)], [(1,)]), "long enough for a window"),
        (lambda: window_errors((2, 2), (4,), 0), "k is 0"),
        (lambda: boundary_edits((2, 2), (4,), span=0), "span is 0"),
        (lambda: Convention(window=0), "window is 0"),
        (lambda: Convention(least=0), "least is 0"),
        (lambda: window_length([], STANDARD), "no reference segmentations"),
        (lambda: segments_of_labels([]), "no labels"),
        (lambda: boundary_similarity([(2,)], []), "1 references and 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
