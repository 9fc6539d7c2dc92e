"""Sentences as tensors, and word vectors."""

import numpy as np
import pytest
import torch

from common.data.aspects import Instance
from common.errors import DataError, InputError
from papers.absa.sentences import piece_sentences, position_weights, vocabulary_of, window, word_sentences
from papers.absa.word_sources import at_common_scale, random_vectors, read_glove, reduced, trained_vectors, with_padding
from tests.papers.absa.examples import reviews, tiny_tokenizer

SHORT = Instance(("food", "was", "good"), 0, 1, "positive")
LONG = Instance(("the", "food", "was", "bad", "and", "the", "service"), 6, 7, "negative")


def test_words_by_hand():
    vocabulary = vocabulary_of([SHORT, LONG])
    assert vocabulary == ["and", "bad", "food", "good", "service", "the", "was"]
    found = word_sentences([SHORT, LONG], vocabulary, longest=10)
    assert found.ids.tolist() == [[3, 7, 4, 0, 0, 0, 0], [6, 3, 7, 2, 1, 6, 5]]
    assert found.context.tolist() == [[False, True, True] + [False] * 4, [True] * 6 + [False]]
    assert found.target_ids.tolist() == [[3], [5]]
    assert found.labels.tolist() == [2, 0]
    assert found.position_weights[0].tolist() == pytest.approx([1, 39 / 40, 38 / 40, 0, 0, 0, 0])


def test_pieces_by_hand():
    found = piece_sentences([SHORT, LONG], tiny_tokenizer(), longest=20)
    names = tiny_tokenizer().tokenizer
    assert [names.id_to_token(number) for number in found.ids[0].tolist()] == [
        "[CLS]", "foo", "##d", "was", "good", "[SEP]", "[PAD]", "[PAD]", "[PAD]", "[PAD]"
    ]  # fmt: skip
    assert found.target[0].tolist() == [False, True, True] + [False] * 7
    assert found.context[0].tolist() == [False, False, False, True, True] + [False] * 5
    assert found.inside[0].tolist() == [True] * 6 + [False] * 4
    assert not found.context[1, -1]
    assert [names.id_to_token(number) for number in found.target_ids[1].tolist() if number] == ["service"]


def test_erased_words_have_no_id_and_are_no_context():
    found = word_sentences([SHORT, LONG], vocabulary_of([SHORT, LONG]), longest=10)
    erased = torch.zeros(2, 2, 7, dtype=torch.bool)
    erased[1, 0, 2] = True  # "good", for the second replica
    batch = found.batch(torch.tensor([[1, 0], [0, 1]]), erased)
    assert batch.ids[0].tolist() == found.ids[[1, 0]].tolist()
    assert batch.ids[1, 0].tolist() == [3, 7, 0, 0, 0, 0, 0]
    assert batch.context[1, 0].tolist() == [False, True] + [False] * 5
    assert batch.inside[1, 0].sum() == 3
    assert batch.erased.sum() == 1


def test_a_window_holds_the_target():
    for longest in (1, 3, 5):
        cut = window(LONG, longest)
        assert cut.target == ("service",)
        assert len(cut.tokens) == longest
    middle = Instance(tuple("abcdefg"), 3, 4, "neutral")
    assert window(middle, 3).tokens == ("c", "d", "e")
    assert window(middle, 7) == middle == window(middle, 99)
    with pytest.raises(InputError, match="longest is 1"):
        window(Instance(("a", "b"), 0, 2, "neutral"), 1)


def test_position_weights_by_hand():
    # Words left of the target: distance to its right end; others: to its left end.
    assert position_weights(6, 2, 4).tolist() == pytest.approx([1 - 3 / 40, 1 - 2 / 40, 1, 1 - 1 / 40, 1 - 2 / 40, 1 - 3 / 40])
    assert position_weights(60, 0, 1)[[0, 39, 40, 59]].tolist() == pytest.approx([1, 1 / 40, 0, 0])


def test_a_sentence_of_the_target_alone_has_no_context():
    alone = Instance(("food",), 0, 1, "neutral")
    assert not word_sentences([alone], ["food"], longest=5).context.any()
    assert not piece_sentences([alone], tiny_tokenizer(), longest=5).context.any()


def test_bad_sentences():
    with pytest.raises(InputError, match="no instances"):
        word_sentences([], ["a"], longest=5)
    with pytest.raises(InputError, match=r"lacks .*'bad'"):
        word_sentences([LONG], ["the", "food"], longest=10)


def test_vectors_of_one_scale():
    vectors = np.random.default_rng(0).normal(3, 2, (40, 12))
    found = reduced(vectors, 5)
    assert found.shape == (40, 5)
    assert np.sqrt(np.square(found).mean()) == pytest.approx(0.25 / np.sqrt(3), rel=1e-5)
    assert np.sqrt(np.square(random_vectors(500, 20)).mean()) == pytest.approx(0.25 / np.sqrt(3), rel=0.03)
    assert np.abs(random_vectors(500, 20)).max() <= 0.25
    assert np.isfinite(at_common_scale(np.zeros((2, 2)))).all()
    with pytest.raises(InputError, match="give no more"):
        reduced(vectors, 13)
    assert with_padding(found)[0].abs().sum() == 0


def test_gensim_vectors_repeat_and_cover_the_vocabulary():
    texts = [instance.tokens for instance in reviews(30)]
    words = [*vocabulary_of(reviews(30)), "unheard"]
    first, second = (trained_vectors(texts, words, size=8, epochs=2) for _ in "ab")
    assert np.array_equal(first, second)
    assert first.shape == (len(words), 8)
    assert np.array_equal(first[-1], random_vectors(len(words), 8)[-1])
    with pytest.raises(InputError, match="no words"):
        trained_vectors([[]], words, size=8, epochs=1)


def test_glove(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("good 1 2 3\n. . . 4 5 6\nother 7 8 9\n")
    found = read_glove(path, ["bad", "good", ". . ."], 3)
    assert found[1:].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert np.array_equal(found[0], random_vectors(3, 3)[0])
    with pytest.raises(DataError, match="none of the 1 words"):
        read_glove(path, ["nowhere"], 3)
    with pytest.raises(DataError, match="line 1: 3 numbers, expected 5"):
        read_glove(path, ["good"], 5)
    path.write_text("good 1 x 3\n")
    with pytest.raises(DataError, match="no number"):
        read_glove(path, ["good"], 3)
    with pytest.raises(DataError, match="Bring GloVe"):
        read_glove(tmp_path / "missing", ["good"], 3)
