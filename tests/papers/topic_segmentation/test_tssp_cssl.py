"""TSSP and CSSL: windows, augmented documents and contrast pairs by their definitions, and learning on made-up topics."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.segmentation import Document
from common.errors import InputError
from common.metrics.segmentation import boundary_scores, segments_of
from papers.topic_segmentation.fine_tuning import FineTuning, fine_tune
from papers.topic_segmentation.tssp_cssl import (
    ENDS_TOPIC,
    FOLLOWS,
    GOES_ON,
    IGNORED,
    SAME_TOPIC,
    STARTS_TOPIC,
    CoherenceModel,
    DocumentPieces,
    Weights,
    augmented,
    batch_topics,
    boundary_probabilities,
    coherence_loss,
    collate,
    contrast_pairs,
    contrastive_loss,
    mean_cross_entropy,
    original,
    steps_of_epoch,
    windows_of,
)
from tests.papers.topic_segmentation.tiny_encoder import documents, tiny_encoder, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def numbered(*lengths, paragraphs=None):
    """A document whose sentences are single, different numbers; without paragraphs every sentence may end a topic."""
    topic = tuple(number for number, length in enumerate(lengths) for _ in range(length))
    relation = tuple(IGNORED if i == 0 else FOLLOWS if topic[i] == topic[i - 1] else STARTS_TOPIC for i in range(len(topic)))
    may_end = tuple(i == n - 1 for n in paragraphs or (1,) * len(topic) for i in range(n))
    return DocumentPieces(tuple([100 + i] for i in range(len(topic))), topic, relation, may_end)


def test_a_document_as_it_is():
    document = Document("d", ("cat purr", "tail", "sun sky star"), (2, 1))
    pieces = original(document, TOKENIZER, 2)
    assert [len(sentence) for sentence in pieces.pieces] == [2, 1, 2]
    assert (pieces.topic, pieces.relation) == ((0, 0, 1), (IGNORED, FOLLOWS, STARTS_TOPIC))
    assert pieces.may_end == (True, True, True)
    with_paragraphs = Document("d", ("cat purr", "tail", "tail", "sun sky star"), (3, 1), paragraphs=(1, 2, 1))
    assert original(with_paragraphs, TOKENIZER, 2).may_end == (True, False, True, True)


def test_only_the_last_sentence_of_a_paragraph_is_labelled_and_predicted():
    sequence = numbered(3, 3, 2, paragraphs=(2, 1, 3, 2))
    windows = windows_of(sequence, TOKENIZER, 12)
    assert windows[0].labels == [IGNORED, GOES_ON, ENDS_TOPIC, IGNORED, IGNORED]
    assert windows[1].labels == [IGNORED, ENDS_TOPIC, IGNORED, IGNORED]
    batch = collate(windows, "cpu")
    assert batch_topics(batch.labels, batch.markers) == [0, 0, 2]  # a boundary, and a new window
    words = ("cat purr", "tail", "sun", "star sky", "cat", "tail purr", "sky", "sun star")
    of_words = Document("d", words, (3, 3, 2), paragraphs=(2, 1, 3, 2))
    model = CoherenceModel(tiny_encoder()).eval()
    found, every = (
        boundary_probabilities(model, windows_of(original(one, TOKENIZER, 2), TOKENIZER, 12), 8, "cpu")
        for one in (of_words, replace(of_words, paragraphs=None))
    )
    assert (found > 0).tolist() == [False, True, True, False, False, True, False]
    assert found[[1, 2, 5]].tolist() == every[[1, 2, 5]].tolist()
    assert (every > 0).all()


def test_windows_share_a_sentence_and_label_each_once():
    # Every sentence takes a marker and a token; five fit twelve tokens with [CLS].
    windows = windows_of(numbered(3, 3, 2), TOKENIZER, 12)
    assert [window.first for window in windows] == [0, 4]
    assert [len(window.markers) for window in windows] == [5, 4]
    assert windows[0].labels == [GOES_ON, GOES_ON, ENDS_TOPIC, GOES_ON, IGNORED]
    assert windows[1].labels == [GOES_ON, ENDS_TOPIC, GOES_ON, IGNORED]
    assert windows[1].relations == [IGNORED, FOLLOWS, STARTS_TOPIC, FOLLOWS]
    assert windows[1].ids[:3] == [TOKENIZER.start, TOKENIZER.start, 104]
    with pytest.raises(InputError, match="do not fit a window of 4"):
        windows_of(numbered(3), TOKENIZER, 4)
    (alone,) = windows_of(numbered(1), TOKENIZER, 12)
    assert (alone.labels, alone.relations) == ([IGNORED], [IGNORED])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(5, 20))
@settings(max_examples=40)
def test_every_sentence_but_the_last_is_labelled_once(lengths, longest):
    labelled = [
        window.first + place
        for window in windows_of(numbered(*lengths), TOKENIZER, longest)
        for place, label in enumerate(window.labels)
        if label != IGNORED
    ]
    assert labelled == list(range(sum(lengths) - 1))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 50))
@settings(max_examples=40)
def test_an_augmented_document_keeps_topics_and_their_last_sentences(lengths, seed):
    paragraphs = [part for n in lengths for part in ([1, n - 1] if n > 1 else [1])]
    document = numbered(*lengths, paragraphs=paragraphs)
    changed = augmented([document], 0, np.random.default_rng(seed))
    ends = {word for (word,), may_end in zip(document.pieces, document.may_end, strict=True) if may_end}
    assert {word for (word,), may_end in zip(changed.pieces, changed.may_end, strict=True) if may_end} == ends
    assert sorted(changed.pieces) == sorted(document.pieces)
    starts = np.cumsum([0, *lengths])
    topics = {tuple(range(100 + a, 100 + b)) for a, b in pairwise(starts)}
    found = {}
    for (word,), topic in zip(changed.pieces, changed.topic, strict=True):
        found.setdefault(topic, []).append(word)
    assert {tuple(sorted(words)) for words in found.values()} == topics
    assert all(words[-1] == max(words) for words in found.values())
    assert list(changed.topic) == sorted(changed.topic)
    for i in range(1, len(changed.topic)):
        expected = STARTS_TOPIC if changed.topic[i] != changed.topic[i - 1] else (
            FOLLOWS if changed.pieces[i][0] == changed.pieces[i - 1][0] + 1 else SAME_TOPIC
        )  # fmt: skip
        assert changed.relation[i] == expected
    assert changed.relation[0] == IGNORED


def test_topics_of_other_documents_come_in_for_about_a_quarter():
    foreign_topic = DocumentPieces(tuple([900 + i] for i in range(6)), (0,) * 6, (0,) * 6, (True,) * 6)
    sequences = [numbered(3, 3, 3, 3), foreign_topic]
    generator = np.random.default_rng(0)
    foreign = 0
    for _ in range(200):
        changed = augmented(sequences, 0, generator)
        foreign += len({topic for (word,), topic in zip(changed.pieces, changed.topic, strict=True) if word >= 900})
    assert 0.2 < foreign / 800 < 0.3


def test_contrast_pairs_by_hand():
    positives, negatives = contrast_pairs([0, 0, 0, 1, 1, 2], np.random.default_rng(0))
    assert positives[[1, 2, 4, 5], 0].tolist() == [0, 1, 3, 5]
    assert positives[0, 0] in (0, 1)  # random, but not the last
    assert positives[3, 0] == 3
    assert negatives[:3].tolist() == [[3, 4, 5]] * 3
    assert negatives[3:5].tolist() == [[5, 5, 5]] * 2  # one behind, drawn again
    assert set(negatives[5].tolist()) <= {0, 1, 2}  # nothing behind: of the first topic


def test_contrastive_loss_is_its_formula():
    states = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)
    # Topics 0, 0, 1: positives 0, 0, 2; negatives 2, 2, 2 for the first two, random of the first topic for the last.
    positives, negatives = contrast_pairs([0, 0, 1], np.random.default_rng(3))
    unit = states / states.norm(dim=1, keepdim=True)
    expected = []
    for i in range(3):
        above, below = (torch.exp(unit[chosen[i]] @ unit[i] / 0.1).sum() for chosen in (positives, negatives))
        expected.append(-torch.log(above / (above + below)))
    loss = contrastive_loss(states, [0, 0, 1], np.random.default_rng(3))
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
    assert contrastive_loss(states, [0, 0, 0], np.random.default_rng(0)).item() == 0
    assert contrastive_loss(states[:2], [0, 1], np.random.default_rng(0)).item() == 0


def test_topics_of_a_batch_are_counted_by_boundaries():
    windows = windows_of(numbered(3, 3, 2), TOKENIZER, 12)
    batch = collate(windows, "cpu")
    # Labelled: three of topic 0, one of topic 1; then a new window: two, and one after the boundary.
    assert batch_topics(batch.labels, batch.markers) == [0, 0, 0, 1, 2, 2, 3]


def test_means_of_nothing_are_zero():
    logits = torch.randn(3, 2)
    assert mean_cross_entropy(logits, torch.full((3,), IGNORED)).item() == 0
    labels = torch.tensor([0, IGNORED, 1])
    expected = torch.nn.functional.cross_entropy(logits[[0, 2]], labels[[0, 2]])
    assert mean_cross_entropy(logits, labels).item() == pytest.approx(expected.item())


def test_padding_has_no_part():
    model = CoherenceModel(tiny_encoder()).eval()
    long, short = (windows_of(original(Document("d", ("cat purr",) * n, (n,)), TOKENIZER, 4), TOKENIZER, 64)[0] for n in (6, 2))
    with torch.no_grad():
        together = model.states(collate([long, short], "cpu"))[6:]
        alone = model.states(collate([short], "cpu"))
    assert together.tolist() == [pytest.approx(row, abs=1e-5) for row in alone.tolist()]


def trained(weights, device="cpu", epochs=60):
    pieces = [original(document, TOKENIZER, 8) for document in documents(12)]
    windows = [window for one in pieces for window in windows_of(one, TOKENIZER, 40)]
    generator = np.random.default_rng(0)
    beside = None
    if weights.augmented or weights.tssp:
        changed = [augmented(pieces, number, generator) for number in range(len(pieces))]
        beside = [window for one in changed for window in windows_of(one, TOKENIZER, 40)]
    torch.manual_seed(0)
    model = CoherenceModel(tiny_encoder(device, layers=2)).to(device)
    recipe = FineTuning(learning_rate=3e-3, epochs=epochs, batch=8, warmup=0.1, precision="float32")
    loss = fine_tune(
        model,
        lambda epoch: steps_of_epoch(windows, beside, 8, epoch, device),
        lambda step: coherence_loss(model, step, weights, generator),
        recipe,
        epochs * -(-len(windows) // 8),
    )
    return model, loss


@pytest.mark.parametrize(("weights", "epochs"), [(Weights(0, 0, 0), 150), (Weights(1, 1, 0.5), 150)])
def test_boundaries_of_a_few_documents_can_be_learned(weights, epochs):
    model, loss = trained(weights, epochs=epochs)
    assert np.isfinite(loss)
    hypotheses = []
    for document in documents(12):
        windows = windows_of(original(document, TOKENIZER, 8), TOKENIZER, 40)
        probabilities = boundary_probabilities(model, windows, len(document.sentences), "cpu")
        assert len(probabilities) == len(document.sentences) - 1
        hypotheses.append(segments_of((probabilities >= 0.5).numpy()))
    assert boundary_scores([document.segments for document in documents(12)], hypotheses).f1 > 0.6


def test_one_sentence_has_no_boundary_to_find():
    model = CoherenceModel(tiny_encoder()).eval()
    windows = windows_of(numbered(1), TOKENIZER, 12)
    windows[0].ids[:] = [TOKENIZER.start, TOKENIZER.start, 4]
    assert boundary_probabilities(model, windows, 1, "cpu").tolist() == []
    with pytest.raises(InputError, match="no windows"):
        next(steps_of_epoch([], None, 2, 0, "cpu"))


@pytest.mark.gpu
def test_training_on_gpu_gives_the_same_numbers_twice():
    assert trained(Weights(1, 1, 0.5), "cuda", 2)[1] == trained(Weights(1, 1, 0.5), "cuda", 2)[1]
