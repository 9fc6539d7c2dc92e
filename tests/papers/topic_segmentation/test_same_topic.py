"""Paragraph pairs and the ensemble, the BiLSTM, and the training loop that they share."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from common.data.segmentation import Document
from common.errors import InputError
from common.metrics.segmentation import boundary_scores, segments_of
from papers.topic_segmentation.bilstm import HierarchicalBiLSTM, all_words_of, boundary_loss, ends_of, word_ids
from papers.topic_segmentation.fine_tuning import FineTuning, fine_tune, in_batches
from papers.topic_segmentation.paragraph_pairs import segmentations
from papers.topic_segmentation.same_topic import (
    Pair,
    SameTopicModel,
    consecutive_pairs,
    cut_longest,
    majority,
    pair_batches,
    paragraphs_of,
    same_section,
    same_topic_loss,
    training_pairs,
)
from papers.topic_segmentation.supervised_baseline import chosen_threshold, probabilities
from papers.topic_segmentation.word_vectors import WordVectors
from tests.papers.topic_segmentation.tiny_encoder import WORDS, documents, tiny_encoder, tiny_tokenizer

RECIPE = FineTuning(learning_rate=3e-3, epochs=4, batch=16, warmup=0.0, precision="float32")


def test_paragraphs_as_units():
    document = Document("d", ("a", "b", "c", "d", "e"), (3, 2), ("x", None), (2, 1, 2))
    assert paragraphs_of(document) == Document("d", ("a b", "c", "d e"), (2, 1), ("x", None))
    with pytest.raises(InputError, match="crosses the end of a section"):
        paragraphs_of(Document("d", ("a", "b", "c"), (2, 1), None, (1, 2)))
    with pytest.raises(InputError, match="paragraphs of 'd' are unknown"):
        paragraphs_of(Document("d", ("a",), (1,)))


def test_training_pairs_stay_in_their_document_and_balance():
    found = [paragraphs_of(document) for document in documents(6)]
    section = np.concatenate([np.repeat(np.arange(len(d.segments)) + 100 * n, d.segments) for n, d in enumerate(found)])
    pairs = training_pairs(found, seed=0)
    assert pairs == training_pairs(found, seed=0) != training_pairs(found, seed=1)
    for i in range(len(section)):
        mine = [pair for pair in pairs if pair.left == i]
        others = int((section == section[i]).sum()) - 1
        assert sum(pair.same for pair in mine) == sum(not pair.same for pair in mine) == min(3, others // 2)
        assert len({pair.right for pair in mine}) == len(mine)
    assert all(pair.same == (section[pair.left] == section[pair.right]) for pair in pairs)
    assert all(section[pair.left] // 100 == section[pair.right] // 100 for pair in pairs)
    assert all(pair.left != pair.right for pair in pairs)


def test_consecutive_pairs_by_hand():
    found = [Document("a", ("p", "q", "r"), (2, 1)), Document("b", ("s",), (1,)), Document("c", ("t", "u"), (2,))]
    assert consecutive_pairs(found) == [Pair(0, 1, True), Pair(1, 2, False), Pair(4, 5, True)]
    assert segmentations(np.array([True, False, True]), found) == [(2, 1), (1,), (2,)]


@given(st.integers(0, 20), st.integers(0, 20), st.integers(2, 20))
def test_the_longer_side_is_cut_first(left, right, room):
    a, b = cut_longest(range(left), range(right), room)
    assert (a, b) == (list(range(len(a))), list(range(len(b))))
    assert len(a) + len(b) == min(left + right, room)
    if left + right > room:
        assert len(a) >= min(left, room // 2)
        assert len(b) >= min(right, room // 2)


def test_majority_with_draws_as_boundaries():
    votes = np.array([[1, 1, 0, 0], [1, 0, 0, 1]], dtype=bool)
    assert majority(votes).tolist() == [True, False, False, False]
    assert majority(np.array([[1, 0], [1, 0], [0, 1]], dtype=bool)).tolist() == [True, False]


def test_same_topic_is_learned():
    tokenizer = tiny_tokenizer()
    train, test = [[paragraphs_of(d) for d in documents(count, seed)] for count, seed in ((60, 0), (12, 1))]
    pieces, test_pieces = (
        tokenizer.pieces([paragraph for document in side for paragraph in document.sentences], 8) for side in (train, test)
    )
    pairs = training_pairs(train, 0)
    torch.manual_seed(0)
    model = SameTopicModel(tiny_encoder(), tokenizer, pieces, 16)
    recipe = RECIPE.model_copy(update={"epochs": 15})
    fine_tune(
        model,
        lambda epoch: pair_batches(pairs, 16, epoch),
        lambda batch: same_topic_loss(model, batch),
        recipe,
        15 * -(-len(pairs) // 16),
    )
    model.pieces = test_pieces
    wanted = consecutive_pairs(test)
    answers = same_section(model, wanted)
    assert np.mean(answers == [pair.same for pair in wanted]) > 0.85
    assert same_section(model, wanted, size=3).tolist() == answers.tolist()
    assert same_section(model, []).size == 0


def vectors():
    return WordVectors(np.eye(len(WORDS), dtype=np.float32), {word: i for i, word in enumerate(WORDS)}, np.ones(len(WORDS)))


def test_words_and_labels_of_the_bilstm():
    assert all_words_of("Don't stop, 5 m!", 99) == ["don", "'", "t", "stop", ",", "5", "m", "!"]
    ids = word_ids(Document("d", ("cat law", "", "zebra cat"), (2, 1)), vectors(), 2)
    assert [row.tolist() for row in ids] == [[WORDS.index("cat") + 2, WORDS.index("law") + 2], [1], [1, WORDS.index("cat") + 2]]
    assert ends_of(Document("d", tuple("abcde"), (2, 1, 2))).tolist() == [0, 1, 1, 0]
    assert ends_of(Document("d", ("a",), (1,))).tolist() == []


def test_the_bilstm_does_not_see_padding_or_other_documents():
    torch.manual_seed(0)
    model = HierarchicalBiLSTM(vectors(), 8)
    first, second = (word_ids(document, vectors(), 9) for document in documents(2))
    with torch.no_grad():
        together = model([first, second[:3]])
        alone = model([second[:3]])
    assert [len(found) for found in together] == [len(first), 3]
    assert together[1].tolist() == [pytest.approx(row, abs=1e-6) for row in alone[0].tolist()]
    assert not any(parameter is model.words.weight for parameter in model.parameters() if parameter.requires_grad)
    for empty in ([], [[]]):
        with pytest.raises(InputError, match="no documents, or a document has no sentences"):
            model(empty)


def test_the_bilstm_learns_the_boundaries_of_a_few_documents():
    torch.manual_seed(0)
    model = HierarchicalBiLSTM(vectors(), 16)
    train = documents(12)
    examples = [(word_ids(document, vectors(), 9), ends_of(document)) for document in train]
    recipe = FineTuning(learning_rate=1e-2, schedule="constant", epochs=100, batch=6, warmup=0.0, precision="float32")
    fine_tune(model, lambda _: (examples[part] for part in in_batches(12, 6)), lambda b: boundary_loss(model, b), recipe, 200)
    found = probabilities(model, [words for words, _ in examples], 5)
    hypotheses = [segments_of(values > 0.5) for values in found]
    assert boundary_scores([document.segments for document in train], hypotheses).f1 > 0.8
    assert boundary_loss(model, [(examples[0][0][:1], torch.zeros(0, dtype=torch.int64))]).item() == 0


def test_the_threshold_with_the_lowest_error():
    document = Document("d", tuple("abcdefgh"), (4, 4))
    found = [np.array([0.1, 0.1, 0.1, 0.6, 0.3, 0.1, 0.1])]
    assert chosen_threshold(found, [document], [0.0, 0.2, 0.9]) == 0.2  # a boundary too many costs less than one too few
    assert chosen_threshold(found, [document], [0.9, 0.5, 0.4, 0.2]) == 0.4  # the smaller of equals


def test_schedules():
    linear = FineTuning(learning_rate=1.0, epochs=1, batch=1, warmup=0.2, precision="float32")
    assert [linear.rate(step, 10) for step in (0, 1, 2, 6, 9)] == pytest.approx([0.5, 1, 1, 0.5, 0.125])
    constant = linear.model_copy(update={"schedule": "constant", "warmup": 0.0})
    assert {constant.rate(step, 10) for step in range(10)} == {1.0}


def test_the_number_of_batches_must_fit_the_schedule():
    network = nn.Linear(1, 1)
    with pytest.raises(InputError, match="gave 4 batches and the schedule has 5"):
        fine_tune(network, lambda _: [torch.ones(1, 1)], lambda x: network(x).sum(), RECIPE, 5)
    with pytest.raises(InputError, match="gave 0 batches"):
        fine_tune(network, lambda _: [], lambda x: network(x).sum(), RECIPE, 0)


def test_slices_cover_everything():
    assert [(part.start, part.stop) for part in in_batches(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert list(in_batches(0, 3)) == []
