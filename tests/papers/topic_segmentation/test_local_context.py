"""The siamese encoder with three heads: pairs and negatives by definition, and learning on documents of made-up topics."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from common.data.segmentation import Document
from common.errors import InputError
from common.experiment import Measurement
from common.metrics.segmentation import boundary_scores
from papers.topic_segmentation.fine_tuning import FineTuning, fine_tune
from papers.topic_segmentation.heads import add_head_scores, segmentations
from papers.topic_segmentation.local_context import (
    HEADS,
    UNKNOWN,
    LocalContextModel,
    Predictions,
    boundary_scores_of,
    classes_of,
    count_batches,
    encode_documents,
    heads_of,
    joint_loss,
    pair_batches,
    predict,
    runs_of,
)
from tests.papers.topic_segmentation.tiny_encoder import documents, tiny_encoder, tiny_tokenizer

RECIPE = FineTuning(learning_rate=3e-3, epochs=3, batch=4, warmup=0.1, precision="float32")


def encoded(count=12, seed=0, longest=8, context=0, labelled=True):
    found = documents(count, seed, labelled)
    return found, encode_documents(found, tiny_tokenizer(), classes_of(documents(4)), longest=longest, context=context)


def trained(name, sentences, seed=0, epochs=3, device="cpu"):
    encoder = tiny_encoder(device)
    torch.manual_seed(seed)
    model = LocalContextModel(encoder, heads_of(name), 3).to(device)
    recipe = RECIPE.model_copy(update={"epochs": epochs})
    fine_tune(
        model,
        lambda epoch: pair_batches(sentences, 6, recipe.batch, epoch),
        lambda batch: joint_loss(model, sentences, batch),
        recipe,
        epochs * count_batches(sentences, 6, recipe.batch),
    )
    return model


def test_all_seven_combinations_have_names():
    names = ["+".join(chosen) for size in (1, 2, 3) for chosen in combinations(HEADS, size)]
    assert [heads_of(name) for name in names] == [tuple(name.split("+")) for name in names]
    for wrong in ("", "tc+stp", "stp+stp", "stp+abc"):
        with pytest.raises(InputError, match="heads = "):
            heads_of(wrong)


def test_sentences_alone_and_between_their_neighbours():
    document = Document("d", ("cat purr", "", "sky sun star light law"), (2, 1), ("cats", None))
    tokenizer = tiny_tokenizer()
    alone = encode_documents([document], tokenizer, {"cats": 0}, longest=6)
    word = tokenizer.tokenizer.get_vocab()
    start, end, padding = tokenizer.start, tokenizer.separator, tokenizer.padding
    assert alone.ids.tolist() == [
        [start, word["cat"], word["purr"], end, padding, padding],
        [start, end, padding, padding, padding, padding],
        [start, word["sky"], word["sun"], word["star"], word["light"], end],
    ]
    # Special tokens stand for a sentence without words.
    assert alone.own[:, :5].tolist() == [
        [False, True, True, False, False], [True, True, False, False, False], [False, True, True, True, True]
    ]  # fmt: skip
    assert alone.topic.tolist() == [0, 0, UNKNOWN]
    assert alone.segment.tolist() == [0, 0, 1]
    between = encode_documents([document], tokenizer, {"cats": 0}, longest=6, context=1)
    assert between.ids[2].tolist() == [start, word["sky"], word["sun"], end, padding, padding][: between.ids.shape[1]]
    assert between.own[2].sum() == 2
    middle = Document("d", ("cat purr", "law", "sky sun star"), (3,))
    row = encode_documents([middle], tokenizer, {}, longest=7, context=1)
    assert row.ids[1].tolist() == [start, word["cat"], word["purr"], word["law"], word["sky"], word["sun"], end]
    assert row.own[1].nonzero().flatten().tolist() == [3]


def test_runs_hold_every_pair_of_neighbours_once():
    found, sentences = encoded()
    pairs = [(i, i + 1) for first, end in runs_of(sentences, 5) for i in range(first, end - 1)]
    expected, start = [], 0
    for document in found:
        expected += [(start + i, start + i + 1) for i in range(len(document.sentences) - 1)]
        start += len(document.sentences)
    assert sorted(pairs) == expected


def test_batches_and_negatives():
    found, sentences = encoded()
    seen, near = [], []
    batches = list(pair_batches(sentences, 6, 4, seed=1))
    assert len(batches) == count_batches(sentences, 6, 4)
    for batch in batches:
        left, right, other = (batch.rows[part] for part in (batch.left, batch.right, batch.other))
        assert torch.equal(right, left + 1)
        assert (sentences.document[left] == sentences.document[right]).all()
        assert (other != right).all()
        assert (other != left).all()
        seen += left.tolist()
        same_document = sentences.document[left] == sentences.document[other]
        near += same_document.tolist()
    assert len(seen) == len(set(seen)) == sum(len(document.sentences) - 1 for document in found)
    assert 0.25 < np.mean(near) < 0.75
    again = list(pair_batches(sentences, 6, 4, seed=1))
    assert all(torch.equal(a.other, b.other) and torch.equal(a.rows, b.rows) for a, b in zip(batches, again, strict=True))
    with pytest.raises(InputError, match="length is 1"):
        next(pair_batches(sentences, 1, 4, seed=1))


def test_negatives_of_one_short_document_of_one_section():
    document = Document("d", ("cat", "purr"), (2,))
    sentences = encode_documents([document], tiny_tokenizer(), {}, longest=6)
    (batch,) = pair_batches(sentences, 4, 2, seed=0)
    assert batch.other.tolist() == [0]
    assert runs_of(encode_documents([Document("d", ("cat",), (1,))], tiny_tokenizer(), {}, longest=6), 4) == []


@pytest.mark.parametrize("name", ["stp", "tc", "nsp", "stp+tc+nsp"])
def test_heads_learn_topics_they_can_see(name):
    _, train = encoded(60)
    found, test = encoded(20, seed=1)
    model = trained(name, train, epochs=6)
    predictions = predict(model, test, seed=0)
    measurement = Measurement()
    add_head_scores(measurement, predictions, test, 0)
    accuracies = {row.metric: row.value for row in measurement.rows}
    assert set(accuracies) == {f"{head}_accuracy" for head in heads_of(name)}
    assert accuracies.get("tc_accuracy", 100) > 95
    assert accuracies.get("stp_accuracy", 100) > 90
    hypotheses = segmentations(boundary_scores_of(predictions), found)
    assert [sum(hypothesis) for hypothesis in hypotheses] == [len(document.sentences) for document in found]
    if name != "nsp":
        assert boundary_scores([document.segments for document in found], hypotheses).f1 > 0.8


def test_the_same_seed_gives_the_same_predictions():
    _, train = encoded(8)
    first, second, other = (predict(trained("stp+tc+nsp", train, seed, 1), train, seed=0) for seed in (0, 0, 1))
    assert first.different is not None
    assert torch.equal(first.different, second.different)  # pyright: ignore[reportArgumentType]
    assert not torch.equal(first.different, other.different)  # pyright: ignore[reportArgumentType]


def test_missing_labels_have_no_part_in_the_loss():
    _, sentences = encoded(4, labelled=False)
    torch.manual_seed(0)
    model = LocalContextModel(tiny_encoder(), ("tc",), 3)
    (batch, *_) = pair_batches(sentences, 6, 4, seed=0)
    assert joint_loss(model, sentences, batch).item() == 0
    measurement = Measurement()
    add_head_scores(measurement, predict(model.eval(), sentences, seed=0), sentences, 0)
    assert measurement.rows == []


def test_the_joint_loss_is_the_sum_of_the_heads():
    _, sentences = encoded(4)
    model = LocalContextModel(tiny_encoder(), HEADS, 3).eval()
    (batch, *_) = pair_batches(sentences, 6, 4, seed=0)
    together = joint_loss(model, sentences, batch).item()
    parts = []
    for head in HEADS:
        alone = LocalContextModel(model.encoder, (head,), 3).eval()
        alone.heads[head] = model.heads[head]
        parts.append(joint_loss(alone, sentences, batch).item())
    assert together == pytest.approx(sum(parts))


def test_where_a_boundary_lies():
    different, not_next = torch.tensor([0.9, 0.2]), torch.tensor([0.7, 0.1])
    topics = torch.tensor([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9]])
    assert boundary_scores_of(Predictions(different, not_next, not_next, topics)) is different
    assert boundary_scores_of(Predictions(None, not_next, not_next, None)) is not_next
    assert boundary_scores_of(Predictions(None, None, None, topics)).tolist() == [0, 1]
    # Two topics drawn differ with probability 1 - 0.36 - 0.16 and 1 - 0.06 - 0.36.
    mixed = boundary_scores_of(Predictions(None, not_next, not_next, topics))
    assert mixed.tolist() == pytest.approx([(0.7 + 0.48) / 2, (0.1 + 0.58) / 2])


def test_bad_input():
    with pytest.raises(InputError, match=r"heads = \[\] with 3 classes"):
        LocalContextModel(tiny_encoder(), (), 3)
    with pytest.raises(InputError, match="with 1 classes"):
        LocalContextModel(tiny_encoder(), ("tc",), 1)
    with pytest.raises(InputError, match="0 documents"):
        encode_documents([], tiny_tokenizer(), {}, longest=8)
    with pytest.raises(InputError, match="longest = 5"):
        encode_documents(documents(1), tiny_tokenizer(), {}, longest=5)


@pytest.mark.gpu
def test_training_on_gpu_gives_the_same_numbers_twice():
    _, sentences = encoded(20)
    names = ("ids", "own", "document", "segment", "topic")
    moved = replace(sentences, **{name: getattr(sentences, name).cuda() for name in names})
    first, second = (predict(trained("stp+tc+nsp", moved, device="cuda"), moved, seed=0) for _ in "ab")
    assert first.different is not None
    assert torch.equal(first.different, second.different)  # pyright: ignore[reportArgumentType]
