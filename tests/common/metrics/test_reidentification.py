"""Metrics of re-identification: a hand-worked example, a naive version, scikit-learn's average precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from common.errors import InputError
from common.metrics.reidentification import by_part, cosine_distances, market_scores, scores_in_short


def naive(distances, query_identities, gallery_identities, query_cameras, gallery_cameras):
    """(counted, AP, INP, rank of the first right answer) of each query, as the protocol says it in words."""
    found = []
    for q in range(len(query_identities)):
        ranked = []
        for g in sorted(range(len(gallery_identities)), key=lambda g: (distances[q][g], g)):
            same = gallery_identities[g] == query_identities[q]
            if gallery_identities[g] == -1 or (same and gallery_cameras[g] == query_cameras[q]):
                continue
            ranked.append(same)
        if not any(ranked):
            found.append((False, 0.0, 0.0, 0))
            continue
        hits, total = 0, 0.0
        for rank, right in enumerate(ranked, start=1):
            if right:
                hits += 1
                total += hits / rank
        last = max(rank for rank, right in enumerate(ranked, start=1) if right)
        found.append((True, total / hits, hits / last, ranked.index(True) + 1))
    return found


def test_a_hand_worked_example():
    # Query 1 at camera 1. Ranked: same identity and camera (out), junk (out), right, distractor, wrong, right.
    distances = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
    scores = market_scores(
        distances, torch.tensor([1]), torch.tensor([1, -1, 1, 0, 2, 1]), torch.tensor([1]), torch.tensor([1, 2, 2, 3, 2, 3])
    )
    assert scores.average_precision.tolist() == [pytest.approx((1 / 1 + 2 / 4) / 2)]
    assert scores.inverse_negative_penalty.tolist() == [pytest.approx(2 / 4)]
    assert scores.first.tolist() == [1]
    assert scores_in_short(scores, ranks=(1,)) == pytest.approx({"map": 75, "minp": 50, "rank_1": 100})


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), queries=st.integers(1, 6), gallery=st.integers(1, 14), ties=st.booleans())
def test_equals_the_naive_version_and_scikit_learn(seed, queries, gallery, ties):
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, 4, (queries, gallery)).astype(float) if ties else rng.random((queries, gallery))
    query_identities, gallery_identities = rng.integers(1, 4, queries), rng.integers(-1, 4, gallery)
    query_cameras, gallery_cameras = rng.integers(1, 3, queries), rng.integers(1, 3, gallery)
    arguments = (distances, query_identities, gallery_identities, query_cameras, gallery_cameras)
    expected = naive(*arguments)
    if not any(counted for counted, *_ in expected):
        with pytest.raises(InputError, match="No query has a right answer"):
            market_scores(*(torch.from_numpy(x) for x in arguments))
        return
    scores = market_scores(*(torch.from_numpy(x) for x in arguments))
    assert scores.counted.tolist() == [counted for counted, *_ in expected]
    np.testing.assert_allclose(scores.average_precision, [ap for _, ap, _, _ in expected])
    np.testing.assert_allclose(scores.inverse_negative_penalty, [inp for _, _, inp, _ in expected])
    assert scores.first.tolist() == [first for *_, first in expected]
    counted = [first for ok, *_, first in expected if ok]
    assert scores.cmc(2) == pytest.approx(np.mean([first <= 2 for first in counted]))
    if ties:  # scikit-learn takes equal scores together
        return
    for q in np.flatnonzero(scores.counted):
        same = gallery_identities == query_identities[q]
        kept = (gallery_identities != -1) & ~(same & (gallery_cameras == query_cameras[q]))
        assert scores.average_precision[q].item() == pytest.approx(average_precision_score(same[kept], -distances[q][kept]))


def test_a_query_without_a_right_answer_is_not_counted():
    scores = market_scores(
        torch.tensor([[0.1, 0.2], [0.1, 0.2]]),
        torch.tensor([1, 2]),
        torch.tensor([1, 2]),
        torch.tensor([1, 1]),
        torch.tensor([2, 1]),
    )
    assert scores.counted.tolist() == [True, False]
    assert scores_in_short(scores)["map"] == 100


def test_cosine_distances():
    found = cosine_distances(torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0, 2.0]]))


def test_parts_have_whole_identities():
    identities = torch.tensor([5, 5, 7, 9])
    scores = market_scores(
        torch.tensor([[0.0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2]]), identities, torch.tensor([5, 7, 9]),
        torch.tensor([1, 1, 1, 1]), torch.tensor([2, 2, 2]),
    )  # fmt: skip
    # Right answers at ranks 1, 1, 2, 3; identities 5 and 9 are in part 0, 7 in part 1.
    assert by_part(scores, identities, 2) == pytest.approx([(1 + 1 + 1 / 3) / 3, 1 / 2])
    with pytest.raises(InputError, match="Part 3 of 4"):
        by_part(scores, identities, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distances": torch.zeros(2, 2)}, "expected .queries, gallery."),
        ({"distances": torch.tensor([[0.0, torch.nan]])}, "not finite"),
        ({"query_identities": torch.tensor([0])}, "identity 0"),
        ({"gallery_cameras": torch.tensor([1])}, "one of each"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {
        "distances": torch.zeros(1, 2),
        "query_identities": torch.tensor([1]),
        "gallery_identities": torch.tensor([1, 2]),
        "query_cameras": torch.tensor([1]),
        "gallery_cameras": torch.tensor([2, 2]),
    }
    market_scores(**arguments)
    with pytest.raises(InputError, match=message):
        market_scores(**{**arguments, **change})
