"""TextTiling, C99, TopicTiling and GraphSeg against NLTK, naive definitions and worked examples."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize.texttiling import TextTilingTokenizer

from common.data.fetch import status
from common.data.segmentation import load_documents
from common.errors import InputError
from common.metrics.segmentation import pk
from papers.topic_segmentation.c99 import c99, c99_of, cosines, ranks, smoothed, split_order
from papers.topic_segmentation.graph_seg import graph_seg, segments_of_graph, sentence_similarities
from papers.topic_segmentation.scoring_in_words import in_words
from papers.topic_segmentation.tiling import block_similarities, depth_scores, text_tiling, tile
from papers.topic_segmentation.topic_tiling import topic_counts, topic_tiling, train_topic_model
from papers.topic_segmentation.trivial import even, every_boundary, no_boundary, random_boundaries
from papers.topic_segmentation.word_vectors import WordVectors, train_word_vectors
from papers.topic_segmentation.words import count_vectors, stems_of, words_of

CATS = ["The cat sat on a mat.", "A cat and another cat chased mice.", "Cats chase mice at night.", "The cat purrs."]
STARS = [
    "Stars burn hydrogen.",
    "A star collapses when hydrogen is spent.",
    "Hydrogen fuses in stars.",
    "Old stars burn helium.",
]
LAWS = ["Courts apply laws.", "A law binds the court.", "The court heard lawyers.", "Lawyers cite laws in court."]
THREE_TOPICS = CATS + STARS + LAWS

similarities = st.lists(st.integers(0, 6), min_size=1, max_size=30).map(lambda c: np.array(c) / 6)


def test_words_and_stems():
    assert words_of("The cats' 3 tails, and more TAILS!") == ["cats", "tails", "tails"]
    assert stems_of("The cats chased tails") == ["cat", "chase", "tail"]
    assert stems_of("chased chasing chases") == ["chase"] * 3
    counts = count_vectors(["a cat, a cat", "dogs", "the"])
    assert counts.tolist() == [[2, 0], [0, 1], [0, 0]]
    assert count_vectors(["the"]).tolist() == [[0]]
    with pytest.raises(InputError, match="no sentences"):
        count_vectors([])


def test_block_similarities_by_hand():
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    assert block_similarities(vectors, 1).tolist() == [1, 0, 1]
    # Blocks of two: (1,0) | (1,1); (2,0) | (0,2); (1,1) | (0,1).
    assert block_similarities(vectors, 2) == pytest.approx([np.sqrt(0.5), 0, np.sqrt(0.5)])
    assert block_similarities(np.zeros((3, 2)), 2).tolist() == [0, 0]
    assert block_similarities(np.ones((1, 2)), 3).size == 0
    with pytest.raises(InputError, match="block is 0"):
        block_similarities(vectors, 0)


def naive_depths(c):
    depths = []
    for i in range(len(c)):
        left = right = i
        while left > 0 and c[left - 1] >= c[left]:
            left -= 1
        while right < len(c) - 1 and c[right + 1] >= c[right]:
            right += 1
        depths.append((c[left] + c[right] - 2 * c[i]) / 2)
    return depths


@given(similarities)
def test_depths_climb_to_the_next_peak(c):
    assert depth_scores(c) == pytest.approx(naive_depths(c))


@given(similarities.filter(lambda c: len(c) >= 10))
def test_depths_are_half_of_nltks_inside(c):
    theirs = np.array(TextTilingTokenizer(stopwords=["the"])._depth_scores(c.tolist()))
    clipped = min(max(len(c) // 10, 2), 5)  # NLTK leaves out gaps near the ends
    inside = slice(clipped, len(c) - clipped)
    assert 2 * depth_scores(c)[inside] == pytest.approx(theirs[inside])


def test_tiling_cuts_the_deep_minima():
    c = np.array([0.9, 0.8, 0.1, 0.8, 0.9, 0.85, 0.9, 0.2, 0.9])
    # Depths 0.8, 0.05 and 0.7 at the minima; the mean of all is 0.18, the deviation 0.3.
    assert tile(c) == (3, 3, 2, 2)
    assert tile(c, deviations=0) == (3, 5, 2)
    assert tile(c, deviations=-2) == (3, 7)  # deeper than two deviations above the mean
    assert tile(c, 1) == (10,)
    assert tile(c, 2) == (3, 7)
    assert tile(c, 4) == (3, 3, 2, 2)
    assert tile(c, 10) == (1,) * 10


@given(similarities, st.data())
def test_tiling_gives_the_number_of_segments_asked_for(c, data):
    count = data.draw(st.integers(1, len(c) + 1))
    segments = tile(c, count)
    assert (len(segments), sum(segments)) == (count, len(c) + 1)
    assert sum(tile(c)) == len(c) + 1


def naive_ranks(S, side):
    n, reach = len(S), side // 2
    R = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            near = [
                S[a, b]
                for a in range(max(0, i - reach), min(n, i + reach + 1))
                for b in range(max(0, j - reach), min(n, j + reach + 1))
                if (a, b) != (i, j)
            ]
            R[i, j] = sum(value < S[i, j] for value in near) / max(len(near), 1)
    return R


@pytest.mark.parametrize(("n", "side"), [(1, 11), (2, 3), (5, 3), (7, 5), (14, 11), (4, 11)])
def test_ranks_are_their_definition(n, side):
    S = np.random.default_rng(n).integers(0, 4, (n, n)) / 4
    assert ranks(S, side) == pytest.approx(naive_ranks(S, side))


def naive_split_order(R):
    n, cuts, order = len(R), [], []

    def density(cuts):  # fmt: skip
        bounds = [0, *sorted(cuts), n]
        parts = list(pairwise(bounds))
        return sum(R[a:b, a:b].sum() for a, b in parts) / sum((b - a) ** 2 for a, b in parts)

    densities = [density([])]
    while len(cuts) < n - 1:
        best = max((cut for cut in range(1, n) if cut not in cuts), key=lambda cut: density([*cuts, cut]))
        cuts.append(best)
        order.append(best - 1)
        densities.append(density(cuts))
    return order, densities


@pytest.mark.parametrize("n", [1, 2, 3, 8, 13])
def test_divisive_clustering_takes_the_densest_cut_each_time(n):
    R = np.random.default_rng(n).random((n, n))
    order, densities = split_order(R)
    expected, their_densities = naive_split_order(R)
    assert order == expected
    assert densities == pytest.approx(their_densities)
    assert split_order(R, 2)[0] == expected[:2]


def test_cosines_of_words():
    S = cosines(count_vectors(["cats purr", "cats", "the", "dogs"]))
    half = 0.5**0.5
    np.testing.assert_allclose(S, [[1, half, 0, 0], [half, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])


def test_c99_finds_blocks():
    S = np.full((24, 24), 0.05) + np.random.default_rng(0).random((24, 24)) * 0.01
    for start, end in ((0, 7), (7, 15), (15, 24)):
        S[start:end, start:end] += 0.8
    assert c99_of(S, 3) == (7, 8, 9)
    assert c99_of(S) == (
        7,
        8,
        8,
        1,
    )  # the mask spreads the gains of two true cuts; with more of them it is exact, see below
    with pytest.raises(InputError, match="neighbourhood is 4"):
        ranks(S, 4)


def test_ranks_of_the_papers_example():
    S = np.array([[2, 3, 2, 8], [5, 4, 7, 1], [7, 8, 6, 3], [4, 9, 1, 6]])  # Figure 2
    R = ranks(S, 3)
    assert (8 * R[1:3, 1:3]).tolist() == [[3, 6], [7, 4]]  # "output range {0, 8}"
    assert R[0].tolist() == [0, 2 / 5, 1 / 5, 1]  # (2): elements with a lower value / elements examined


def test_gains_are_smoothed_by_hand():
    assert smoothed(np.array([0.0, 0, 0, 22, 0, 0, 0])) == pytest.approx(
        [
            22 / 15,
            44 / 19,
            88 / 21,
            8,
            88 / 21,
            44 / 19,
            22 / 15,
        ]  # at the ends the weights of gains that exist: 8 + 4 + 2 + 1
    )
    assert smoothed(np.array([3.0])).tolist() == [3]
    assert smoothed(np.array([3.0, 0])).tolist() == [2, 1]
    assert smoothed(np.full(9, 0.25)) == pytest.approx(np.full(9, 0.25))


@pytest.mark.parametrize(
    ("seed", "lengths"), [(5, (5, 3, 8, 8, 6, 4, 5, 6)), (16, (6, 4, 8, 5, 3, 5, 4, 6)), (163, (6, 4, 3, 8, 3, 7, 5, 5))]
)
def test_small_gains_of_the_first_cuts_do_not_end_the_cutting(seed, lengths):
    # The first cuts of a document with many segments gain less than the later ones: most of what they separate is mixed still.
    S = np.random.default_rng(seed).integers(0, 10, (sum(lengths),) * 2) / 100
    S = (S + S.T) / 2
    for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        S[end - length : end, end - length : end] += 0.05
    gains = np.diff(split_order(ranks(S))[1])
    assert gains[:2].min() < gains.mean() + 1.2 * gains.std() < gains[2:5].min()
    assert c99_of(S) == lengths


@pytest.mark.parametrize(("lengths", "found", "known"), [("3-5", 18, 12), ("6-8", 10, 9)])
def test_c99_has_the_errors_of_the_papers_table_6(lengths, found, known):
    if any(file.state != "ready" for file in status("choi")):
        pytest.skip("choi is not on this machine")
    documents = [document for document in load_documents("choi-700", "test") if f"/{lengths}/" in document.name]
    assert len(documents) == 100
    references = [in_words(document.segments, document.sentences) for document in documents]
    for count, percent in ((None, found), (10, known)):
        segments = [c99(document.sentences, count) for document in documents]
        hypotheses = [in_words(s, document.sentences) for s, document in zip(segments, documents, strict=True)]
        assert 100 * pk(references, hypotheses) == pytest.approx(percent, abs=1.5)  # his words and stop words differ a little


@pytest.mark.parametrize("method", [text_tiling, c99])
def test_three_topics(method):
    assert method(THREE_TOPICS, 3, **({"block": 2} if method is text_tiling else {})) == (4, 4, 4)


@pytest.mark.parametrize("method", [text_tiling, c99])
def test_short_documents_and_wrong_counts(method):
    assert method(["One sentence."]) == (1,)
    assert method(["One sentence."], 1) == (1,)
    assert method(["the", "and"], 2) == (1, 1)
    assert sum(method(["the", "and", "of"])) == 3
    for count in (0, 3):
        with pytest.raises(InputError, match=f"count is {count} for a document of 2 sentences"):
            method(["One.", "Two."], count)
    with pytest.raises(InputError, match="no sentences"):
        method([])


def test_topic_tiling_tiles_topics_of_words():
    texts = [CATS * 3, STARS * 3, LAWS * 3] * 8
    model = train_topic_model(texts, topics=3, passes=10, seeds=(0, 1))
    counts = topic_counts(THREE_TOPICS, model)
    assert counts.shape == (12, 6)
    assert counts.sum(axis=1).tolist() == [2 * len(stems_of(sentence)) for sentence in THREE_TOPICS]
    assert topic_tiling(THREE_TOPICS, 3, model=model) == (4, 4, 4)
    assert topic_tiling(THREE_TOPICS, 3, model=model) == topic_tiling(THREE_TOPICS, 3, model=model)
    assert topic_tiling(["Unknown words."], model=model) == (1,)
    assert sum(topic_tiling(["Zebras.", "Yaks.", "Gnus."], model=model)) == 3


def test_the_same_seed_gives_the_same_topics():
    first, second = (topic_counts(THREE_TOPICS, train_topic_model([CATS, STARS], topics=4, passes=2, seeds=(3,))) for _ in "ab")
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, "no words"),
        ([["the"]], {}, "no words"),
        ([CATS], {"topics": 0}, "topics = 0"),
        ([CATS], {"seeds": ()}, "seeds"),
    ],
)
def test_topic_models_that_cannot_be_trained(texts, options, message):
    with pytest.raises(InputError, match=message):
        train_topic_model(texts, **options)


def edges(n, cliques):
    S = np.zeros((n, n))
    for clique in cliques:
        for i in clique:
            for j in clique:
                S[i - 1, j - 1] = 1.0
    return S


def test_graph_steps_by_hand():
    # Cliques of nine sentences: {1, 2} and {3, 4, 5} share one, {6} and {7} share none with what is next to them.
    S = edges(9, [(1, 2, 6), (2, 4, 7), (3, 4, 5), (1, 8, 9)])
    assert segments_of_graph(S, 0.5, 1) == (5, 1, 1, 2)
    # Below two sentences, 6 joins the first five, with which it shares edges; 7 then joins them too.
    assert segments_of_graph(S, 0.5, 2) == (7, 2)
    assert segments_of_graph(S, 1.0, 1) == (1,) * 9  # an edge must exceed the threshold
    assert segments_of_graph(np.zeros((2, 2)), 0.5, 5) == (2,)
    with pytest.raises(InputError, match="smallest is 0"):
        segments_of_graph(S, 0.5, 0)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=40)
def test_graph_segments_are_never_too_small(n, smallest, seed):
    S = np.random.default_rng(seed).random((n, n))
    segments = segments_of_graph((S + S.T) / 2, 0.7, smallest)
    assert sum(segments) == n
    assert all(length >= smallest for length in segments) or segments == (n,)


def test_sentence_similarity_is_the_best_match_weighted_by_information():
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    words = WordVectors(vectors, {"cat": 0, "lion": 1, "law": 2}, np.array([1.0, 2.0, 3.0]))
    S = sentence_similarities(["cat law", "lion", "unknown"], words)
    # cat 0.6 and law 0.8 against lion, weights 1 and 3; lion's best is law, 0.8.
    assert S[0, 1] == pytest.approx(((0.6 + 3 * 0.8) / 4 + 0.8) / 2)
    assert S[0, 1] == S[1, 0]
    assert S[2].tolist() == [0, 0, 0]
    assert S[0, 0] == pytest.approx(1)


def test_word_vectors_are_the_same_for_the_same_seed():
    first, second = (train_word_vectors(list(map(words_of, CATS + STARS)), size=8, epochs=2, seed=1) for _ in "ab")
    assert first.vectors.tolist() == second.vectors.tolist()
    assert np.linalg.norm(first.vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.exp(-first.information).sum() == pytest.approx(1)
    assert graph_seg(["One sentence."], words=first) == (1,)
    for call in (lambda: train_word_vectors([[], []]), lambda: graph_seg([], words=first)):
        with pytest.raises(InputError, match=r"no words|no sentences"):
            call()


def test_trivial_segmenters():
    reference = (3, 1, 6)
    assert no_boundary(reference) == (10,)
    assert every_boundary(reference) == (1,) * 10
    assert even(reference) == (3, 3, 4)
    drawn = [random_boundaries((50,) * 40, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert sum(drawn[0]) == 2000
    assert 20 <= len(drawn[0]) <= 65  # 40 in the mean
    assert random_boundaries((1,), np.random.default_rng(0)) == (1,)
