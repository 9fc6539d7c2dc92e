"""Which of the three heads, alone and together, segment best from local context, and does context help? (Lee et al., 2023)."""

from functools import lru_cache

import torch

from common.configuration import Parameters
from common.data.segmentation import Document, Split, merge_equal_labels
from common.experiment import Context, Measurement, main
from common.metrics.segmentation import segments_of
from papers.topic_segmentation.fine_tuning import FineTuning, fine_tune
from papers.topic_segmentation.local_context import (
    UNKNOWN,
    LocalContextModel,
    Predictions,
    Sentences,
    boundary_scores_of,
    classes_of,
    count_batches,
    encode_documents,
    heads_of,
    joint_loss,
    pair_batches,
    predict,
)
from papers.topic_segmentation.scoring import add_scores
from papers.topic_segmentation.subjects import documents_of, fresh_encoder, tokenizer

CONTEXT = "+context"
TRAIN_AND_TEST: tuple[Split, Split] = ("train", "test")


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        data_set: to train and test on; a name of `common.data.segmentation`, with labels.
        model: heads joined with +, and `+context` where a sentence is read with its neighbours.
        seeds: of heads, order, negatives and dropout; one training each.
        documents: at most so many of each split; 0 is all.
        sentences: at most so many of each document; 0 is all.
        longest: tokens of a sentence, with its context.
        run_length: sentences of a run.
        fine_tuning: a batch is of runs.
        parts: see `scoring.pk_by_part`.
    """

    data_set: str
    model: str
    seeds: list[int]
    documents: int
    sentences: int
    longest: int
    run_length: int
    fine_tuning: FineTuning
    parts: int


@lru_cache(maxsize=4)
def _sentences(data_set: str, split: Split, count: int, length: int, longest: int, context: int, device: str) -> Sentences:
    """Tokenised once for all cells of a process."""
    documents = documents_of(data_set, split, count, length)
    classes = classes_of(documents_of(data_set, "train", count, length))
    found = encode_documents(documents, tokenizer(), classes, longest=longest, context=context)
    tensors = (tensor.to(device) for tensor in (found.ids, found.own, found.document, found.segment, found.topic))
    return Sentences(*tensors, padding=found.padding)


def segmentations(scores: torch.Tensor, documents: list[Document]) -> list[tuple[int, ...]]:
    """Segments of each document from boundary scores of all neighbours, those across documents included."""
    found, start = [], 0
    for document in documents:
        end = start + len(document.sentences)
        found.append(segments_of((scores[start : end - 1] > 0.5).numpy()))
        start = end
    return found


def add_head_scores(measurement: Measurement, predictions: Predictions, sentences: Sentences, seed: int) -> None:
    """Accuracies of the heads that were trained, in percent, on true neighbours (STP), on them and as many others (NSP)."""
    follows = sentences.follows.cpu()
    if predictions.different is not None:
        same = (sentences.segment[1:] == sentences.segment[:-1]).cpu()
        right = (predictions.different <= 0.5) == same
        measurement.add("stp_accuracy", 100 * right[follows].float().mean(), "%", seed=seed)
    if predictions.not_next is not None and predictions.not_next_of_other is not None:
        right = torch.cat([predictions.not_next[follows] <= 0.5, predictions.not_next_of_other[follows] > 0.5])
        measurement.add("nsp_accuracy", 100 * right.float().mean(), "%", seed=seed)
    if predictions.topics is not None:
        topic = sentences.topic.cpu()
        known = topic != UNKNOWN
        if known.any():
            right = predictions.topics.argmax(dim=1)[known] == topic[known]
            measurement.add("tc_accuracy", 100 * right.float().mean(), "%", seed=seed)


def run(settings: Settings, context: Context) -> Measurement:
    """Train with each seed, segment the test documents, and score against both readings of the reference.

    Rows are those of `scoring.add_scores`: `pk`, `window_diff`, `boundary_similarity`, `boundary_f1`, `pk_of_part` and others.
    """
    measurement = Measurement()
    heads = settings.model.removesuffix(CONTEXT)
    neighbours = int(settings.model.endswith(CONTEXT))
    size = settings.documents, settings.sentences
    train, test = (
        _sentences(settings.data_set, split, *size, settings.longest, neighbours, context.device) for split in TRAIN_AND_TEST
    )
    documents = documents_of(settings.data_set, "test", *size)
    classes = len(classes_of(documents_of(settings.data_set, "train", *size)))
    recipe = settings.fine_tuning
    steps = recipe.epochs * count_batches(train, settings.run_length, recipe.batch)
    progress = context.progress(len(settings.seeds))
    for seed in settings.seeds:
        torch.manual_seed(seed)
        model = LocalContextModel(fresh_encoder(context.device), heads_of(heads), classes)
        model.to(context.device)
        loss = fine_tune(
            model,
            lambda epoch, seed=seed: pair_batches(train, settings.run_length, recipe.batch, 1000 * seed + epoch),
            lambda batch, model=model: joint_loss(model, train, batch),
            recipe,
            steps,
        )
        measurement.add("training_loss", loss, "nat", seed=seed)
        with torch.autocast(context.device, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            predictions = predict(model, test, seed=seed)
        add_head_scores(measurement, predictions, test, seed)
        hypotheses = segmentations(boundary_scores_of(predictions), documents)
        for reading, references in (
            ("sections", [document.segments for document in documents]),
            ("label_changes", [merge_equal_labels(document).segments for document in documents]),
        ):
            add_scores(
                measurement, references, hypotheses, method=settings.model, parts=settings.parts, reading=reading, seed=seed
            )
        progress.step(f"seed {seed}")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
